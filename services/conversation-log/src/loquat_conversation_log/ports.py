"""What the handlers need of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol
from uuid import UUID

from loquat_events.projects import ProjectListed


class Record(Protocol):
    """The record of one project's conversations."""

    async def inbound(self, project: ProjectListed, events: Sequence[dict[str, Any]]) -> dict[str, str | None]:
        """Records; the conversation of each event by its id."""
        ...

    async def outbound(self, project: ProjectListed, messages: Sequence[dict[str, Any]]) -> None:
        """Records messages that are to be sent."""
        ...

    async def receipts(self, project: ProjectListed, receipts: Sequence[dict[str, Any]]) -> None:
        """Applies what became of messages."""
        ...


class Poison(Exception):
    """The database cannot take these elements as they are: the data's fault, not the server's."""


class Busy(Exception):
    """A handler of the project's is about to commit, or another service works at the same rows: later."""


class Behind(Exception):
    """The project's database has not been brought to this release yet."""


@dataclass(frozen=True, slots=True)
class Erased:
    """What one step of an erase answered: the word for it, who is one person, whether another step must follow."""

    outcome: str
    people: tuple[UUID, ...]
    more: bool


class People(Protocol):
    """The contacts of one project. Each call is one transaction and may be repeated. It raises Busy and Behind."""

    async def merge(self, project: ProjectListed, contact: UUID, into: UUID) -> str:
        """Makes two contacts one; `done`, or the word for what stands against it."""
        ...

    async def erase(self, project: ProjectListed, contact: UUID) -> Erased:
        """Erases a part of a person."""
        ...
