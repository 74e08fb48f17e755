"""Topics on Kafka: made at the start of a bus; those that are there already are looked at, for somebody else may have made them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.admin.config_resource import ConfigResource, ConfigResourceType
from aiokafka.errors import TopicAlreadyExistsError, for_code
from loquat_events.catalog import TOPICS, Topic, topics_by_name

from loquat_common.bus.record import LARGEST
from loquat_common.logs import get_logger
from loquat_common.settings import BusSettings

REQUEST: Final = LARGEST + (64 << 10)
"""Bytes of a record with what Kafka puts around it."""
_DAY: Final = 86_400_000  # milliseconds
_REPLICAS: Final = 3
_IN_SYNC: Final = 2
_RISK: Final = "confirmed events could be lost with a disk."
_OF_THE_TOPIC: Final = 1  # Kafka's number for settings that were made for the topic itself

Settings = Mapping[str, tuple[str, bool]]
"""A topic's settings by name: the value, and whether it was set for this topic."""


class WeakBroker(Exception):
    """A production broker that could lose what it confirmed. The text says what to change."""


async def prepare(settings: BusSettings) -> None:
    """`arrange` on the settings' cluster; strict in production, unless the operator took the risk."""
    admin = AIOKafkaAdminClient(bootstrap_servers=settings.kafka_servers, request_timeout_ms=30_000)
    try:
        await admin.start()
        await arrange(admin, strict=settings.environment == "production" and not settings.kafka_single_broker)
    finally:
        await admin.close()


async def arrange(admin: AIOKafkaAdminClient, *, strict: bool) -> None:
    """Makes missing topics; lets those that are there take the largest event.

    Raises:
        WeakBroker: only if `strict`.
        KafkaError: the broker does not answer, or refuses.
    """
    brokers = len((await admin.describe_cluster())["brokers"])
    if strict and brokers < _REPLICAS:
        raise WeakBroker(f"Kafka has {brokers} brokers: {_RISK} Give it {_REPLICAS}, or set LOQUAT_KAFKA_SINGLE_BROKER=true")
    known = topics_by_name().keys() & set(await admin.list_topics())
    await _make(admin, [_new(t, min(_REPLICAS, brokers)) for t in TOPICS if t.name not in known])
    found = await described(admin, known)  # the new ones are as we made them, and not every broker knows of them yet
    if strict and (names := weak(found)):
        raise WeakBroker(
            f"min.insync.replicas is below {_IN_SYNC} for {', '.join(names)}: {_RISK} Raise it, or set LOQUAT_KAFKA_SINGLE_BROKER=true"
        )
    await _widen(admin, found)


async def _make(admin: AIOKafkaAdminClient, fresh: list[NewTopic]) -> None:
    if not fresh:
        return
    answer: Any = await admin.create_topics(fresh)  # it has no types
    for _, code, *_rest in answer.topic_errors:
        if code and for_code(code) is not TopicAlreadyExistsError:
            raise for_code(code)


def _new(topic: Topic, replicas: int) -> NewTopic:
    configs = {
        "min.insync.replicas": str(min(_IN_SYNC, replicas)),
        "max.message.bytes": str(REQUEST),
        **({"cleanup.policy": "compact"} if topic.compacted else {"retention.ms": str(topic.retention_days * _DAY)}),
    }
    return NewTopic(topic.name, topic.partitions, replicas, topic_configs=configs)


async def described(admin: AIOKafkaAdminClient, names: Iterable[str]) -> dict[str, Settings]:
    """Settings of topics, as the broker tells them."""
    resources = [ConfigResource(ConfigResourceType.TOPIC, name) for name in sorted(names)]
    answers: Any = await admin.describe_configs(resources) if resources else ()
    found: dict[str, Settings] = {}
    for code, _, _, name, entries in (resource for answer in answers for resource in answer.resources):
        if code:
            raise for_code(code)
        found[name] = {key: (value, source == _OF_THE_TOPIC) for key, value, _, source, *_rest in entries}
    return found


def weak(found: Mapping[str, Settings]) -> list[str]:
    """Topics whose events could be lost with one disk."""
    return sorted(name for name, settings in found.items() if int(settings["min.insync.replicas"][0]) < _IN_SYNC)


async def _widen(admin: AIOKafkaAdminClient, found: Mapping[str, Settings]) -> None:
    """Topics of an earlier release, or of somebody else, may take less than the largest event. What else was set for them stays."""
    narrow = {name: settings for name, settings in found.items() if int(settings["max.message.bytes"][0]) < REQUEST}
    if not narrow:
        return
    get_logger().info("bus.topics_widened", topics=len(narrow), bytes=REQUEST)
    answers: Any = await admin.alter_configs(  # it replaces all that was set for the topic: so all is given
        [
            ConfigResource(
                ConfigResourceType.TOPIC,
                name,
                {key: value for key, (value, own) in settings.items() if own} | {"max.message.bytes": str(REQUEST)},
            )
            for name, settings in narrow.items()
        ]
    )
    for code, *_rest in (resource for answer in answers for resource in answer.resources):
        if code:
            raise for_code(code)
