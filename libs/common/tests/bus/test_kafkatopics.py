"""Topics that were there before: looked at for what would lose events, widened for what would refuse them."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from loquat_common.bus.kafkatopics import REQUEST, Settings, WeakBroker, arrange, described, prepare
from loquat_common.settings import BusSettings
from loquat_embedded.kafka import Kafka, missing
from loquat_events.catalog import INBOX, TOPICS, UNROUTED

LACK = missing()


class Cluster:
    """Answers of an admin client: some brokers, the catalog's topics, one of them made by somebody else."""

    def __init__(self, brokers: int, in_sync: str) -> None:
        self._brokers, self._in_sync = brokers, in_sync

    async def describe_cluster(self) -> dict[str, Any]:
        return {"brokers": [{}] * self._brokers}

    async def list_topics(self) -> list[str]:
        return [t.name for t in TOPICS]

    async def describe_configs(self, _resources: object) -> list[Any]:
        def settings(name: str) -> list[tuple[object, ...]]:
            in_sync = self._in_sync if name == INBOX.name else "2"
            return [("min.insync.replicas", in_sync, False, 1, False, []), ("max.message.bytes", str(REQUEST), False, 1, False, [])]

        return [SimpleNamespace(resources=[(0, None, 2, t.name, settings(t.name)) for t in TOPICS])]


@pytest.mark.promise("P1")
async def test_a_production_topic_that_one_disk_could_lose_stops_the_start_and_is_named() -> None:
    with pytest.raises(WeakBroker, match=rf"min\.insync\.replicas is below 2 for {INBOX.name}:"):
        await arrange(cast("AIOKafkaAdminClient", Cluster(3, "1")), strict=True)
    with pytest.raises(WeakBroker, match="Kafka has 2 brokers"):
        await arrange(cast("AIOKafkaAdminClient", Cluster(2, "2")), strict=True)


async def test_a_strong_cluster_starts_and_a_weak_one_for_who_took_the_risk() -> None:
    await arrange(cast("AIOKafkaAdminClient", Cluster(3, "2")), strict=True)
    await arrange(cast("AIOKafkaAdminClient", Cluster(1, "1")), strict=False)


async def shows(admin: AIOKafkaAdminClient, largest: str) -> Settings:
    """The topic's settings once the broker, which learns of a change from its controller, tells this limit."""
    async with asyncio.timeout(20):
        while (found := (await described(admin, [UNROUTED.name]))[UNROUTED.name])["max.message.bytes"] != (largest, True):  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    return found


@pytest.mark.promise("P1")
@pytest.mark.kafka
@pytest.mark.skipif(LACK is not None, reason=f"no real Kafka here: {LACK}")
async def test_a_topic_that_takes_too_little_is_widened_and_keeps_what_else_was_set_for_it(kafka: Kafka) -> None:
    if kafka.pid is None:
        await kafka.start()
    settings = BusSettings(environment="test", bus="kafka", kafka_servers=kafka.servers)
    await prepare(settings)
    admin = AIOKafkaAdminClient(bootstrap_servers=kafka.servers)
    await admin.start()
    try:
        narrow = {"max.message.bytes": "5242880", "retention.ms": "123456789"}
        await admin.alter_configs([ConfigResource(ConfigResourceType.TOPIC, UNROUTED.name, narrow)])
        await shows(admin, "5242880")
        await prepare(settings)
        found = await shows(admin, str(REQUEST))
    finally:
        await admin.close()
    assert found["retention.ms"] == ("123456789", True)
    assert found["min.insync.replicas"] == ("1", False)
