"""What happens to a conversation: messages in, orders, messages out, receipts, changes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from loquat_events.envelope import Payload, Shape

AddressKind = Literal["user_id", "wa_id", "phone", "username"]
MessageStatus = Literal["queued", "sending", "unknown", "accepted", "sent", "failed", "delivered", "read", "played", "expired"]


class Address(Shape):
    """One name under which WhatsApp knows a person."""

    kind: AddressKind
    value: Annotated[str, StringConstraints(min_length=1, max_length=200)]


class InboundMessage(Shape):
    """A message as it came. `raw` is the text of its JSON, kept whole: an unknown type is shown from it (P6)."""

    type: str
    text: str | None = None
    content: dict[str, Any] | None = Field(default=None, description="the part of the message named after its type, cleaned for jsonb")
    wamid: str
    reply_to: str | None = Field(default=None, description="the wamid this one answers")
    raw: str


class MessageReceived(Payload):
    """A contact wrote. `addresses` is never empty; the first that is known decides the contact."""

    TYPE: ClassVar[str] = "wa.message.received.v1"
    number_id: str = Field(description="Meta's phone_number_id")
    addresses: tuple[Address, ...] = Field(min_length=1)
    name: str | None = None
    message: InboundMessage
    sent_at: AwareDatetime


class PersonUpdateReceived(Payload):
    """Another field of Meta's that names a person: echoes, history, calls, user id changes, preferences, and what nobody knows yet."""

    TYPE: ClassVar[str] = "wa.person_update.received.v1"
    number_id: str
    addresses: tuple[Address, ...] = ()
    field: str
    raw: str


class Outgoing(Shape):
    """What is to be said, as the bot or a person gave it. `content` by type: buttons, list and image need it, text does not."""

    type: Literal["text", "buttons", "list", "image"]
    text: Annotated[str, StringConstraints(max_length=4096)] | None = None
    content: dict[str, Any] | None = None


class SendOrdered(Payload):
    """A person or a program asks for a message to a contact. Its event id is the id of the order and decides the message's."""

    TYPE: ClassVar[str] = "order.send.v1"
    number_id: str
    addresses: tuple[Address, ...] = Field(min_length=1)
    message: Outgoing
    ordered_by: str = Field(description="id of the user or the API key")
    contact_id: UUID | None = Field(
        default=None, description="the contact that was named, if one was: if it is erased meanwhile, nothing is sent"
    )


class MessageQueued(Payload):
    """A message that is to be sent. The event's id is the message's id, also of its row in the project database."""

    TYPE: ClassVar[str] = "message.queued.v1"
    message_id: UUID
    cause: UUID = Field(description="the inbox event it answers")
    conversation_id: UUID
    contact_id: UUID
    number_id: str
    addresses: tuple[Address, ...]
    message: Outgoing
    sender: Literal["bot", "person", "automation"]
    queued_at: AwareDatetime


class StatusReceived(Payload):
    """Meta's word about a message of ours. `key` is what we sent along (the message id) or, without it, the wamid."""

    TYPE: ClassVar[str] = "wa.status.received.v1"
    number_id: str
    message_id: UUID | None = None
    wamid: str
    status: str
    at: AwareDatetime
    error_code: int | None = None
    error_title: str | None = None
    pricing: str | None = None
    billable: bool | None = None
    raw: str


class MessageOutcome(Payload):
    """What the connector learned of an attempt to send."""

    TYPE: ClassVar[str] = "message.outcome.v1"
    message_id: UUID
    status: Literal["sending", "accepted", "failed", "unknown", "expired"]
    attempt: int
    wamid: str | None = None
    at: AwareDatetime
    error_code: int | None = None
    error_title: str | None = None


class MessageChanged(Payload):
    """A message is new, or its status moved. No text: who may read it asks the conversation-log."""

    TYPE: ClassVar[str] = "message.changed.v1"
    message_id: UUID
    conversation_id: UUID | None = None
    direction: Literal["in", "out"]
    status: str
    at: AwareDatetime


class ConversationChanged(Payload):
    """A conversation's state moved by a run."""

    TYPE: ClassVar[str] = "conversation.changed.v1"
    conversation_id: UUID
    state: str
    version: int
    at: AwareDatetime
