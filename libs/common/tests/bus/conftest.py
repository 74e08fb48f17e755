"""The engines that the conformance suite runs on."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from loquat_embedded.kafka import Kafka, missing
from loquat_embedded.postgres import Cluster

from conftest import Platform
from libs.common.tests.bus.engines import Engine, KafkaEngine, MemoryEngine, PostgresEngine

LACK = missing()


@pytest.fixture(scope="session")
async def kafka(clusters_home: Path) -> AsyncGenerator[Kafka]:
    """A real broker for the session, started by the first test that wants it."""
    broker = Kafka(clusters_home / "kafka")
    yield broker
    await broker.stop()


@pytest.fixture(
    params=[
        "memory",
        "postgres",
        pytest.param("kafka", marks=[pytest.mark.kafka, pytest.mark.skipif(LACK is not None, reason=f"no real Kafka here: {LACK}")]),
    ]
)
async def engine(request: pytest.FixtureRequest, platform_cluster: Cluster, platform: Platform, kafka: Kafka) -> AsyncGenerator[Engine]:
    """An engine with nothing in it that this test reads."""
    made: Engine
    if request.param == "memory":
        made = MemoryEngine()
    elif request.param == "postgres":
        made = PostgresEngine(platform_cluster, platform)
    else:
        made = KafkaEngine(platform, kafka)
    await made.begin()
    yield made
    await made.end()
