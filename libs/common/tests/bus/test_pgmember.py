"""A member on Postgres whose partition is assigned anew while a read is under way: what that read brings is of the past."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, cast

import pytest
from loquat_common.bus.log import Ownership
from loquat_common.bus.pgmember import PostgresLog
from loquat_common.bus.pgwakes import Wakes
from loquat_events.catalog import INBOX

PLACE = f"{INBOX.name}/0"


class Database:
    """One partition with events 0 to 9 and a cursor at 2; a read waits at a gate before its answer."""

    def __init__(self) -> None:
        self.epoch, self.cursor, self.beats = 1, 2, 0
        self.reading, self.gate = asyncio.Event(), asyncio.Event()

    async def fetch(self, query: str, *given: Any, timeout: float) -> list[dict[str, Any]]:  # noqa: ASYNC109  (as the pool has it)
        del timeout
        if "bus.beat" in query:
            self.beats += 1
            return [{"topic": INBOX.name, "partition": 0, "epoch": self.epoch, "cursor": self.cursor, "surplus": 0}]
        (first,) = given[2]
        row = {"topic": INBOX.name, "partition": 0, "project": "p", "lane": "l", "value": b"{}", "next_offset": 10}
        rows = [{**row, "seq": n, "event_id": str(n)} for n in range(first, 10)]
        self.reading.set()
        await self.gate.wait()
        return rows

    async def fetchval(self, *_given: Any, timeout: float) -> int:  # noqa: ASYNC109  (as the pool has it)
        del timeout
        return self.cursor

    async def execute(self, *_given: Any, timeout: float) -> None:  # noqa: ASYNC109  (as the pool has it)
        del timeout


class Owner:
    """Says when a partition was assigned, and which ones the rows refused."""

    def __init__(self) -> None:
        self.times, self.assigned_once_more = 0, asyncio.Event()
        self.without: set[str] = set()

    async def assigned(self, partition: str, committed: Callable[[], Awaitable[int]]) -> int:
        self.without.discard(partition)
        self.times += 1
        if self.times > 1:
            self.assigned_once_more.set()
        return await committed()

    async def revoked(self, partition: str, limit: float) -> None:
        del partition, limit

    def refused(self) -> set[str]:
        return self.without


@pytest.mark.promise("P1")
@pytest.mark.parametrize("why", ["the rows refused it", "its lease lapsed and was taken again in one beat"])
async def test_a_read_begun_before_a_new_assignment_neither_moves_it_on_nor_brings_its_rows(why: str) -> None:
    database, owner = Database(), Owner()
    database.cursor = 5  # reads are ahead of the cursor
    log = PostgresLog(cast("Any", database), Wakes(""), "group", [INBOX], lease=0.06)
    await log.start(cast("Ownership", owner))
    read = asyncio.create_task(log.fetch(set(), 0.1))
    async with asyncio.timeout(5):
        await database.reading.wait()
        database.cursor = 2
        if why == "the rows refused it":
            owner.without.add(PLACE)
        else:
            database.epoch += 1
        await owner.assigned_once_more.wait()
        database.gate.set()
        stale = [offset for _, offset, _ in await read]
        fresh = [offset for _, offset, _ in await log.fetch(set(), 0.1)]
    await log.stop()
    assert (stale, fresh) == ([], list(range(2, 10)))
