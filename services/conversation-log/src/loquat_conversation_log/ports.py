"""What the handlers need of the outside."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

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
