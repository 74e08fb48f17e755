"""Gauges that cost a question are measured when somebody asks for the metrics."""

from __future__ import annotations

from aiohttp.test_utils import TestClient, TestServer
from loquat_common import metrics
from loquat_common.health import Health


async def test_a_gauge_is_measured_when_the_metrics_are_asked_for_and_one_that_fails_hides_no_other() -> None:
    health, taken = Health(), 0

    async def take() -> None:
        nonlocal taken
        taken += 1
        metrics.bus_lag.labels("a-group", "a-topic").set(taken)

    async def fail() -> None:
        raise OSError("the bus is away")

    health.measure("lag", take)
    health.measure("broken", fail)
    client = TestClient(TestServer(health.app()))
    await client.start_server()
    for expected in (1, 2):
        shown = await (await client.get("/metrics")).text()
        assert f'loquat_bus_lag_events{{group="a-group",topic="a-topic"}} {expected}.0' in shown
    await client.close()
