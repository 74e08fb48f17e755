"""What happens to a conversation: messages in, orders, messages out, receipts, changes."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from loquat_events.envelope import Payload, Shape

AddressKind = Literal["user_id", "wa_id", "phone", "username"]
Holder = Literal["bot", "person", "people", "phone"]
"""Who answers: people are nobody yet, the phone is WhatsApp's app on it."""
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
    addresses: tuple[Address, ...] = Field(default=(), description="of an echo: who was written to")
    field: str
    raw: str
    message: InboundMessage | None = Field(default=None, description="of an echo: what somebody wrote in the phone app")
    sent_at: AwareDatetime | None = None


class Outgoing(Shape):
    """What is to be said, as the bot or a person gave it. `content` by type: all need it but text. A file's text is its caption."""

    type: Literal["text", "buttons", "list", "flow", "image", "video", "audio", "document", "sticker"]
    text: Annotated[str, StringConstraints(max_length=4096)] | None = None
    content: dict[str, Any] | None = None


class SendOrdered(Payload):
    """A person, a program or a bot's schedule asks for a message to a contact. Its event id is the id of the order and decides the message's."""

    TYPE: ClassVar[str] = "order.send.v1"
    number_id: str
    addresses: tuple[Address, ...] = Field(min_length=1)
    message: Outgoing
    ordered_by: str = Field(description="id of the user or the API key; a schedule's name")
    sender: Literal["person", "automation"] = "person"
    take_over: bool | None = Field(
        default=None, description="whether the person holds the conversation from now on; null: as the project's settings say"
    )
    contact_id: UUID | None = Field(
        default=None, description="the contact that was named, if one was: if it is erased meanwhile, nothing is sent"
    )


class TimerFired(Payload):
    """A timer that a bot has set is due. The event's id follows from the timer and when it was set: however often it fires, it is one event."""

    TYPE: ClassVar[str] = "bot.timer.fired.v1"
    timer_id: UUID
    name: str
    conversation_id: UUID
    contact_id: UUID
    due_at: AwareDatetime
    epoch: int = Field(default=1, description="of the project's database: a restored one knows nothing of timers set before")


class ScheduleFired(Payload):
    """The time of a bot's schedule has come, or a person runs it. The id follows from the schedule and that time, or from the person's request."""

    TYPE: ClassVar[str] = "bot.schedule.fired.v1"
    automation_id: UUID
    name: str
    due_at: AwareDatetime
    ordered_by: str | None = Field(default=None, description="who runs it; null: its time has come")
    epoch: int = 1


class HoldOrdered(Payload):
    """A person takes a conversation over, leaves it to people, or hands it back to the bot. Its event id is the id of the order."""

    TYPE: ClassVar[str] = "order.hold.v1"
    conversation_id: UUID
    number_id: str
    addresses: tuple[Address, ...] = Field(min_length=1)
    holder: Literal["bot", "person", "people"] | None = Field(default=None, description="null: as it is")
    seconds: Annotated[float, Field(ge=1, le=31_622_400)] | None = Field(default=None, description="until it is the bot's again by itself")
    note: Annotated[str, StringConstraints(max_length=1000)] | None = None
    resolved: bool = Field(default=False, description="it needs no attention any more")
    ordered_by: str = Field(description="id of the user or the API key")
    contact_id: UUID | None = Field(default=None, description="the conversation's contact: if it is erased meanwhile, nothing happens")


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


class TypingBegun(Payload):
    """A bot is writing: the contact's phone may show so, and that his message was read. Nobody keeps it; what comes late is dropped."""

    TYPE: ClassVar[str] = "typing.begun.v1"
    number_id: str
    wamid: str = Field(description="the contact's message that is being answered")
    at: AwareDatetime


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
    """A conversation's state or holder moved. `needs_attention`: the bot has failed in it, and nobody has looked yet."""

    TYPE: ClassVar[str] = "conversation.changed.v1"
    conversation_id: UUID
    state: str
    version: int
    at: AwareDatetime
    holder: Holder | None = None
    holder_id: str | None = Field(default=None, description="which person")
    held_until: AwareDatetime | None = Field(
        default=None, description="from then on it is the bot's again; null: until somebody hands it back"
    )
    needs_attention: bool | None = None
