"""WhatsApp accounts and numbers."""

from __future__ import annotations

from typing import ClassVar, Final

from pydantic import AwareDatetime

from loquat_events.envelope import Payload

ROUTING_LEASE: Final = 5.0
"""Seconds. A gateway whose routing table is older than this refuses webhooks, so that a number can move: who waits longer than this after a
tombstone knows that no gateway routes by the old entry. Ours: long enough for a slow poll, short enough for a person who moves a number."""


class NumberAttached(Payload):
    """A number belongs to a project. Compacted by `phone_number_id` (the lane); a tombstone says it belongs to nobody."""

    TYPE: ClassVar[str] = "number.attached.v1"
    phone_number_id: str
    project_id: str
    waba_id: str
    display_phone_number: str | None = None
    attached_at: AwareDatetime


class AccountUpdateReceived(Payload):
    """A field of Meta's that names no person: template, quality, account and flow updates, and unknown ones."""

    TYPE: ClassVar[str] = "wa.account_update.received.v1"
    waba_id: str
    number_id: str | None = None
    field: str
    raw: str


class UpdateUnrouted(Payload):
    """An update for a number nobody has attached, kept for the day somebody does. `change` is Meta's change, whole."""

    TYPE: ClassVar[str] = "wa.update.unrouted.v1"
    number_id: str
    waba_id: str
    change: str
    received_at: AwareDatetime
