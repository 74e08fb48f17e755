"""The bus on Postgres: the embedded default. Decisions and traps: docs/adr/0004."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_events.catalog import TOPICS, Service, Topic, parse
from loquat_events.envelope import AnyEvent

from loquat_common.bus.batcher import Batcher
from loquat_common.bus.deferred import PostgresStore, answering
from loquat_common.bus.limits import Limits
from loquat_common.bus.log import EngineAway
from loquat_common.bus.pgmember import LEASE, PostgresLog
from loquat_common.bus.pgpublisher import PostgresPublisher
from loquat_common.bus.pgwakes import Wakes
from loquat_common.bus.port import BatchHandler, Batching, BusUnavailable, Handler
from loquat_common.bus.record import Record
from loquat_common.bus.rights import checked
from loquat_common.bus.subscription import GroupSubscription
from loquat_common.bus.view import View
from loquat_common.db import is_gone
from loquat_common.migrate import load, migrate

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

_AHEAD: Final = 7
"""Days of ranges made in advance: a publisher without a range fails, and a week is enough for people to notice."""
_KEPT: Final = max(t.retention_days for t in TOPICS)
_TEND_EVERY: Final = 3600.0
_POLL: Final = 2.0  # seconds; notifications wake at once, polling is for the one that got lost
_MOST: Final = 200
_BYTES: Final = 4 << 20


async def install(inside: Connection) -> None:
    """Makes schema bus what this release needs: tables, functions, topics, rights. By a superuser, inside the control database; idempotent."""
    await inside.execute("SET ROLE loquat_bus")
    await migrate(inside, schema="bus", component="bus", migrations=load(files("loquat_common.bus.engine")))
    for topic in TOPICS:
        await inside.execute(
            "INSERT INTO bus.topic VALUES ($1, $2, $3) ON CONFLICT DO NOTHING", topic.name, topic.partitions, topic.compacted
        )
        await inside.execute(
            "INSERT INTO bus.head (topic, partition) SELECT $1, i FROM generate_series(0, $2::int - 1) i ON CONFLICT DO NOTHING",
            topic.name,
            topic.partitions,
        )
        roles = [f"loquat_{p.replace('-', '_')}" for p in topic.producers]
        await inside.execute("DELETE FROM bus.producer WHERE topic = $1 AND role <> ALL ($2)", topic.name, roles)
        await inside.execute("INSERT INTO bus.producer SELECT $1, r FROM unnest($2::text[]) r ON CONFLICT DO NOTHING", topic.name, roles)
    await inside.execute("SELECT bus.tend($1, $2)", _AHEAD, _KEPT)
    await inside.execute("RESET ROLE")


class PostgresBus:
    """The port on one service's pool. One connection listens for all subscriptions and tables of the process."""

    def __init__(self, pool: Pool, dsn: str, service: Service, *, limits: Limits | None = None, lease: float = LEASE) -> None:
        self._pool = pool
        self._service: Service = service
        self._limits, self._lease = limits or Limits(), lease
        self._wakes = Wakes(dsn)
        self._publisher = PostgresPublisher(pool)
        self._tending: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """See `Bus`."""
        await self.ping()
        await self._wakes.start()
        self._publisher.start()
        self._tending = asyncio.create_task(self._tend(), name="bus ranges")

    async def stop(self) -> None:
        """See `Bus`."""
        if self._tending is not None:
            self._tending.cancel()
            await asyncio.gather(self._tending, return_exceptions=True)
        await self._publisher.stop()
        await self._wakes.stop()

    async def _tend(self) -> None:
        while True:
            try:
                async with answering():
                    await self._pool.execute("SELECT bus.tend($1, $2)", _AHEAD, _KEPT, timeout=30)
            except EngineAway:
                await asyncio.sleep(5)
                continue
            await asyncio.sleep(_TEND_EVERY)

    async def publish(self, *events: AnyEvent, topic: str | None = None) -> None:
        """See `Bus`. `topic` is for dead letters, whose type has many."""
        await self._publisher.publish([(checked(e, self._service, topic), Record.of(e)) for e in events])

    async def remove(self, topic: Topic, *, project: str, lane: str) -> None:
        """See `Bus`."""
        await self._publisher.publish([(topic, Record("", project, lane, b""))])

    def subscribe(self, group: str, topics: Sequence[Topic], handler: Handler) -> GroupSubscription:
        """See `Bus`."""
        return GroupSubscription(
            group, self._service, self._member(group, topics), PostgresStore(self._pool, group), handler, self.publish, self._limits
        )

    def subscribe_batches(self, group: str, topics: Sequence[Topic], handler: BatchHandler, batching: Batching) -> GroupSubscription:
        """See `Bus`."""
        single, store = Batcher(handler, batching).handle, PostgresStore(self._pool, group)
        return GroupSubscription(
            group, self._service, self._member(group, topics), store, single, self.publish, batching.limits(), unordered=True
        )

    def _member(self, group: str, topics: Sequence[Topic]) -> PostgresLog:
        return PostgresLog(self._pool, self._wakes, group, topics, self._lease)

    def table(self, topic: Topic) -> PostgresTable:
        """See `Bus`."""
        return PostgresTable(self._pool, self._wakes, topic)

    async def tail(self, topic: Topic) -> AsyncIterator[AnyEvent]:
        """See `Bus`."""
        following = Following(self._pool, self._wakes, topic)
        try:
            await following.begin()
            while True:
                for record in await following.next():
                    if record.value:
                        yield parse(record.value)
        finally:
            following.stop()

    async def ping(self) -> None:
        """See `Bus`."""
        try:
            async with asyncio.timeout(2):
                await self._pool.fetchval("SELECT 1")
        except Exception as error:
            if is_gone(error):
                raise BusUnavailable(type(error).__name__) from error
            raise


