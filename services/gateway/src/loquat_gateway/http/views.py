"""The public shapes of what other services own. Strict out: what is not named here does not leave."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from loquat_events.conversations import Address
from loquat_events.projects import ProjectState
from pydantic import BaseModel, Field


class OneProject(BaseModel):
    """A project in the path."""

    project_id: str = Field(max_length=80)


class Page(BaseModel):
    """A page: `cursor` is the `next_cursor` of the page before."""

    cursor: str | None = Field(default=None, max_length=200)
    limit: int = Field(default=50, ge=1, le=200)


class Step(BaseModel):
    """One step of a project's creation."""

    name: str
    status: str
    attempts: int
    started_at: datetime
    ended_at: datetime | None
    reason: str | None


class Project(BaseModel):
    """A project."""

    id: str
    organization_id: str
    name: str
    status: ProjectState
    failing_step: str | None
    reason: str | None
    created_at: datetime
    ready_at: datetime | None
    steps: list[Step]

    @classmethod
    def requested(cls, project: str, organization: str, name: str, at: datetime) -> Project:
        """A project that the provisioner has not heard of yet."""
        return cls(
            id=project,
            organization_id=organization,
            name=name,
            status="creating",
            failing_step=None,
            reason=None,
            created_at=at,
            ready_at=None,
            steps=[],
        )


class ProjectList(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Project]
    next_cursor: str | None


class Number(BaseModel):
    """A WhatsApp number of a project. Its token never leaves the connector."""

    phone_number_id: str
    waba_id: str
    display_phone_number: str | None
    state: str
    attached_at: datetime | None


class NumberList(BaseModel):
    """A project's numbers."""

    items: list[Number]


class Contact(BaseModel):
    """A person."""

    id: UUID
    name: str | None
    phone_number: str | None
    language: str | None = Field(default=None, description="a tag such as `de` or `pt_BR`, where the bot has noted one")
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class ContactPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Contact]
    next_cursor: str | None


class OpenConversation(BaseModel):
    """A conversation that goes on."""

    id: UUID
    number_id: str


class ContactDetail(Contact):
    """With all addresses."""

    addresses: list[Address]
    open_conversations: list[OpenConversation]
    merged_into: UUID | None = Field(description="the contact that this one is now; all else of it is empty then")


class Conversation(BaseModel):
    """A conversation with a contact.

    `holder` is `bot`, `person` (`holder_id`), `people` (nobody yet) or `phone`. One that needs attention is one in which the bot failed at the message
    `attention_event`, last in the run `attention_run`.
    """

    id: UUID
    contact_id: UUID
    contact_name: str | None
    number_id: str
    status: str
    state: str
    holder: str
    holder_id: str | None = None
    held_since: datetime | None = None
    held_until: datetime | None = None
    hold_note: str | None = None
    needs_attention: bool = False
    attention_since: datetime | None = None
    attention_event: UUID | None = None
    attention_run: UUID | None = None
    opened_at: datetime
    closed_at: datetime | None
    last_message_at: datetime | None


class ConversationDetail(Conversation):
    """With all addresses of its contact."""

    addresses: list[Address]


class ConversationPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Conversation]
    next_cursor: str | None


class Message(BaseModel):
    """A message with every status it had and when."""

    id: UUID
    conversation_id: UUID
    direction: str
    type: str
    text: str | None
    content: Any
    wamid: str | None
    reply_to: str | None
    sender: str
    sender_id: str | None
    status: str
    transitions: dict[str, datetime | None]
    error_code: int | None
    error_title: str | None
    pricing: str | None
    billable: bool | None
    sent_at: datetime
    recorded_at: datetime


class MessagePage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Message]
    next_cursor: str | None


class DeadLetter(BaseModel):
    """An event that a consumer gave up on. Its id names the consumer, too."""

    id: str
    consumer: str
    topic: str
    type: str | None
    event_id: str
    reason: str
    attempts: int
    state: str
    created_at: datetime
    ended_at: datetime | None


class DeadLetterDetail(DeadLetter):
    """With the event."""

    event: Any


class DeadLetterList(BaseModel):
    """Newest first, of all consumers; `next_cursor` is null on the last page. `unavailable` names consumers that did not answer."""

    items: list[DeadLetter]
    unavailable: list[str]
    next_cursor: str | None


class Ledger(BaseModel):
    """accepted = handled + held + expired + discarded + deferred + dead + waiting."""

    accepted: int
    handled: int
    held: int
    expired: int
    discarded: int
    deferred: int
    dead: int
    waiting: int
