"""One member of a group on Postgres: a row lease per partition, a cursor guarded by the lease's epoch."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_events.catalog import Topic

from loquat_common.bus.deferred import answering
from loquat_common.bus.log import EngineAway, Ownership
from loquat_common.bus.pgwakes import Wakes
from loquat_common.bus.record import Record

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

LEASE: Final = 10.0
"""Seconds. Who does not beat for so long loses its partitions; a crash costs this wait."""
_REVOKE_WAIT: Final = 0.5  # seconds for running handlers when a partition moves
_MOST: Final = 200  # events per partition and fetch
_BYTES: Final = 4 << 20
_POLL: Final = 2.0  # seconds between polls when no notification comes


@dataclass(slots=True, eq=False)
class _Place:
    """Where to read a partition on. A new one at each assignment: what a read of an older one brings is of the past."""

    next: int


class PostgresLog:
    """Beats every third of the lease; stops by its own clock when no beat succeeded in time."""

    def __init__(self, pool: Pool, wakes: Wakes, group: str, topics: Sequence[Topic], lease: float = LEASE) -> None:
        self._pool, self._wakes, self._group, self._lease = pool, wakes, group, lease
        self._topics = [t.name for t in topics]
        self._member = f"{group}.{uuid.uuid4().hex[:12]}"  # new at every start: under its old name it would inherit lease and epoch
        self._owned: dict[str, int] = {}  # partition → lease epoch
        self._places: dict[str, _Place] = {}
        self._news = wakes.of(*self._topics)
        self._beating: asyncio.Task[None] | None = None
        self._beaten = float("-inf")
        self._polled = 0.0
        self._stale = True  # there may be what no notification tells of
        self._more = False  # the last fetch did not reach the end

    async def start(self, owner: Ownership) -> None:
        """See `Log`."""
        self._owner = owner
        try:
            await self._beat([])
        except EngineAway:
            self._beaten = float("-inf")  # the next beat joins
        self._beating = asyncio.create_task(self._beats(), name=f"beats {self._group}")

    async def stop(self) -> None:
        """See `Log`."""
        self._wakes.forget(self._news)
        if self._beating is None:
            return
        self._beating.cancel()
        await asyncio.gather(self._beating, return_exceptions=True)
        try:
            async with answering():
                await self._pool.execute("SELECT bus.leave($1, $2)", self._group, self._member, timeout=2)
        except EngineAway:
            return  # the lease lapses

    async def _beats(self) -> None:
        idle: list[str] = []
        while True:
            await asyncio.sleep(self._lease / 3 if not idle else 0)
            try:
                surplus = await self._beat(idle)
                idle = await self._let_go(surplus)
            except EngineAway:
                idle = []
                if time.monotonic() - self._beaten > self._lease:
                    await self._lose(list(self._owned))

    async def _let_go(self, surplus: int) -> list[str]:
        """Finishes there first; given back with the next beat."""
        names = sorted(self._owned)[:surplus]
        await asyncio.gather(*(self._owner.revoked(name, _REVOKE_WAIT) for name in names))
        for name in names:
            self._places.pop(name, None)
            self._owned.pop(name, None)
        return names

    async def _lose(self, names: Sequence[str]) -> None:
        for name in names:
            self._places.pop(name, None)
            self._owned.pop(name, None)
            await self._owner.revoked(name, 0)

    async def _beat(self, idle: Sequence[str]) -> int:
        began = time.monotonic()
        async with answering():
            rows = await self._pool.fetch(
                "SELECT * FROM bus.beat($1, $2, $3, $4, $5)",
                self._group,
                self._member,
                self._topics,
                timedelta(seconds=self._lease),
                list(idle),
                timeout=self._lease / 3,
            )
        self._beaten = began
        given = {f"{r['topic']}/{r['partition']}": r["epoch"] for r in rows}
        await self._lose([p for p, e in self._owned.items() if given.get(p) != e])
        for name in self._owner.refused() & self._owned.keys():
            del self._owned[name], self._places[name]  # refused by the rows, and still ours: claimed again below
        for name in given.keys() - self._owned.keys() - set(idle):
            self._places[name] = _Place(await self._owner.assigned(name, lambda name=name: self._cursor(name)))
            self._owned[name] = given[name]
            self._stale = True
        return max((r["surplus"] for r in rows), default=0)

    async def _cursor(self, name: str) -> int:
        topic, _, part = name.rpartition("/")
        async with answering():
            cursor: int = await self._pool.fetchval("SELECT bus.cursor_of($1, $2, $3)", self._group, topic, int(part), timeout=5)
        return cursor

    async def fetch(self, paused: AbstractSet[str], wait: float) -> Sequence[tuple[str, int, Record]]:
        """See `Log`. Asks the database only when there was a notification, when the last fetch left something, or every 2 s."""
        now = time.monotonic()
        if self._news.is_set() or self._stale or now - self._polled >= _POLL:
            self._news.clear()
            self._polled = now
            self._stale = False
            out = await self._ask({name: place for name, place in self._places.items() if name not in paused})
            self._stale = self._stale or self._more or bool(paused)  # the first: an assignment came meanwhile
            if out:
                return out
        await self._wakes.wait(self._news, 0.05 if self._stale else wait)
        return []

    async def _ask(self, asked: Mapping[str, _Place]) -> list[tuple[str, int, Record]]:
        self._more = False
        if not asked:
            return []
        places = [p.rpartition("/") for p in asked]
        try:
            async with answering():
                rows = await self._pool.fetch(
                    "SELECT * FROM bus.read($1, $2, $3, $4, $5)",
                    [t for t, _, _ in places],
                    [int(n) for _, _, n in places],
                    [place.next for place in asked.values()],
                    _MOST,
                    _BYTES,
                    timeout=10,
                )
        except EngineAway:
            return []
        out: list[tuple[str, int, Record]] = []
        behind: dict[str, bool] = {}
        for r in rows:
            name = f"{r['topic']}/{r['partition']}"
            place = asked[name]
            if self._places.get(name) is place:  # not assigned anew meanwhile: events in front of these would never be read
                out.append((name, r["seq"], Record(r["event_id"], r["project"], r["lane"], r["value"] or b"")))
                place.next = r["seq"] + 1
                behind[name] = place.next < r["next_offset"]
        self._more = any(behind.values())
        return out

    async def commit(self, marks: Mapping[str, int]) -> AbstractSet[str]:
        """See `Log`."""
        names = [p for p in marks if p in self._owned]
        places = [p.rpartition("/") for p in names]
        epochs = [self._owned[p] for p in names]
        async with answering():
            refused: list[str] = await self._pool.fetchval(
                "SELECT bus.commit($1, $2, $3, $4, $5)",
                self._group,
                [t for t, _, _ in places],
                [int(n) for _, _, n in places],
                epochs,
                [marks[p] for p in names],
                timeout=5,
            )
        for p, epoch in zip(names, epochs, strict=True):
            if p in refused and self._owned.get(p) == epoch:  # else it was assigned anew meanwhile
                del self._owned[p], self._places[p]
        return set(refused)

    async def lag(self) -> Mapping[str, int]:
        """See `Log`."""
        async with answering():
            rows = await self._pool.fetch("SELECT * FROM bus.lag($1, $2)", self._group, self._topics, timeout=5)
        return {f"{r['topic']}/{r['partition']}": r["events"] for r in rows}

    def healthy(self) -> bool:
        """See `Log`."""
        return time.monotonic() - self._beaten < self._lease
