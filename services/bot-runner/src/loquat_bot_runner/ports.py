"""What the handlers need of the outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, Protocol
from uuid import UUID

from loquat_events.projects import ProjectListed

Hold = Literal["held", "expired", "discarded"]


@dataclass(frozen=True, slots=True)
class Begun:
    """What `begin_run` answered."""

    todo: Literal["done", "recorded", "blocked", "held", "run"]
    conversation_id: UUID | None
    contact_id: UUID | None
    state: str
    version: int
    blocked_by: UUID | None
    outbox: list[dict[str, Any]]


@dataclass(frozen=True, slots=True)
class Committed:
    """What `commit_run` answered. `touched`: rows that the bot changed in the project's own tables, by table."""

    status: Literal["committed", "done", "superseded"]
    outbox: list[dict[str, Any]]
    touched: dict[str, int] = field(default_factory=dict[str, int])


class Runs(Protocol):
    """The functions of one project's database that make a run true."""

    async def begin(self, project: ProjectListed, element: dict[str, Any], hold: Hold | None) -> Begun:
        """One round trip before a handler."""
        ...

    async def commit(self, project: ProjectListed, event: UUID, version: int | None, result: dict[str, Any] | None) -> Committed:
        """Applies the outcome of an event once. A recorded result wins over the one given."""
        ...

    async def touched(self, project: ProjectListed, event: UUID) -> dict[str, int]:
        """Rows of the project's own tables that the event's recorded result changed, by table."""
        ...

    async def clear(self, project: ProjectListed, events: list[UUID]) -> None:
        """Their outbox is published."""
        ...


@dataclass(frozen=True, slots=True)
class Task:
    """One call of bot code."""

    project: ProjectListed
    version: str
    event: dict[str, Any]
    contact: dict[str, Any]
    conversation: dict[str, Any]
    state: str
    state_version: int


class Bots(Protocol):
    """Runs bot code."""

    async def call(self, task: Task) -> dict[str, Any]:
        """The checked result.

        Raises:
            CallFailed: one of `errors`.
        """
        ...
