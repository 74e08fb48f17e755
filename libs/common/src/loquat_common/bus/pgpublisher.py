"""Grouped publishing: one call under way at a time; what comes meanwhile goes with the next. No timer: an idle bus adds no wait."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
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
"""Seconds until a publish counts as not confirmed. The gateway must answer Meta within a second or two."""
_MOST: Final = 500  # events in one call
_BYTES: Final = 8 << 20
_WAITING: Final = 10_000
"""Events that may wait for the next call; beyond it publishers are refused at once: back-pressure."""

Waiting = tuple[Topic, Record, "asyncio.Future[None]"]


class PostgresPublisher:
    """Publishes for one process."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._waiting: list[Waiting] = []
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
            get_logger().warning("bus.unpublished", events=len(self._waiting))
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def publish(self, records: Sequence[tuple[Topic, Record]]) -> None:
        """Returns when all are durable.

        Raises:
            BusUnavailable: not confirmed in time, or too much waits.
        """
        if len(self._waiting) + len(records) > _WAITING:
            raise BusUnavailable(f"more than {_WAITING} events wait to be published")
        if not records:
            return
        loop = asyncio.get_running_loop()
        futures: list[asyncio.Future[None]] = [loop.create_future() for _ in records]
        self._waiting += [(t, r, f) for (t, r), f in zip(records, futures, strict=True)]
        self._quiet.clear()
        self._news.set()
        started = time.perf_counter()
        done, pending = await asyncio.wait(futures, timeout=2 * LIMIT)  # one call may be under way before ours
        for future in pending:
            future.cancel()
        failures = [f.exception() for f in done]
        if pending or any(failures):
            first = next((e for e in failures if e is not None), None)
            if first is not None and not isinstance(first, BusUnavailable):
                raise first
            raise BusUnavailable("not confirmed in time")
        metrics.bus_publish_seconds.observe(time.perf_counter() - started)

    async def _flushing(self) -> None:
        while True:
            await self._news.wait()
            self._news.clear()
            while self._waiting:
                await self._call(self._take())
            self._quiet.set()

    def _take(self) -> list[Waiting]:
        n, size = 0, 0
        while n < min(_MOST, len(self._waiting)) and (n == 0 or size + len(self._waiting[n][1].value) <= _BYTES):
            size += len(self._waiting[n][1].value)
            n += 1
        taken, self._waiting = self._waiting[:n], self._waiting[n:]
        return [w for w in taken if not w[2].done()]

    async def _call(self, taken: list[Waiting]) -> None:
        try:
            await self._pool.execute(
                "SELECT bus.publish($1, $2, $3, $4, $5, $6)",
                [t.name for t, _, _ in taken],
                [partition_of(r.project, r.lane, t) for t, r, _ in taken],
                [r.id for _, r, _ in taken],
                [r.project for _, r, _ in taken],
                [r.lane for _, r, _ in taken],
                [r.value for _, r, _ in taken],
                timeout=LIMIT,
            )
        except Exception as error:  # noqa: BLE001  (each publisher gets it; the loop goes on with the next group)
            self._fail(taken, error)
            return
        for topic, _, future in taken:
            self._touched.add(topic.name)
            metrics.bus_published.labels(topic.name).inc()
            if not future.done():
                future.set_result(None)
        self._touch.set()

    def _fail(self, taken: list[Waiting], error: Exception) -> None:
        if isinstance(error, asyncpg.InsufficientPrivilegeError):
            told: Exception = PermissionError(str(error))
        else:
            told = BusUnavailable(type(error).__name__)
            if not is_gone(error):
                get_logger().error("bus.publish_failed", exc_info=error)
        for _, _, future in taken:
            if not future.done():
                future.set_exception(told)

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
