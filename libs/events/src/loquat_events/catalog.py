"""The one map: topic → types → producers → consumers. Subscriptions, rights, metrics labels, AsyncAPI and the docs come from here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any, Final, Literal

from loquat_events.bots import BotDeployed
from loquat_events.contacts import ContactErased, ContactMerged, EraseContact, MergeContacts
from loquat_events.conversations import (
    ConversationChanged,
    HoldOrdered,
    MessageChanged,
    MessageOutcome,
    MessageQueued,
    MessageReceived,
    PersonUpdateReceived,
    ScheduleFired,
    SendOrdered,
    StatusReceived,
    TimerFired,
    TypingBegun,
)
from loquat_events.dead import EventDied
from loquat_events.envelope import AnyEvent, Event, Payload, Shape
from loquat_events.numbers import AccountUpdateReceived, NumberAttached, UpdateUnrouted
from loquat_events.projects import (
    AccessChanged,
    BackupChanged,
    CreateProject,
    DeleteProject,
    DropBackup,
    LimitsChanged,
    ProjectDeleted,
    ProjectFailed,
    ProjectListed,
    ProjectReady,
    ProjectRestored,
    ProjectStepped,
    RestoreBackup,
    RetryProject,
    SchemaChanged,
    TableChanged,
    TakeBackup,
    TemplateSealed,
)

Service = Literal["gateway", "provisioner", "schema-manager", "conversation-log", "bot-runner", "connector"]
SERVICES: Final[tuple[Service, ...]] = ("gateway", "provisioner", "schema-manager", "conversation-log", "bot-runner", "connector")


@dataclass(frozen=True, slots=True)
class Spoken:
    """A type on a topic, and who may say it there."""

    payload: type[Payload]
    producers: tuple[Service, ...]


@dataclass(frozen=True, slots=True)
class Topic:
    """A topic. `partitions` and the shards of a giant project are constants of the topic: changing them needs a drained log."""

    name: str
    purpose: str
    types: tuple[Spoken, ...]
    consumers: tuple[Service, ...]
    partitions: int = 8
    compacted: bool = False
    retention_days: int = 7
    shards: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def producers(self) -> tuple[Service, ...]:
        """Every service that may publish here."""
        return tuple(sorted({p for spoken in self.types for p in spoken.producers}))


class UnknownType(Exception):
    """The catalog has no such event type."""


INBOX: Final = Topic(
    "conversations.inbox.v1",
    "everything that happens to a conversation, in one order",
    (
        Spoken(MessageReceived, ("gateway", "connector")),
        Spoken(PersonUpdateReceived, ("gateway", "connector")),
        Spoken(SendOrdered, ("gateway", "bot-runner")),
        Spoken(HoldOrdered, ("gateway",)),
        Spoken(TimerFired, ("bot-runner",)),
        Spoken(ScheduleFired, ("bot-runner",)),
    ),
    consumers=("bot-runner", "conversation-log"),
)
OUTBOX: Final = Topic(
    "conversations.outbox.v1",
    "messages to be sent, and that a bot is writing one",
    (Spoken(MessageQueued, ("bot-runner",)), Spoken(TypingBegun, ("bot-runner",))),
    consumers=("connector", "conversation-log"),
)
RECEIPTS: Final = Topic(
    "conversations.receipts.v1",
    "what became of messages that were sent",
    (Spoken(StatusReceived, ("gateway", "connector")), Spoken(MessageOutcome, ("connector",))),
    consumers=("conversation-log", "connector"),
)
CHANGES: Final = Topic(
    "conversations.changes.v1",
    "what a live view should look at again",
    (Spoken(MessageChanged, ("conversation-log",)), Spoken(ConversationChanged, ("bot-runner",))),
    consumers=(),  # nobody yet: the gateway, once it has live updates
    retention_days=1,
)
ACCOUNTS: Final = Topic(
    "whatsapp.accounts.v1",
    "Meta's updates that name no person",
    (Spoken(AccountUpdateReceived, ("gateway",)),),
    consumers=("connector",),
)
NUMBERS: Final = Topic(
    "whatsapp.numbers.v1",
    "which project a number belongs to: the gateway's routing table",
    (Spoken(NumberAttached, ("connector",)),),
    consumers=("gateway",),
    partitions=1,
    compacted=True,
)
UNROUTED: Final = Topic(
    "whatsapp.unrouted.v1",
    "updates for numbers nobody has attached",
    (Spoken(UpdateUnrouted, ("gateway",)),),
    consumers=("connector",),
    retention_days=30,
)
COMMANDS: Final = Topic(
    "projects.commands.v1",
    "orders about projects",
    (
        Spoken(CreateProject, ("gateway", "provisioner")),
        Spoken(RetryProject, ("gateway",)),
        Spoken(DeleteProject, ("gateway",)),
        Spoken(TakeBackup, ("provisioner",)),
        Spoken(RestoreBackup, ("provisioner",)),
        Spoken(DropBackup, ("provisioner",)),
    ),
    consumers=("provisioner",),
)
CONTACTS: Final = Topic(
    "contacts.commands.v1",
    "orders about contacts",
    (Spoken(MergeContacts, ("gateway",)), Spoken(EraseContact, ("gateway",))),
    consumers=("conversation-log",),
)
PROJECTS: Final = Topic(
    "projects.events.v1",
    "what happened to projects and to the shape of their databases",
    (
        Spoken(ProjectStepped, ("provisioner",)),
        Spoken(ProjectReady, ("provisioner",)),
        Spoken(ProjectFailed, ("provisioner",)),
        Spoken(ProjectDeleted, ("provisioner",)),
        Spoken(TemplateSealed, ("schema-manager",)),
        Spoken(SchemaChanged, ("schema-manager",)),
        Spoken(TableChanged, ("schema-manager", "bot-runner")),
        Spoken(AccessChanged, ("provisioner",)),
        Spoken(LimitsChanged, ("provisioner",)),
        Spoken(BackupChanged, ("provisioner",)),
        Spoken(ProjectRestored, ("provisioner",)),
        Spoken(ContactMerged, ("conversation-log",)),
        Spoken(ContactErased, ("conversation-log",)),
    ),
    consumers=("schema-manager", "connector"),  # what became of contacts; the rest is for tools outside, and for webhooks out
)
DIRECTORY: Final = Topic(
    "projects.directory.v1",
    "where each project's database is, and its state",
    (Spoken(ProjectListed, ("provisioner",)),),
    consumers=("gateway", "schema-manager", "conversation-log", "bot-runner", "connector"),
    partitions=1,
    compacted=True,
)
DEPLOYMENTS: Final = Topic(
    "bots.deployments.v1",
    "which version each project runs",
    (Spoken(BotDeployed, ("bot-runner",)),),
    consumers=("bot-runner",),
    partitions=1,
    compacted=True,
)
_ALIVE: Final = (INBOX, OUTBOX, RECEIPTS, CHANGES, ACCOUNTS, NUMBERS, UNROUTED, COMMANDS, CONTACTS, PROJECTS, DIRECTORY, DEPLOYMENTS)


def dead_of(topic: Topic) -> Topic:
    """The topic that tells tools outside what consumers of `topic` gave up on."""
    return Topic(
        f"{topic.name}.dead",
        f"what a consumer of {topic.name} gave up on",
        (Spoken(EventDied, topic.consumers),),
        consumers=(),
        partitions=1,
        retention_days=30,
    )


TOPICS: Final[tuple[Topic, ...]] = (*_ALIVE, *(dead_of(t) for t in _ALIVE if not t.compacted))


@cache
def topics_by_name() -> Mapping[str, Topic]:
    """Every topic by its name."""
    return {t.name: t for t in TOPICS}


@cache
def types_by_name() -> Mapping[str, tuple[type[Payload], Topic]]:
    """Every event type that has one topic, by its type string. `event.died.v1` goes to the dead topic of another one."""
    return {s.payload.TYPE: (s.payload, t) for t in _ALIVE for s in t.types}


def topic_of(payload: type[Payload]) -> Topic:
    """The topic of a type.

    Raises:
        UnknownType: the catalog does not have it.
    """
    try:
        return types_by_name()[payload.TYPE][1]
    except KeyError:
        raise UnknownType(payload.TYPE) from None


@cache
def _model(payload: type[Payload]) -> type[AnyEvent]:
    parametrised: Any = Event[payload]
    return parametrised


def parse(value: bytes) -> AnyEvent:
    """An event from its bytes, with its data as the model of its type.

    Raises:
        UnknownType: no such type in this release.
        pydantic.ValidationError: not such an event.
    """
    kind = _Kind.model_validate_json(value).type
    if kind == EventDied.TYPE:
        return _model(EventDied).model_validate_json(value)
    try:
        payload, _ = types_by_name()[kind]
    except KeyError:
        raise UnknownType(kind) from None
    return _model(payload).model_validate_json(value)


class _Kind(Shape):
    type: str
