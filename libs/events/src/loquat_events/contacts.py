"""Contacts: orders to merge and to erase, and that it was done. Ids only; nothing of the person."""

from __future__ import annotations

from typing import ClassVar
from uuid import UUID

from pydantic import AwareDatetime, Field

from loquat_events.envelope import Payload


class MergeContacts(Payload):
    """Make `contact_id` one with `into`. All orders of a project have one lane. The event's id is the order's."""

    TYPE: ClassVar[str] = "contact.merge.v1"
    project_id: str
    contact_id: UUID
    into: UUID
    ordered_by: str


class EraseContact(Payload):
    """Forget a person: what remains are rows without personal data. The event's id is the order's."""

    TYPE: ClassVar[str] = "contact.erase.v1"
    project_id: str
    contact_id: UUID
    ordered_by: str


class ContactMerged(Payload):
    """Two contacts are one in the project's record. Links in its own tables follow."""

    TYPE: ClassVar[str] = "contact.merged.v1"
    project_id: str
    order_id: UUID
    contact_id: UUID
    into: UUID
    epoch: int = Field(description="of the database in which that is so")
    actor: str
    at: AwareDatetime


class ContactErased(Payload):
    """A person is forgotten in the project's record. Links in its own tables follow. Said again for a restored database."""

    TYPE: ClassVar[str] = "contact.erased.v1"
    project_id: str
    order_id: UUID
    contact_id: UUID
    people: tuple[UUID, ...] = Field(description="the contact, and those that had been merged into it")
    epoch: int = Field(description="of the database in which that is so")
    actor: str
    at: AwareDatetime
