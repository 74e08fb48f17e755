"""What an engine adds to the shared loop: fetch and commit. And the store of deferred rows, which every engine shares."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Protocol

from loquat_common.bus.items import Batch
from loquat_common.bus.record import Record


class Fenced(Exception):
    """Somebody else has claimed this partition's rows."""


class EngineAway(Exception):
    """The engine did not answer, or not in time. Go on later; what was asked may have happened."""


@dataclass(frozen=True, slots=True)
class Row:
    """A deferred row that is due."""

    seq: int
    record: Record
    attempts: int
    redriven: bool


class Ownership(Protocol):
    """What an engine tells the loop about partitions, named `topic/number`."""

    async def assigned(self, partition: str, committed: Callable[[], Awaitable[int]]) -> int:
        """It is ours: claims its rows, loads its lanes, then asks for the committed offset; answers where to read from."""
        ...

    async def revoked(self, partition: str, limit: float) -> None:
        """It is no longer ours: waits at most `limit` seconds for what runs there, commits, forgets."""
        ...

    def position(self, partition: str) -> int | None:
        """Where the loop stands in a partition; None when it is not ours."""
        ...

    def refused(self) -> AbstractSet[str]:
        """Partitions that somebody refused us although the engine may still give them: to be claimed anew."""
        ...


class Log(Protocol):
    """One member of one group on one engine."""

    async def start(self, owner: Ownership) -> None:
        """Joins the group."""
        ...

    async def stop(self) -> None:
        """Leaves it. Harmless when it never joined."""
        ...

    async def fetch(self, paused: AbstractSet[str], wait: float) -> Sequence[tuple[str, int, Record]]:
        """Events of our partitions, in order per partition; none of the paused ones. Waits at most `wait` seconds for the first."""
        ...

    async def commit(self, marks: Mapping[str, int]) -> AbstractSet[str]:
        """Moves committed offsets; answers the partitions that were refused.

        Raises:
            EngineAway: not now.
        """
        ...

    async def lag(self) -> Mapping[str, int]:
        """Events above the committed offset, by partition of ours."""
        ...

    def healthy(self) -> bool:
        """Whether the engine answered lately."""
        ...


class DeferredStore(Protocol):
    """Deferred rows of one group."""

    async def claim(self, partition: str) -> int:
        """Becomes the owner; the new epoch. Fences all later writes of the old one."""
        ...

    async def lanes(self, partition: str) -> AbstractSet[str]:
        """Lanes that have deferred rows."""
        ...

    async def settle(self, batch: Batch[Record]) -> AbstractSet[str]:
        """One write; answers those of its lanes that have deferred rows after it.

        Raises:
            Fenced: somebody else is the owner.
        """
        ...

    async def due(self, partition: str, upto: int, projects: Sequence[str], lanes: Sequence[str], share: int, most: int) -> Sequence[Row]:
        """Due heads of lanes below offset `upto`, without these projects and lanes, at most `share` of each project."""
        ...

    async def waiting(self) -> AbstractSet[str]:
        """Partitions that have a due row now."""
        ...
