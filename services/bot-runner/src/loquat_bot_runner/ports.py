"""What the handlers need of the outside."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Literal, Protocol
from uuid import UUID

from loquat_events.projects import ProjectListed

from loquat_bot_runner.domain.gate import Loaded
from loquat_bot_runner.domain.holding import Conduct

Hold = Literal["held", "expired", "discarded"]


@dataclass(frozen=True, slots=True)
class Known:
    """What a bot is told besides the event: its contact as it is noted, its configuration, and the mark of its secrets (None: none yet)."""

    contact: dict[str, Any] = field(default_factory=dict[str, Any])
    config: dict[str, Any] = field(default_factory=dict[str, Any])
    secrets: UUID | None = None


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begin_run` answered."""

    todo: Literal["done", "recorded", "blocked", "held", "run", "observe", "dead"]
    conversation_id: UUID | None
    contact_id: UUID | None
    state: str
    version: int
    blocked_by: UUID | None
    outbox: list[dict[str, Any]]
    context: Known | None = None
    """Of a run; None: the database is not brought forward yet."""
    timed: dict[str, Any] | None = None
    """Of a run: which timers are set, what was fired; of an event that is over: what is to be armed and sent. None: not brought forward yet."""
    conduct: Conduct = field(default_factory=Conduct)
    ask: dict[str, Any] | None = None
    """The bot's own notes of a question that this message answers."""
    following: dict[str, Any] | None = None
    """Of a bot that gathers bursts: how long ago this message came, and which messages came after it."""
    holder: dict[str, Any] | None = None
    """Who holds the conversation of an event that is over."""
    unsaid: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    """What a run that was cut off has said before its end, and nobody has published."""


@dataclass(frozen=True, slots=True)
class Committed:
    """What `commit_run` answered. `touched`: rows that the bot changed in the project's own tables, by table; `timed`: what is to be armed and sent."""

    status: Literal["committed", "done", "superseded"]
    outbox: list[dict[str, Any]]
    touched: dict[str, int] = field(default_factory=dict[str, int])
    timed: dict[str, Any] = field(default_factory=dict[str, Any])
    holder: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Failed:
    """What `fail_event` answered: `outbox` holds the apology. `superseded`: begin again; `done`: it has an outcome."""

    status: Literal["failed", "done", "superseded"]
    outbox: list[dict[str, Any]]
    holder: dict[str, Any] | None = None
    unsaid: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])


@dataclass(frozen=True, slots=True)
class Spoken:
    """What `say_now` answered: `outbox` holds all that is to be published of the run."""

    status: Literal["said", "superseded", "held"]
    outbox: list[dict[str, Any]]


class Runs(Protocol):
    """The functions of one project's database that make a run true."""

    async def begin(
        self,
        project: ProjectListed,
        element: dict[str, Any],
        hold: Hold | None,
        *,
        age: timedelta | None = None,
        redriven: bool = False,
        observes: bool = False,
        gathers: bool = False,
    ) -> Begun:
        """One round trip before a handler.

        `age` is a message's, which may be too old to be answered; None: that is no matter. `observes`: the bot may want to see what people hold;
        `gathers`: and texts that follow each other in one call.
        """
        ...

    async def fail(self, project: ProjectListed, event: UUID, run: UUID | None, kind: str) -> Failed | None:
        """What the project wants to follow when the bot has failed for good, made true once; None: its database is not brought forward yet."""
        ...

    async def commit(self, project: ProjectListed, event: UUID, version: int | None, result: dict[str, Any] | None) -> Committed:
        """Applies the outcome of an event once. A recorded result wins over the one given."""
        ...

    async def touched(self, project: ProjectListed, event: UUID) -> dict[str, int]:
        """Rows of the project's own tables that the event's recorded result changed, by table."""
        ...

    async def opened_at(self, project: ProjectListed, conversation: UUID) -> datetime | None:
        """When a conversation was opened: that never changes, so a repeat and another replica find the same."""
        ...

    async def clear(self, project: ProjectListed, events: list[UUID]) -> None:
        """Their outbox is published."""
        ...

    async def say(self, project: ProjectListed, event: UUID, version: int, answered: UUID, place: int, reply: dict[str, Any]) -> Spoken:
        """Makes true what the run of an event says before its end: once at each place in answer to an event."""
        ...

    async def clear_said(self, project: ProjectListed, messages: list[UUID]) -> None:
        """These messages are published."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One call of bot code. A schedule's has neither contact nor conversation."""

    project: ProjectListed
    version: str
    event: dict[str, Any]
    contact: dict[str, Any]
    conversation: dict[str, Any]
    state: str
    state_version: int
    config: Mapping[str, Any] = field(default_factory=dict[str, Any])
    secrets: Mapping[str, str] = field(default_factory=dict[str, str], repr=False)
    observing: bool = False
    join_texts: bool = False
    ask: dict[str, Any] | None = None
    following: dict[str, Any] | None = None


class Loads(Protocol):
    """Loads versions as bots are loaded, to hear what they say of themselves."""

    async def load(self, project: ProjectListed, version: str) -> Loaded:
        """In a process of its own, confined as those that handle events.

        Raises:
            DoesNotStart: it does not load.
            CallFailed: another of `errors`.
        """
        ...


class Voice(Protocol):
    """What one call says before it ends, and that it writes."""

    said: int
    """How much of it is durable."""

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        """Durable when it returns. `answered` and `place` (from 1) make its id.

        Raises:
            Superseded: begin again; Unsaid: it is not said.
        """
        ...

    async def typing(self) -> None:
        """Shows the contact that an answer is being written."""
        ...


class Bots(Protocol):
    """Runs bot code."""

    def observes(self, project: str) -> bool:
        """Whether a version in use may want to see what people hold: false only where all of them are known not to."""
        ...

    def gathers(self, project: str) -> bool:
        """Whether a version in use may want texts that follow each other in one call: likewise."""
        ...

    def takes_back(self, project: str) -> bool:
        """Whether a version in use may want to know that a conversation is its own again: likewise."""
        ...

    async def call(self, task: Task, voice: Voice | None = None) -> dict[str, Any]:
        """The checked result, and beside it `queries`: how many statements the handler ran. Without a `voice` it says nothing before its end.

        Raises:
            CallFailed: one of `errors`.
        """
        ...
