"""Following a topic on Postgres leaves nothing behind, however long and however often."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import cast

import pytest
from loquat_common.bus import postgres
from loquat_common.bus.pgwakes import Wakes
from loquat_common.bus.postgres import PostgresBus
from loquat_events.catalog import DIRECTORY, INBOX
from loquat_events.envelope import AnyEvent

from conftest import Platform
from libs.common.tests.bus.engines import event, number, until


def listening(wakes: Wakes) -> int:
    """How many events the wakes would set."""
    return sum(map(len, wakes._events.values()))  # pyright: ignore[reportPrivateUsage]  (memory is what this is about)


async def test_a_tail_and_a_table_hold_one_wake_each_and_give_it_back(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_POLL", 0.001)  # a look each millisecond
    bus = PostgresBus(await platform.pool("gateway"), platform.dsn("gateway"), "gateway")
    await bus.start()
    wakes = bus._wakes  # pyright: ignore[reportPrivateUsage]
    seen, held = list[int](), set[int]()

    async def follow() -> None:
        async with aclosing(cast("AsyncGenerator[AnyEvent]", bus.tail(INBOX))) as tail:
            async for found in tail:
                seen.append(number(found))
                held.add(listening(wakes))

    task = asyncio.create_task(follow())
    table = bus.table(DIRECTORY)
    reading = asyncio.create_task(table.run())
    await table.caught_up()
    await until(lambda: listening(wakes) == 2, "both follow")
    while len(seen) < 10:
        before = len(seen)
        await bus.publish(event("p", "lane", 0))
        await until(lambda before=before: len(seen) > before, "it is seen")
    assert held == {2}
    for ended in (task, reading):
        ended.cancel()
    await asyncio.gather(task, reading, return_exceptions=True)
    assert listening(wakes) == 0
    await bus.stop()
