"""The one loop of a member: fetch, start, write rows, look for due rows, commit. The only place where lanes, rows and a log meet."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from collections.abc import Set as AbstractSet
from functools import partial
from typing import Any, Final

from loquat_common.bus.items import Batch, Item
from loquat_common.bus.lanes import Lanes
from loquat_common.bus.limits import Limits
from loquat_common.bus.log import DeferredStore, EngineAway, Fenced, Log
from loquat_common.bus.port import Outcome
from loquat_common.bus.record import Record
from loquat_common.logs import get_logger

_FETCH_WAIT: Final = 0.5  # seconds; an engine that gets news returns at once
_COMMIT_EVERY: Final = 0.2
_LOOK_EVERY: Final = 0.05  # at rows of a partition that has some
_PROBE_EVERY: Final = 2.0  # for rows that appeared from outside (redrive) in partitions that had none
_FIRST_PAUSE: Final = 0.1  # seconds until rows that could not be written are tried again; doubled each time
_LONGEST_PAUSE: Final = 8.0
_COMMIT_LIMIT: Final = 5.0

Run = Callable[[Item[Record]], Awaitable[Outcome]]


class Consumer:
    """One member of one group. `handler` never raises but for a bug, which stops the process: nothing is skipped."""

    def __init__(self, log: Log, store: DeferredStore, handler: Run, limits: Limits, *, unordered: bool = False) -> None:
        self._unordered = unordered
        self.lanes: Lanes[Record] = Lanes(limits)
        self._log, self._store, self._handler = log, store, handler
        self._runs: dict[Item[Record], asyncio.Task[None]] = {}
        self._rows: dict[str, asyncio.Task[None]] = {}  # one row read or write at a time per partition
        self._look_at: dict[str, float] = {}
        self._marks: dict[str, int] = {}
        self._refused: set[str] = set()
        self._unwritten: set[str] = set()  # partitions whose rows the store does not take now
        self._changed, self._stopping, self._quiet = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self._failure: BaseException | None = None
        self._probed = 0.0
        self._events = get_logger()

    # -- life

    async def run(self) -> None:
        """Until `drain` or a failure, which is raised."""
        tasks: list[asyncio.Task[None]] = []
        try:
            await self._log.start(self)  # inside the try: a start that is cancelled leaves a member behind otherwise
            tasks = [self._task(f.__name__, f()) for f in (self._fetching, self._pumping, self._committing, self._stopped)]
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
            if self._failure is not None:
                raise self._failure
        finally:
            rest = [*tasks, *self._runs.values(), *self._rows.values()]
            for task in rest:
                task.cancel()
            await asyncio.gather(*rest, return_exceptions=True)
            await self._log.stop()

    async def _stopped(self) -> None:
        await self._stopping.wait()

    def _task(self, name: str, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        return asyncio.create_task(work, name=name)

    async def drain(self, limit: float) -> bool:
        """Finishes what was accepted, commits, leaves. False: the limit came first; what is open will be delivered again."""
        self.lanes.drain()
        self._changed.set()
        try:
            async with asyncio.timeout(limit):
                while not all(self.lanes.quiet(p) for p in self.lanes.partitions):
                    self._quiet.clear()
                    await self._quiet.wait()
            quiet = True
        except TimeoutError:
            quiet = False
        await self.commit()
        self._stopping.set()
        return quiet

    # -- ownership: the engine calls these

    async def assigned(self, partition: str, committed: Callable[[], Awaitable[int]]) -> int:
        """Claims (which fences the old owner), loads the lanes, then reads the offset. Only after that may an event arrive."""
        self._refused.discard(partition)
        epoch = await self._store.claim(partition)
        rowed = await self._store.lanes(partition)
        offset = await committed()
        self.lanes.assign(partition, epoch, offset, rowed)
        self._marks[partition] = offset
        self._look_at.pop(partition, None)
        self._changed.set()
        return offset

    async def revoked(self, partition: str, limit: float) -> None:
        """Starts nothing new there, waits a moment for what runs, commits, abandons the rest."""
        self._refused.discard(partition)
        self.lanes.close(partition)
        runs = [t for i, t in self._runs.items() if i.partition == partition]
        if runs and limit > 0:
            await asyncio.wait(runs, timeout=limit)
        if limit > 0:
            await self.commit()
        self._abandon(partition)
        if (rows := self._rows.pop(partition, None)) is not None:
            rows.cancel()
        self._changed.set()

    def position(self, partition: str) -> int | None:
        """Where the loop stands."""
        return None if self.lanes.epoch(partition) is None else self.lanes.position(partition)

    def refused(self) -> AbstractSet[str]:
        """Refused by the store or the engine; mostly the engine will say so itself."""
        return self._refused

    def healthy(self) -> bool:
        """Whether rows can be written, as far as any had to be."""
        return not self._unwritten

    def _refuse(self, partition: str) -> None:
        self._abandon(partition)
        self._refused.add(partition)
        self._events.info("bus.refused", partition=partition)

    def _abandon(self, partition: str) -> None:
        self.lanes.revoke(partition)
        self._marks.pop(partition, None)
        for item, task in list(self._runs.items()):
            if item.partition == partition:
                task.cancel()

    # -- the loops

    async def _fetching(self) -> None:
        while not self._stopping.is_set():
            owned = set(self.lanes.partitions)
            full = owned if self.lanes.draining else {p for p in owned if self.lanes.full(p)}
            for partition, offset, record in await self._log.fetch(full, _FETCH_WAIT):
                if self.lanes.epoch(partition) is not None:
                    lane = f"{record.project}:{offset}" if self._unordered else record.key
                    self.lanes.arrive(partition, offset, lane, record.project, record, time.monotonic(), len(record.value))
            self._changed.set()

    async def _pumping(self) -> None:
        while self._failure is None:
            now = time.monotonic()
            for item in self.lanes.start(now):
                self._runs[item] = self._task(f"handle {item.partition}", self._handle(item))
            for partition in list(self.lanes.partitions):
                self._tend(partition, now)
            if now >= self._probed + _PROBE_EVERY:
                self._probed = now
                await self._probe()
            self._quiet.set()
            self._changed.clear()
            await self._nap()
        self._stopping.set()

    async def _nap(self) -> None:
        """Until something changed, or the next timer. An idle member wakes twice a second."""
        wakes = [self._look_at[p] for p in self.lanes.partitions if self.lanes.rowed(p) and p in self._look_at]
        if (timer := self.lanes.wake_at()) is not None:
            wakes.append(timer)
        pause = min(0.5, max(0.001, min(wakes, default=float("inf")) - time.monotonic()))
        try:
            async with asyncio.timeout(pause):  # not wait_for: in 3.11 it can swallow a cancellation
                await self._changed.wait()
        except TimeoutError:
            return

    def _tend(self, partition: str, now: float) -> None:
        """A write goes before a look."""
        if partition in self._rows:
            return
        if (batch := self.lanes.settle(partition, now)) is not None:
            self._spawn(partition, partial(self._write, batch))
        elif self.lanes.rowed(partition) and self._look_at.get(partition, 0.0) <= now and self._hungry(partition):
            self._look_at[partition] = now + _LOOK_EVERY
            self._spawn(partition, partial(self._look, partition))

    def _hungry(self, partition: str) -> bool:
        return self.lanes.appetite(partition) > 0 and self.lanes.running < self.lanes.limits.concurrency

    async def _probe(self) -> None:
        try:
            found = await self._store.waiting()
        except EngineAway:
            return
        for partition in found:
            if self.lanes.epoch(partition) is not None and partition not in self._rows and self._hungry(partition):
                self._spawn(partition, partial(self._look, partition))

    def _spawn(self, partition: str, work: Callable[[], Awaitable[None]]) -> None:
        epoch = self.lanes.epoch(partition)

        async def guarded() -> None:
            try:
                await work()
            except Fenced:
                if self.lanes.epoch(partition) == epoch:  # else this answer is about an assignment of the past
                    self._refuse(partition)
            except Exception as error:  # noqa: BLE001  (kept and raised by run(): nothing is skipped)
                self._failure = error
            finally:
                if self._rows.get(partition) is asyncio.current_task():
                    del self._rows[partition]
                self._changed.set()

        self._rows[partition] = self._task(f"rows {partition}", guarded())

    async def _write(self, batch: Batch[Record]) -> None:
        filled = await self._settle(batch)
        self.lanes.settled(batch, filled)
        self._look_at[batch.partition] = 0.0

    async def _settle(self, batch: Batch[Record]) -> AbstractSet[str]:
        """The same batch again and again: after a lost answer it may have been written. An outage is waited out: ending would not heal it."""
        pause = _FIRST_PAUSE
        try:
            while True:
                try:
                    return await self._store.settle(batch)
                except EngineAway:
                    self._unwritten.add(batch.partition)
                    self._events.warning("bus.rows_not_written", partition=batch.partition)
                    await asyncio.sleep(pause)
                    pause = min(_LONGEST_PAUSE, pause * 2)
        finally:
            self._unwritten.discard(batch.partition)

    async def _look(self, partition: str) -> None:
        lanes, epoch = self.lanes, self.lanes.epoch(partition)
        try:
            rows = await self._store.due(
                partition,
                lanes.position(partition),
                lanes.sated(partition),
                lanes.in_hand(partition),
                lanes.limits.project_cap,
                lanes.appetite(partition),
            )
        except EngineAway:
            self._look_at[partition] = time.monotonic() + 1.0
            return
        if lanes.epoch(partition) != epoch:
            return
        for row in rows:
            lanes.offer(
                partition, row.seq, row.record.key, row.record.project, row.record, row.attempts, time.monotonic(), redriven=row.redriven
            )

    async def _handle(self, item: Item[Record]) -> None:
        try:
            outcome = await self._handler(item)
        except Exception as error:  # noqa: BLE001  (the handler turns errors into outcomes; what gets here is a bug: stop, skip nothing)
            self._failure = error
            return
        finally:
            self._runs.pop(item, None)
            self._changed.set()
        self.lanes.finish(item, outcome, time.monotonic())

    async def _committing(self) -> None:
        while True:
            await asyncio.sleep(_COMMIT_EVERY)
            await self.commit()

    async def commit(self) -> None:
        """Commits the watermarks that moved."""
        at = {p: (self.lanes.epoch(p), w) for p in self.lanes.partitions if (w := self.lanes.watermark(p)) > self._marks.get(p, 0)}
        if not at:
            return
        try:
            async with asyncio.timeout(_COMMIT_LIMIT):
                refused = await self._log.commit({p: w for p, (_, w) in at.items()})
        except (EngineAway, TimeoutError):
            self._events.warning("bus.not_committed", partitions=len(at))
            return
        for partition, (epoch, offset) in at.items():
            if self.lanes.epoch(partition) != epoch:
                continue  # assigned anew meanwhile: this answer is not about it
            if partition in refused:
                self._refuse(partition)
            else:
                self._marks[partition] = offset