class Following:
    """Every record of a topic from a place on."""

    def __init__(self, pool: Pool, wakes: Wakes, topic: Topic) -> None:
        self._pool, self._wakes, self._topic = pool, wakes, topic
        self._news = wakes.of(topic.name)
        self._at: dict[int, int] = {}

    def stop(self) -> None:
        """It is followed no more."""
        self._wakes.forget(self._news)

    async def begin(self, at: Mapping[int, int] | None = None) -> None:
        """At the given offsets, or now."""
        if at is None:
            async with answering():
                at = {
                    r["partition"]: r["next_offset"]
                    for r in await self._pool.fetch("SELECT * FROM bus.heads($1)", self._topic.name, timeout=10)
                }
        self._at = dict(at)

    async def fresh(self) -> list[Record]:
        """What is there now. `rest` then waits for what comes after."""
        self._news.clear()
        async with answering():
            rows = await self._pool.fetch(
                "SELECT * FROM bus.read($1, $2, $3, $4, $5)",
                [self._topic.name] * len(self._at),
                list(self._at),
                list(self._at.values()),
                _MOST,
                _BYTES,
                timeout=10,
            )
        for r in rows:
            self._at[r["partition"]] = r["seq"] + 1
        return [Record(r["event_id"], r["project"], r["lane"], r["value"] or b"") for r in rows]

    async def next(self) -> list[Record]:
        """What is there, or what comes within the wait of a poll; away counts as nothing."""
        try:
            found = await self.fresh()
        except EngineAway:
            found = []
        if not found:
            await self.rest()
        return found

    async def rest(self) -> None:
        """Until there is news, at most as long as a poll waits."""
        await self._wakes.wait(self._news, _POLL)


class PostgresTable(View):
    """A compacted topic as a mapping: one snapshot holds both the values and where the log ended, then it is followed."""

    def __init__(self, pool: Pool, wakes: Wakes, topic: Topic) -> None:
        super().__init__()
        self._pool, self._wakes, self._topic = pool, wakes, topic

    async def run(self) -> None:
        """See `Table`."""
        following = Following(self._pool, self._wakes, self._topic)
        try:
            await self._begin(following)
            while True:
                await self._round(following)
        finally:
            following.stop()

    async def _round(self, following: Following) -> None:
        looked = time.monotonic()
        try:
            found = await following.fresh()
        except EngineAway:
            await asyncio.sleep(0.5)
            return
        for record in found:
            self.put(record)
        if not found:
            self.looked(looked)
            await following.rest()

    async def _begin(self, following: Following) -> None:
        while True:
            try:
                async with (
                    answering(),
                    self._pool.acquire(timeout=10) as connection,
                    connection.transaction(isolation="repeatable_read", readonly=True),
                ):
                    heads = {
                        r["partition"]: r["next_offset"] for r in await connection.fetch("SELECT * FROM bus.heads($1)", self._topic.name)
                    }
                    rows = await connection.fetch("SELECT * FROM bus.snapshot($1)", self._topic.name)
            except EngineAway:
                await asyncio.sleep(0.5)
                continue
            await following.begin(heads)
            for r in rows:
                self.put(Record("", r["project"], r["lane"], r["value"]))
            return
