"""The bus in memory: for unit tests. The loop, the lanes and the rows are the real ones; only log and store are dictionaries."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import Final

from loquat_events.catalog import TOPICS, Service, Topic, parse, topic_of, topics_by_name
from loquat_events.envelope import AnyEvent

from loquat_common.bus.batcher import Batcher
from loquat_common.bus.items import Batch
from loquat_common.bus.limits import Limits
from loquat_common.bus.log import Fenced, Ownership, Row
from loquat_common.bus.port import BatchHandler, Batching, BusUnavailable, Handler
from loquat_common.bus.record import Record, partition_of
from loquat_common.bus.subscription import GroupSubscription
from loquat_common.bus.view import View

MEMORY_LIMITS: Final = Limits()


@dataclass(slots=True)
class _Stored:
    record: Record
    state: str
    attempts: int
    next_at: float
    reason: str
    redriven: bool = False


class MemoryStore:
    """Deferred rows of one group; the contract of the SQL in a screen."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self.rows: dict[tuple[str, int], _Stored] = {}
        self.epochs: dict[str, int] = {}
        self._clock = clock

    async def claim(self, partition: str) -> int:
        """See `DeferredStore`."""
        self.epochs[partition] = self.epochs.get(partition, 0) + 1
        return self.epochs[partition]

    async def lanes(self, partition: str) -> AbstractSet[str]:
        """See `DeferredStore`."""
        return {r.record.key for (p, _), r in self.rows.items() if p == partition and r.state == "deferred"}

    async def settle(self, batch: Batch[Record]) -> AbstractSet[str]:
        """See `DeferredStore`."""
        if self.epochs.get(batch.partition) != batch.epoch:
            raise Fenced
        for w in batch.writes:
            key = (batch.partition, w.item.offset)
            row = _Stored(w.item.event, w.state, w.attempts, self._clock() + w.delay, w.reason)
            if w.fresh:
                self.rows.setdefault(key, row)
            elif w.state == "done":
                self.rows.pop(key, None)
            elif key in self.rows:
                self.rows[key] = replace(row, redriven=self.rows[key].redriven)
        return batch.lanes & await self.lanes(batch.partition)

    async def due(self, partition: str, upto: int, projects: Sequence[str], lanes: Sequence[str], share: int, most: int) -> Sequence[Row]:
        """See `DeferredStore`."""
        heads: dict[str, int] = {}
        for (p, seq), r in sorted(self.rows.items()):
            if p == partition and r.state == "deferred":
                heads.setdefault(r.record.key, seq)
        ready = [
            (r.next_at, seq, r)
            for name, seq in heads.items()
            for r in [self.rows[partition, seq]]
            if r.next_at <= self._clock() and seq < upto and name not in lanes and r.record.project not in projects
        ]
        taken: dict[str, int] = {}
        out: list[Row] = []
        for _, seq, r in sorted(ready, key=lambda d: d[:2]):
            taken[r.record.project] = taken.get(r.record.project, 0) + 1
            if taken[r.record.project] <= share and len(out) < most:
                out.append(Row(seq, r.record, r.attempts, r.redriven))
        return out

    async def waiting(self) -> AbstractSet[str]:
        """See `DeferredStore`."""
        return {p for (p, _), r in self.rows.items() if r.state == "deferred" and r.next_at <= self._clock()}

    def dead(self) -> list[tuple[str, int]]:
        """Dead letters, by partition and offset."""
        return sorted(k for k, r in self.rows.items() if r.state == "dead")

    def redrive(self, partition: str, seq: int) -> bool:
        """As `DeadLetters.redrive`."""
        row = self.rows.get((partition, seq))
        if row is None or row.state != "dead":
            return False
        self.rows[partition, seq] = replace(row, state="deferred", attempts=0, next_at=self._clock(), redriven=True, reason="redriven")
        return True

    def discard(self, partition: str, seq: int) -> bool:
        """As `DeadLetters.discard`."""
        row = self.rows.get((partition, seq))
        if row is None or row.state != "dead":
            return False
        self.rows[partition, seq] = replace(row, state="discarded")
        return True


@dataclass(slots=True)
class MemoryBroker:
    """What several buses of one test share."""

    logs: dict[str, list[Record]] = field(default_factory=lambda: {f"{t.name}/{n}": [] for t in TOPICS for n in range(t.partitions)})
    cursors: dict[tuple[str, str], int] = field(default_factory=dict[tuple[str, str], int])
    stores: dict[str, MemoryStore] = field(default_factory=dict[str, MemoryStore])
    listeners: set[asyncio.Event] = field(default_factory=set[asyncio.Event])
    down: bool = False

    def append(self, topic: Topic, record: Record) -> None:
        """Durable for as long as the test lasts."""
        self.logs[f"{topic.name}/{partition_of(record.project, record.lane, topic)}"].append(record)
        for listener in self.listeners:
            listener.set()

    def events(self, topic: Topic) -> list[AnyEvent]:
        """All events of a topic, for assertions."""
        return [parse(r.value) for n in range(topic.partitions) for r in self.logs[f"{topic.name}/{n}"] if r.value]


