"""What a service sees of the bus. Engines: `kafka`, `postgres`, and `memory` for unit tests."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from loquat_events.catalog import Topic
from loquat_events.envelope import AnyEvent

from loquat_common.bus.limits import Limits


class BusUnavailable(Exception):
    """The bus did not confirm in time. The events may or may not be in the log: publish the same ones again."""


class EventTooLarge(Exception):
    """No engine takes this event, however often it is published. Other events of the same call may have been kept."""

    def __init__(self, size: int) -> None:
        super().__init__(f"an event of {size} bytes is larger than the bus takes")
        self.size = size


@dataclass(frozen=True, slots=True)
class Done:
    """Handled. What is to be `published` is durable before the offset may be committed."""

    publish: tuple[AnyEvent, ...] = ()


@dataclass(frozen=True, slots=True)
class Retry:
    """Try again after so many seconds; an attempt is counted."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Defer:
    """Like Retry, but no attempt is counted: the fault was ours."""

    after: float
    reason: str


@dataclass(frozen=True, slots=True)
class Dead:
    """Given up: kept as a dead letter, shown to people."""

    reason: str


Outcome = Done | Retry | Defer | Dead


@dataclass(frozen=True, slots=True)
class Received:
    """An event as a handler gets it. `attempts` counts the tries that failed before; `redriven` says a person asked for it again."""

    event: AnyEvent
    topic: str
    partition: int
    offset: int
    attempts: int = 0
    redriven: bool = False


Handler = Callable[[Received], Awaitable[Outcome]]
BatchHandler = Callable[[Sequence[Received]], Awaitable[Sequence[Outcome]]]


@dataclass(frozen=True, slots=True)
class Batching:
    """Up to `most` events of one project in one call; the first waits at most `linger` seconds for others."""

    most: int = 100
    linger: float = 0.01

    def limits(self) -> Limits:
        """Room for several batches at once, of one project for two: one runs while the next gathers."""
        return Limits(concurrency=self.most * 4, project_cap=self.most * 2, project_depth=self.most * 10)


class Subscription(Protocol):
    """One group's reading of some topics in this process."""

    async def run(self) -> None:
        """Reads until drained. Raises when it cannot go on: the process must end then, nothing is skipped."""
        ...

    async def drain(self, limit: float) -> bool:
        """Takes nothing new, finishes what was accepted, commits. False: `limit` seconds came first."""
        ...

    def block(self, project: str, reason: str) -> None:
        """The project's events become rows at once, until `unblock`."""
        ...

    def unblock(self, project: str) -> None:
        """The project's rows are due again."""
        ...

    async def lag(self) -> Mapping[str, int]:
        """Events not finished, by `topic/partition`."""
        ...

    async def measure(self) -> None:
        """Brings the gauges of this group up to date: lag, events in flight, the age of the oldest."""
        ...

    def healthy(self) -> bool:
        """Whether the engine answered lately and takes what must be written. Not being so passes by itself: no reason to end the process."""
        ...


class Table(Protocol):
    """A compacted topic as a mapping, by `project:lane`. Every replica reads it to its end, then follows."""

    async def run(self) -> None:
        """Reads until cancelled. Raises when it cannot go on."""
        ...

    async def caught_up(self) -> None:
        """Returns once the topic was read to the end that it had when reading began."""
        ...

    def get(self, key: str) -> AnyEvent | None:
        """The last event of this `project:lane`; None after a tombstone."""
        ...

    def values(self) -> Mapping[str, AnyEvent]:
        """All that is not a tombstone."""
        ...

    def age(self) -> float:
        """Seconds since the start of the last look that found nothing more to read: the table held all that was published before then."""
        ...

    def on_change(self, listener: Callable[[str, AnyEvent | None], None]) -> None:
        """Calls `listener` with each key and its new value (None: removed), in order. It must not block."""
        ...


class Bus(Protocol):
    """The port. `group` names a service's reading; topics come from the catalog."""

    async def start(self) -> None:
        """Connects.

        Raises:
            BusUnavailable: the engine does not answer.
        """
        ...

    async def stop(self) -> None:
        """Closes what `start` opened. After subscriptions were drained."""
        ...

    async def publish(self, *events: AnyEvent) -> None:
        """Returns when all are durable. Each goes to the topic that the catalog gives its type.

        Raises:
            BusUnavailable: not confirmed in time; publish the same events again.
            EventTooLarge: one of them is larger than `record.LARGEST`; without it the others can be published.
            PermissionError: the catalog does not let this service say it.
        """
        ...

    async def remove(self, topic: Topic, *, project: str, lane: str) -> None:
        """Writes a tombstone to a compacted topic."""
        ...

    def subscribe(self, group: str, topics: Sequence[Topic], handler: Handler) -> Subscription:
        """One call of `handler` per event; per (project, lane) one after the other."""
        ...

    def subscribe_batches(self, group: str, topics: Sequence[Topic], handler: BatchHandler, batching: Batching) -> Subscription:
        """Calls of up to `batching.most` events of one project, one outcome each, in order; one call per project at a time."""
        ...

    def table(self, topic: Topic) -> Table:
        """Follows a compacted topic."""
        ...

    def tail(self, topic: Topic) -> AsyncIterator[AnyEvent]:
        """Every event from now on; no group, no offset kept."""
        ...

    async def ping(self) -> None:
        """Returns when the engine answers.

        Raises:
            BusUnavailable: it does not.
        """
        ...
