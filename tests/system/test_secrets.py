"""No secret leaves: after messages went both ways, every log line, every row of every database and every event is looked through."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
from aiokafka import AIOKafkaConsumer, TopicPartition
from loquat_events.catalog import TOPICS

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.mark.promise("P8")
async def test_no_secret_stands_in_a_log_a_row_or_an_event(running: Running, world: World) -> None:
    project = await world.project("secretive")
    number = await world.number(project)
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text("4915199900011", f"wamid.{number}.1", "hello")])) == 200
    await world.got(number, "4915199900011", 1)
    await world.quiet(project)

    secrets = _secrets(running)
    assert len(secrets) > 20  # the look must have something to look for
    for log in running.stack.logs.iterdir():
        _clean(log.read_text(errors="replace"), secrets, log.name)
    platform, _ = running.stack.clusters
    control = await platform.connect("loquat")
    world.opened.append(control)
    await _look_through(control, secrets)
    await _look_through(await world.database(project), secrets)
    for cluster in running.stack.clusters:
        _clean((cluster.home / "log").read_text(errors="replace"), secrets, f"{cluster.home.name}'s own log")
    if running.stack.settings.bus == "kafka":
        servers = running.stack.plan.environment("gateway")["LOQUAT_KAFKA_SERVERS"]
        async for topic, value in _everything_on(servers):
            _clean(value, secrets, topic)


def _secrets(running: Running) -> list[str]:
    """Every text of the stack's secrets file that nobody could guess, the owner's key and password, the numbers' tokens."""
    found = [*running.world.tokens, running.stack.owner.api_key, running.stack.owner.password]
    waiting: list[object] = [json.loads(running.stack.home.secrets_file.read_text())]
    while waiting:
        match waiting.pop():
            case dict() as inner:  # pyright: ignore[reportUnknownVariableType]  (JSON)
                waiting += [v for k, v in inner.items() if k not in {"demo_number", "public"}]  # pyright: ignore[reportUnknownVariableType]  (JSON)
            case str() as text if text.startswith("{"):
                waiting.append({k: v for k, v in json.loads(text).items() if k in {"d", "keys"}})
            case str() as text if len(text) >= 16:
                found.append(text)
            case _:
                continue
    return found


async def _everything_on(servers: str) -> AsyncGenerator[tuple[str, str]]:
    """Every record of every topic, from its beginning to its end."""
    consumer: Any = AIOKafkaConsumer(bootstrap_servers=servers, enable_auto_commit=False, auto_offset_reset="earliest")
    await consumer.start()
    try:
        places = [TopicPartition(t.name, p) for t in TOPICS for p in range(t.partitions)]
        consumer.assign(places)
        ends: dict[Any, int] = {place: end for place, end in (await consumer.end_offsets(places)).items() if end}
        assert len(ends) > 3, "the look must have something to look at"
        while any([await consumer.position(place) < end for place, end in ends.items()]):
            for place, records in (await consumer.getmany(timeout_ms=500)).items():
                for record in records:
                    yield place.topic, f"{record.key} {(record.value or b'').decode(errors='replace')}"
    finally:
        await consumer.stop()


async def _look_through(connection: Connection, secrets: list[str]) -> None:
    tables = await connection.fetch(
        "SELECT c.oid::regclass::text AS name FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE c.relkind = 'r' AND n.nspname NOT IN ('pg_catalog', 'information_schema')"
    )
    assert tables
    for table in tables:
        for row in await connection.fetch(f"SELECT * FROM {table['name']}"):  # noqa: S608  (the server quoted it)
            text = " ".join(v.decode(errors="replace") if isinstance(v, bytes) else str(v) for v in row.values())
            _clean(text, secrets, str(table["name"]))


def _clean(text: str, secrets: list[str], place: str) -> None:
    for n, secret in enumerate(secrets):
        assert secret not in text, f"secret number {n} stands in {place}"
