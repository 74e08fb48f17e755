"""Grouped publishing: one call under way at a time; what comes meanwhile goes with the next. No timer: an idle bus adds no wait."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_events.catalog import Topic

from loquat_common import metrics
from loquat_common.bus.pgwakes import CHANNEL
from loquat_common.bus.port import BusUnavailable
from loquat_common.bus.record import Record, partition_of
from loquat_common.db import is_gone
from loquat_common.logs import get_logger

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

LIMIT: Final = 3.0
"""Seconds for one call, and for waiting until one's own begins. The gateway must answer Meta within a few seconds."""
_MOST: Final = 500  # events in one call, unless one publish alone has more
_BYTES: Final = 8 << 20
_WAITING: Final = 10_000
"""Events that may wait for the next call; beyond it publishers are refused at once: back-pressure."""


@dataclass(slots=True, eq=False)
class _Waiting:
    """What one publisher wants kept: together, in one call."""

    records: Sequence[tuple[Topic, Record]]
    since: float
    kept: asyncio.Future[None]

    def size(self) -> int:
        return sum(len(record.value) for _, record in self.records)


class PostgresPublisher:
    """Publishes for one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: deque[_Waiting] = deque()
        self._events = 0  # that wait
        self._news, self._quiet = asyncio.Event(), asyncio.Event()
        self._quiet.set()
        self._touched: set[str] = set()
        self._touch = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begins."""
        self._tasks = [asyncio.create_task(self._flushing(), name="bus publish"), asyncio.create_task(self._notifying(), name="bus notify")]

    async def stop(self) -> None:
        """After what waits was published, or its limit."""
        try:
            async with asyncio.timeout(LIMIT):
                await self._quiet.wait()
        except TimeoutError:
            get_logger().warning("bus.unpublished", events=self._events)
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._refuse(list(self._waiting), BusUnavailable("the publisher has stopped"))

    async def publish(self, records: Sequence[tuple[Topic, Record]]) -> None:
        """Returns when all are durable, in one transaction; within twice the limit, whatever happens.

        Raises:
            BusUnavailable: not confirmed in time, or too much waits.
        """
        if not records:
            return
        if self._events and self._events + len(records) > _WAITING:
            raise BusUnavailable(f"more than {_WAITING} events wait to be published")
        loop = asyncio.get_running_loop()
        waiting = _Waiting(records, loop.time(), loop.create_future())
        self._waiting.append(waiting)
        self._events += len(records)
        self._quiet.clear()
        self._news.set()
        await waiting.kept
        metrics.bus_publish_seconds.observe(loop.time() - waiting.since)

    async def _flushing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                if taken := self._take():
                    await self._call(taken)
            self._quiet.set()

    def _take(self) -> list[_Waiting]:
        oldest = asyncio.get_running_loop().time() - LIMIT
        taken, late, events, size = list[_Waiting](), list[_Waiting](), 0, 0
        while self._waiting and (not taken or (events + len(self._waiting[0].records) <= _MOST and size < _BYTES)):
            waiting = self._waiting.popleft()
            self._events -= len(waiting.records)
            if waiting.kept.done():  # its publisher was cancelled
                continue
            if waiting.since < oldest:
                late.append(waiting)
                continue
            taken.append(waiting)
            events, size = events + len(waiting.records), size + waiting.size()
        self._refuse(late, BusUnavailable("not confirmed in time"))
        return taken

    async def _call(self, taken: list[_Waiting]) -> None:
        records = [r for waiting in taken for r in waiting.records]
        try:
            async with asyncio.timeout(LIMIT):
                await self._pool.execute(
                    "SELECT bus.publish($1, $2, $3, $4, $5, $6)",
                    [t.name for t, _ in records],
                    [partition_of(r.project, r.lane, t) for t, r in records],
                    [r.id for _, r in records],
                    [r.project for _, r in records],
                    [r.lane for _, r in records],
                    [r.value for _, r in records],
                )
        except Exception as error:  # noqa: BLE001  (each publisher gets it; the loop goes on with the next group)
            self._fail(taken, error)
            return
        for waiting in taken:
            if not waiting.kept.done():
                waiting.kept.set_result(None)
        for name, count in Counter(t.name for t, _ in records).items():
            self._touched.add(name)
            metrics.bus_published.labels(name).inc(count)
        self._touch.set()

    def _fail(self, taken: list[_Waiting], error: Exception) -> None:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            self._refuse(taken, PermissionError(str(error)))
            return
        if not is_gone(error):
            get_logger().error("bus.publish_failed", exc_info=error)
        self._refuse(taken, BusUnavailable(type(error).__name__))

    def _refuse(self, waiting: Sequence[_Waiting], error: Exception) -> None:
        for one in waiting:
            if not one.kept.done():
                one.kept.set_exception(error)

    async def _notifying(self) -> None:
        """A statement of its own, after the commit: a full notification queue must not fail a publish. A failure costs a poll's wait."""
        while True:
            await self._touch.wait()
            self._touch.clear()
            topics, self._touched = ",".join(sorted(self._touched)), set()
            try:
                await self._pool.execute("SELECT pg_notify($1, $2)", CHANNEL, topics, timeout=1)
            except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                get_logger().warning("bus.not_notified", error=type(error).__name__)
