"""Lanes: what may start now, what must become a row, what offset may be committed.

Pure: no I/O, no clock (`now` is passed in and never goes back: a monotonic clock), no knowledge of an engine. The owner of a partition drives it:

    assign(partition, epoch, committed, lanes that have rows)   before the first event of that partition
    arrive(...) for each event of the log, offer(...) for each due row
    start(now)             → items to run;  finish(item, outcome, now) when one ends
    settle(partition, now) → the next write of rows;  settled(batch, lanes that still have rows) after its commit
    watermark(partition)   → the offset that may be committed

What the tests hold it to:

I1  one running event per lane; a lane's events start in offset order
I2  the watermark never passes an event that is neither finished nor safely in a row
I3  a lane with rows starts only rows; all its unfinished events in memory, the running one too, are appended in ONE write. So no unfinished
    event without a row ever has a row behind it
I4  a lane leaves its rows only on the answer of a committed write, and there is one row read or write at a time per partition. So "no rows
    left" cannot be out of date
I5  what an older epoch says is ignored
I6  no event keeps the watermark longer than `hold`: counted on its lane's clock (which runs while the lane runs or waits for a retry) or, while
    its project is at its cap, from its arrival. Waiting for a free slot of the process does not count: that is back-pressure
"""

from __future__ import annotations

import heapq
from bisect import insort
from collections.abc import Iterable
from collections.abc import Set as AbstractSet
from typing import Generic

from loquat_common.bus.fairness import Project, Turns
from loquat_common.bus.items import Batch, E, Item, Lane, Partition, Write
from loquat_common.bus.limits import Limits
from loquat_common.bus.port import Dead, Defer, Done, Outcome, Retry
from loquat_common.bus.window import Window