class _MemoryLog:
    """One member that owns all partitions: groups of one."""

    def __init__(self, broker: MemoryBroker, group: str, topics: Sequence[Topic]) -> None:
        self._broker, self._group = broker, group
        self._names = [f"{t.name}/{n}" for t in topics for n in range(t.partitions)]
        self._next: dict[str, int] = {}
        self._news = asyncio.Event()

    async def start(self, owner: Ownership) -> None:
        self._broker.listeners.add(self._news)
        for name in self._names:
            self._next[name] = await owner.assigned(name, lambda name=name: self._committed(name))

    async def _committed(self, name: str) -> int:
        return self._broker.cursors.get((self._group, name), 0)

    async def stop(self) -> None:
        self._broker.listeners.discard(self._news)

    async def fetch(self, paused: AbstractSet[str], wait: float) -> Sequence[tuple[str, int, Record]]:
        self._news.clear()
        out = [(n, o, r) for n, at in self._next.items() if n not in paused for o, r in enumerate(self._broker.logs[n][at : at + 200], at)]
        for name, offset, _ in out:
            self._next[name] = offset + 1
        if not out:
            try:
                async with asyncio.timeout(wait):
                    await self._news.wait()
            except TimeoutError:
                return []
        return out

    async def commit(self, marks: Mapping[str, int]) -> AbstractSet[str]:
        for name, offset in marks.items():
            self._broker.cursors[self._group, name] = offset
        return set()

    async def lag(self) -> Mapping[str, int]:
        return {n: len(self._broker.logs[n]) - self._broker.cursors.get((self._group, n), 0) for n in self._names}

    def healthy(self) -> bool:
        return not self._broker.down


class MemoryTable(View):
    """A compacted topic as a mapping."""

    def __init__(self, broker: MemoryBroker, topic: Topic) -> None:
        super().__init__()
        self._broker, self._topic = broker, topic
        self._news = asyncio.Event()

    async def run(self) -> None:
        """See `Table`."""
        self._broker.listeners.add(self._news)
        at = dict.fromkeys(range(self._topic.partitions), 0)
        try:
            while True:
                self._news.clear()
                looked = time.monotonic()
                for n in at:
                    for record in self._broker.logs[f"{self._topic.name}/{n}"][at[n] :]:
                        at[n] += 1
                        self.put(record)
                self.looked(looked)
                try:
                    async with asyncio.timeout(1.0):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            self._broker.listeners.discard(self._news)


class MemoryBus:
    """The port, for one service of a test."""

    def __init__(self, service: Service, broker: MemoryBroker | None = None, limits: Limits = MEMORY_LIMITS) -> None:
        self.broker = broker or MemoryBroker()
        self._service: Service = service
        self._limits = limits

    async def start(self) -> None:
        """See `Bus`."""

    async def stop(self) -> None:
        """See `Bus`."""

    async def publish(self, *events: AnyEvent, topic: str | None = None) -> None:
        """See `Bus`."""
        if self.broker.down:
            raise BusUnavailable("the test took it down")
        for event in events:
            target = topics_by_name()[topic] if topic else topic_of(type(event.data))
            if topic is None and self._service not in {p for s in target.types if event.type == s.payload.TYPE for p in s.producers}:
                raise PermissionError(f"{self._service} may not say {event.type}")
            self.broker.append(target, Record.of(event))

    async def remove(self, topic: Topic, *, project: str, lane: str) -> None:
        """See `Bus`."""
        if self.broker.down:
            raise BusUnavailable("the test took it down")
        self.broker.append(topic, Record("", project, lane, b""))

    def subscribe(self, group: str, topics: Sequence[Topic], handler: Handler) -> GroupSubscription:
        """See `Bus`."""
        store = self.broker.stores.setdefault(group, MemoryStore())
        return GroupSubscription(group, self._service, _MemoryLog(self.broker, group, topics), store, handler, self.publish, self._limits)

    def subscribe_batches(self, group: str, topics: Sequence[Topic], handler: BatchHandler, batching: Batching) -> GroupSubscription:
        """See `Bus`."""
        store = self.broker.stores.setdefault(group, MemoryStore())
        log, limits = _MemoryLog(self.broker, group, topics), batching.limits()
        return GroupSubscription(group, self._service, log, store, Batcher(handler, batching).handle, self.publish, limits, unordered=True)

    def table(self, topic: Topic) -> MemoryTable:
        """See `Bus`."""
        return MemoryTable(self.broker, topic)

    async def tail(self, topic: Topic) -> AsyncIterator[AnyEvent]:
        """See `Bus`."""
        news = asyncio.Event()
        self.broker.listeners.add(news)
        at = {n: len(self.broker.logs[f"{topic.name}/{n}"]) for n in range(topic.partitions)}
        try:
            while True:
                news.clear()
                for n in at:
                    for record in self.broker.logs[f"{topic.name}/{n}"][at[n] :]:
                        at[n] += 1
                        yield parse(record.value)
                await news.wait()
        finally:
            self.broker.listeners.discard(news)

    async def ping(self) -> None:
        """See `Bus`."""
        if self.broker.down:
            raise BusUnavailable("the test took it down")
