"""From a handler's error to an outcome, and what the gauges say meanwhile."""

from __future__ import annotations

import asyncio
import socket
from uuid import uuid4

import asyncpg
import pytest
from loquat_common import metrics
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.metrics import REGISTRY
from loquat_events.catalog import INBOX
from prometheus_client import Gauge

from libs.common.tests.bus.engines import Member, event

AWAY = [
    asyncpg.ConnectionDoesNotExistError("gone"),
    asyncpg.CannotConnectNowError("it is starting"),
    asyncpg.InterfaceError("connection is closed"),
    ConnectionRefusedError(),
    socket.gaierror(),
    TimeoutError(),
]
FAULTS = [asyncpg.UniqueViolationError("twice"), ZeroDivisionError(), PermissionError("the catalog forbids it"), ValueError()]


async def first_row(error: Exception) -> tuple[str, int]:
    """The state and the attempts of an event whose handling raised `error` once, as its row has them."""

    begun = asyncio.Event()

    async def handle(_received: Received) -> Outcome:
        begun.set()
        raise error

    bus = MemoryBus("gateway")
    await bus.publish(event("p", "lane", 0))
    member = Member(bus, bus.subscribe("group", [INBOX], handle))
    store = bus.broker.stores["group"]
    await asyncio.wait_for(begun.wait(), 5)
    assert await member.drain()  # a retry does not wait in memory then
    (row,) = store.rows.values()
    return row.state, row.attempts


@pytest.mark.promise("P3")
@pytest.mark.parametrize("error", AWAY, ids=lambda e: type(e).__name__)
async def test_a_store_of_the_service_that_is_away_counts_no_attempt(error: Exception) -> None:
    assert await first_row(error) == ("deferred", 0)


@pytest.mark.parametrize("error", FAULTS, ids=lambda e: type(e).__name__)
async def test_a_fault_of_the_handling_counts_an_attempt(error: Exception) -> None:
    assert await first_row(error) == ("deferred", 1)


async def test_the_gauges_say_how_it_is_when_they_are_asked_and_not_when_the_last_event_began() -> None:
    begun, release = asyncio.Event(), asyncio.Event()

    async def handle(_received: Received) -> Outcome:
        begun.set()
        await release.wait()
        return Done()

    def shown(gauge: Gauge) -> float:
        (name,) = (m.name for m in gauge.collect())
        value = REGISTRY.get_sample_value(name, {"group": group})
        assert value is not None
        return value

    group, bus = f"group-{uuid4().hex[:8]}", MemoryBus("gateway")
    await bus.publish(event("p", "lane", 0))
    member = Member(bus, bus.subscribe(group, [INBOX], handle))
    await asyncio.wait_for(begun.wait(), 5)
    ages = list[float]()
    for _ in range(2):
        await member.subscription.measure()
        ages.append(shown(metrics.bus_oldest))
        assert shown(metrics.bus_in_flight) == 1
    assert 0 < ages[0] < ages[1], "stuck, it grows"
    release.set()
    assert await member.drain()
    await member.subscription.measure()
    assert (shown(metrics.bus_in_flight), shown(metrics.bus_oldest)) == (0, 0)
