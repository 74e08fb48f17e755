"""What the lanes move about: events in memory, writes of rows. Plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Generic, Literal, TypeVar

from loquat_common.bus.port import Outcome

E = TypeVar("E")


@dataclass(slots=True, eq=False)
class Item(Generic[E]):
    """One event in memory. Identity is the object: an item of an old epoch never equals a new one."""

    partition: str
    epoch: int
    offset: int
    lane: str
    project: str
    event: E
    size: int = 0
    arrived: float = 0.0
    mark: float = 0.0  # the lane's clock at arrival
    attempts: int = 0
    redriven: bool = False
    due: float = 0.0
    started: float = 0.0
    charged: float = 0.0
    stored: bool = False  # a row carries it; its offset is finished
    outcome: Outcome | None = None  # ended, and waits for its write


@dataclass(frozen=True, slots=True)
class Write(Generic[E]):
    """One row's change: `deferred` inserts or reschedules, `dead` inserts or ends, `done` deletes."""

    item: Item[E]
    outcome: Outcome | None  # as written; the item may end while the write is under way
    state: Literal["deferred", "dead", "done"]
    fresh: bool  # there is no row yet
    attempts: int
    delay: float  # seconds; the store adds its own clock
    reason: str


@dataclass(frozen=True, slots=True)
class Batch(Generic[E]):
    """One transaction of rows. On a lost answer the same batch is sent again, never a rebuilt one."""

    partition: str
    epoch: int
    writes: tuple[Write[E], ...]

    @property
    def lanes(self) -> frozenset[str]:
        """The lanes it is about."""
        return frozenset(w.item.lane for w in self.writes)


@dataclass(slots=True)
class Lane(Generic[E]):
    """One serial queue. Its clock runs while its head runs or waits for its retry, not while it waits for a free slot."""

    name: str
    project: str
    items: list[Item[E]] = field(default_factory=list["Item[E]"])  # by offset
    busy: Item[E] | None = None
    ran: float = 0.0
    since: float | None = None

    def clock(self, now: float) -> float:
        """Seconds on the lane's clock."""
        return self.ran + (0.0 if self.since is None else now - self.since)

    def run(self, now: float) -> None:
        """Lets the clock run."""
        if self.since is None:
            self.since = now

    def rest(self, now: float) -> None:
        """Stops the clock."""
        self.ran, self.since = self.clock(now), None


@dataclass(slots=True)
class Partition(Generic[E]):
    """What one member knows of a partition that it owns."""

    epoch: int
    position: int  # the next offset that the log will give
    rowed: set[str]  # lanes with rows
    lanes: dict[str, Lane[E]] = field(default_factory=dict[str, "Lane[E]"])
    dirty: dict[str, None] = field(default_factory=dict[str, None])  # lanes to look at in the next settle
    writing: Batch[E] | None = None
    offered: int = 0
    closed: bool = False