class Lanes(Generic[E]):
    """The lanes of one member of a group."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self.draining = False
        self._turns = Turns(limits)
        self._partitions: dict[str, Partition[E]] = {}
        self._windows: dict[str, Window] = {}
        self._timers: list[tuple[float, str, int, str]] = []  # (time, partition, epoch, lane)
        self._next_look = 0.0  # at projects at their cap

    # -- ownership

    def assign(self, partition: str, epoch: int, committed: int, rowed: Iterable[str]) -> None:
        """The partition is ours in this epoch, read from `committed`; `rowed` are the lanes that have rows."""
        self.revoke(partition)
        self._partitions[partition] = Partition(epoch, committed, set(rowed))
        self._windows[partition] = Window()

    def revoke(self, partition: str) -> None:
        """Forgets it. Running handlers are abandoned: whatever they answer is of an old epoch."""
        part = self._partitions.pop(partition, None)
        self._windows.pop(partition, None)
        for lane in part.lanes.values() if part else ():
            project = self._turns.project(lane.project)
            project.lanes.discard((partition, lane.name))
            project.ready.pop((partition, lane.name), None)
            project.depth -= sum(not i.stored for i in lane.items)
            if lane.busy is not None and lane.busy.outcome is None:
                self._turns.release(project, lane.busy.charged, 0.0)
            self._turns.queue(project)
        self._turns.forget_idle()

    def close(self, partition: str) -> None:
        """Starts nothing more there; the watermark still moves by what ends."""
        part = self._partitions.get(partition)
        if part is None:
            return
        for name, lane in part.lanes.items():
            self._turns.project(lane.project).ready.pop((partition, name), None)
        part.closed = True

    def epoch(self, partition: str) -> int | None:
        """The epoch in which it is ours."""
        part = self._partitions.get(partition)
        return part.epoch if part else None

    @property
    def partitions(self) -> AbstractSet[str]:
        """What is ours."""
        return self._partitions.keys()

    @property
    def running(self) -> int:
        """Events that run now."""
        return self._turns.running

    def drain(self) -> None:
        """From now on a retry does not wait in memory. The owner stops fetching and goes on until all are `quiet`."""
        self.draining = True
        for part in self._partitions.values():
            part.dirty.update(dict.fromkeys(part.lanes))

    def quiet(self, partition: str) -> bool:
        """Whether nothing of it is in memory that a crash would repeat."""
        part = self._partitions.get(partition)
        return part is None or not (self._windows[partition] or part.writing or any(lane.busy for lane in part.lanes.values()))

    def block(self, project: str, reason: str) -> None:
        """Its events become rows from now on; none starts."""
        self._turns.blocked[project] = reason
        for partition, name in list(self._turns.project(project).lanes):
            part = self._partitions[partition]
            lane = part.lanes[name]
            for row in [i for i in lane.items if i.stored and i is not lane.busy]:
                self._leave(part, lane, row)
            part.dirty[name] = None
            self._refresh(part, partition, lane)

    def unblock(self, project: str) -> None:
        """Its events start again; rows come back when they are due."""
        if self._turns.blocked.pop(project, None) is not None:
            self._turns.queue(self._turns.project(project))

    # -- in

    def arrive(self, partition: str, offset: int, lane: str, project: str, event: E, now: float, size: int = 0) -> None:
        """An event of the log."""
        part = self._partitions[partition]
        if offset < part.position:
            return  # delivered again within one epoch
        part.position = offset + 1
        self._windows[partition].add(offset, size)
        self._turns.project(project).depth += 1
        known = part.lanes.get(lane)
        mark = known.clock(now) if known is not None else 0.0
        self._put(part, Item(partition, part.epoch, offset, lane, project, event, size, now, mark))

    def passed(self, partition: str, position: int) -> None:
        """The log has nothing below `position`: a gap of compaction or retention."""
        part = self._partitions[partition]
        part.position = max(part.position, position)

    def offer(
        self, partition: str, offset: int, lane: str, project: str, event: E, attempts: int, now: float, *, redriven: bool = False
    ) -> None:
        """A due row. Never while a write is under way: the row that was read could be gone already."""
        part = self._partitions[partition]
        if part.writing is not None:
            raise RuntimeError("a row was offered while a write is under way")
        known = part.lanes.get(lane)
        if offset >= part.position or project in self._turns.blocked or (known and any(i.stored for i in known.items)):
            return  # the first: an earlier event of the lane may come again, so wait until the log was read up to the row
        part.rowed.add(lane)  # a redrive comes from outside: the owner learns of it here
        part.offered += 1
        self._put(
            part, Item(partition, part.epoch, offset, lane, project, event, arrived=now, attempts=attempts, redriven=redriven, stored=True)
        )

    def position(self, partition: str) -> int:
        """The next offset that the log will give."""
        return self._partitions[partition].position

    def rowed(self, partition: str) -> bool:
        """Whether any lane has rows."""
        return bool(self._partitions[partition].rowed)

    def in_hand(self, partition: str) -> list[str]:
        """Lanes whose row is in memory already."""
        return [n for n, lane in self._partitions[partition].lanes.items() if any(i.stored for i in lane.items)]

    def sated(self, partition: str) -> list[str]:
        """Projects that could not start a row now: theirs must not fill `offered`, where others' rows want to be."""
        lanes = self._partitions[partition].lanes.values()
        waiting = {lane.project for lane in lanes for i in lane.items if i.stored and i is not lane.busy}
        return list(self._turns.blocked.keys() | waiting | {p.name for p in self._turns.capped()})

    def appetite(self, partition: str) -> int:
        """How many rows may be offered now."""
        part = self._partitions[partition]
        return 0 if part.writing or self.draining else self.limits.offered - part.offered

    def _put(self, part: Partition[E], item: Item[E]) -> None:
        lane = part.lanes.get(item.lane)
        project = self._turns.project(item.project)
        if lane is None:
            lane = part.lanes[item.lane] = Lane(item.lane, item.project)
            project.lanes.add((item.partition, item.lane))
        insort(lane.items, item, key=lambda i: i.offset)
        if not item.stored and self._crowded(part, lane, project, item.arrived):
            part.dirty[lane.name] = None
        self._refresh(part, item.partition, lane)

    def _crowded(self, part: Partition[E], lane: Lane[E], project: Project, now: float) -> bool:
        return (
            lane.name in part.rowed
            or project.name in self._turns.blocked
            or len(lane.items) > self.limits.lane_depth
            or project.depth > self.limits.project_depth
            or self._overdue(lane, now)
        )

    # -- start

    def start(self, now: float) -> list[Item[E]]:
        """What may run now, fair over projects."""
        self._ring(now)
        if now >= self._next_look:
            self._next_look = now + self.limits.hold / 20
            for project in self._turns.capped():
                self._age(project, now)
        out: list[Item[E]] = []
        while (project := self._turns.next()) is not None:
            if (item := self._next(project, now)) is not None:
                self._run(project, item, now)
                out.append(item)
                self._turns.queue(project)
        return out

    def _ring(self, now: float) -> None:
        while self._timers and self._timers[0][0] <= now:
            _, partition, epoch, name = heapq.heappop(self._timers)
            part = self._partitions.get(partition)
            if part is not None and part.epoch == epoch and name in part.lanes:
                part.dirty[name] = None
                self._refresh(part, partition, part.lanes[name])

    def _age(self, project: Project, now: float) -> None:
        """A project at its cap: its events wait for their own neighbours, not for us."""
        for partition, name in project.ready:
            part = self._partitions[partition]
            if self._overdue(part.lanes[name], now):
                part.dirty[name] = None
                project.spills = now + self.limits.spill

    def _overdue(self, lane: Lane[E], now: float) -> bool:
        head, project = lane.items[0], self._turns.project(lane.project)
        return not head.stored and project.capped and (now - head.arrived >= self.limits.hold or now < project.spills)

    def _next(self, project: Project, now: float) -> Item[E] | None:
        while project.ready:
            partition, name = next(iter(project.ready))
            del project.ready[partition, name]
            part = self._partitions[partition]
            head = self._head(part, part.lanes[name])
            if head is not None and head.due <= now:
                return head
            if head is not None:
                heapq.heappush(self._timers, (head.due, partition, part.epoch, name))
        return None

    def _run(self, project: Project, item: Item[E], now: float) -> None:
        part = self._partitions[item.partition]
        lane = part.lanes[item.lane]
        lane.busy, item.started = item, now
        item.charged = self._turns.start(project)
        lane.run(now)
        if not item.stored:
            left = max(0.0, self.limits.hold - (lane.clock(now) - item.mark))
            heapq.heappush(self._timers, (now + left, item.partition, part.epoch, item.lane))

    def _head(self, part: Partition[E], lane: Lane[E]) -> Item[E] | None:
        """The item that may start (perhaps later, see `due`), if the lane is free for it."""
        if lane.busy is not None or not lane.items or part.closed:
            return None
        head = lane.items[0]
        return None if lane.name in part.rowed and not head.stored else head

    def _refresh(self, part: Partition[E], partition: str, lane: Lane[E]) -> None:
        project = self._turns.project(lane.project)
        if not lane.items and lane.busy is None:
            part.lanes.pop(lane.name, None)
            project.lanes.discard((partition, lane.name))
            project.ready.pop((partition, lane.name), None)
        elif self._head(part, lane) is not None:
            project.ready.setdefault((partition, lane.name))
            self._turns.queue(project)

    # -- finish

    def finish(self, item: Item[E], outcome: Outcome, now: float) -> bool:
        """Notes how it ended. False: the partition is no longer ours in that epoch, nothing was noted."""
        part = self._partitions.get(item.partition)
        if part is None or part.epoch != item.epoch:
            return False
        lane, project = part.lanes[item.lane], self._turns.project(item.project)
        self._turns.release(project, item.charged, max(0.0, now - item.started))
        written = part.writing is not None and any(w.item is item for w in part.writing.writes)
        if not written and isinstance(outcome, Retry | Defer) and self._waits_here(part, lane, item, outcome, now):
            item.due = now + outcome.after
            item.attempts += isinstance(outcome, Retry)
            lane.busy = None  # its clock goes on: a retry in memory counts
        elif not written and isinstance(outcome, Done) and not item.stored:
            lane.rest(now)
            self._leave(part, lane, item)
        else:
            lane.rest(now)
            item.outcome = outcome
            part.dirty[lane.name] = None
        self._refresh(part, item.partition, lane)
        self._turns.queue(project)
        return True

    def _waits_here(self, part: Partition[E], lane: Lane[E], item: Item[E], outcome: Retry | Defer, now: float) -> bool:
        if item.stored or lane.name in part.rowed or self.draining:
            return False
        return lane.clock(now) + outcome.after < item.mark + self.limits.hold

    def _leave(self, part: Partition[E], lane: Lane[E], item: Item[E]) -> None:
        lane.items.remove(item)
        if lane.busy is item:
            lane.busy = None
        if item.stored:
            part.offered -= 1
        else:
            self._turns.project(item.project).depth -= 1
            self._windows[item.partition].finish(item.offset)

    # -- rows

    def settle(self, partition: str, now: float) -> Batch[E] | None:
        """The next write of rows for this partition, if there is one and none is under way."""
        part = self._partitions[partition]
        if part.writing is not None or not part.dirty:
            return None
        writes = [w for name in part.dirty if (lane := part.lanes.get(name)) is not None for w in self._writes(part, lane, now)]
        part.dirty.clear()
        if writes:
            part.writing = Batch(partition, part.epoch, tuple(writes))
        return part.writing

    def _writes(self, part: Partition[E], lane: Lane[E], now: float) -> Iterable[Write[E]]:
        reason = self._reason(part, lane, now)
        if reason is not None:
            part.rowed.add(lane.name)
        for item in lane.items:
            if item.outcome is not None:
                yield _ended(item)
            elif reason is not None and not item.stored:
                yield Write(item, None, "deferred", fresh=True, attempts=item.attempts, delay=max(0.0, item.due - now), reason=reason)

    def _reason(self, part: Partition[E], lane: Lane[E], now: float) -> str | None:
        """Why this lane must be (or stay) in rows; None: it may stay in memory."""
        if not lane.items:
            return None
        head, outcome = lane.items[0], lane.items[0].outcome
        held = lane.since is not None and lane.clock(now) - head.mark >= self.limits.hold
        waits_in_drain = self.draining and lane.busy is None and head.due > now
        reasons = (
            (lane.name in part.rowed, "behind"),
            (lane.project in self._turns.blocked, self._turns.blocked.get(lane.project, "")),
            (isinstance(outcome, Retry | Defer), outcome.reason if isinstance(outcome, Retry | Defer) else ""),
            (len(lane.items) > self.limits.lane_depth, "lane deep"),
            (self._turns.project(lane.project).depth > self.limits.project_depth, "project deep"),
            (not head.stored and (held or waits_in_drain), "held"),
            (self._overdue(lane, now), "project at its cap"),
        )
        return next((reason for so, reason in reasons if so), None)

    def settled(self, batch: Batch[E], filled: AbstractSet[str]) -> None:
        """`batch` is committed; `filled` are those of its lanes that have deferred rows after it."""
        part = self._partitions.get(batch.partition)
        if part is None or part.writing is not batch:
            return  # a later epoch
        part.writing = None
        for write in batch.writes:
            self._written(part, write)
        part.rowed -= batch.lanes - filled
        part.rowed |= filled
        for name in batch.lanes:
            lane = part.lanes.get(name)
            if lane is not None:
                if name in part.rowed and any(not i.stored for i in lane.items):
                    part.dirty[name] = None  # arrived meanwhile: goes behind
                self._refresh(part, batch.partition, lane)

    def _written(self, part: Partition[E], write: Write[E]) -> None:
        item, lane = write.item, part.lanes[write.item.lane]
        if not item.stored:
            item.stored = True
            part.offered += 1
            self._turns.project(item.project).depth -= 1
            self._windows[item.partition].finish(item.offset)
        if item.outcome is not write.outcome:
            part.dirty[lane.name] = None  # ended while its row was being written
        elif item is not lane.busy or item.outcome is not None:
            self._leave(part, lane, item)  # the due query brings it back
            if write.fresh and write.state == "deferred":
                for other in [i for i in lane.items if i.stored and i is not lane.busy and i.offset > item.offset]:
                    self._leave(part, lane, other)  # read before this one was in front of it

    # -- out

    def watermark(self, partition: str) -> int:
        """The offset that may be committed."""
        return self._windows[partition].watermark(self._partitions[partition].position)

    def full(self, partition: str) -> bool:
        """Whether to fetch no more of it for now."""
        return self._windows[partition].full(self.limits)

    def wake_at(self) -> float | None:
        """When `start` should be called at the latest."""
        return self._timers[0][0] if self._timers else None

    def oldest(self) -> float | None:
        """Arrival of the oldest event in memory."""
        return min(
            (lane.items[0].arrived for part in self._partitions.values() for lane in part.lanes.values() if lane.items), default=None
        )


def _ended(item: Item[E]) -> Write[E]:
    fresh = not item.stored
    match item.outcome:
        case Retry(after, reason):
            return Write(item, item.outcome, "deferred", fresh, item.attempts + 1, after, reason)
        case Defer(after, reason):
            return Write(item, item.outcome, "deferred", fresh, item.attempts, after, reason)
        case Dead(reason):
            return Write(item, item.outcome, "dead", fresh, item.attempts + 1, 0.0, reason)
        case _:
            return Write(item, item.outcome, "done", fresh, item.attempts, 0.0, "")
