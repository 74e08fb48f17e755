"""No secret leaves: after messages went both ways, every log line, every row of every database and every event is looked through."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

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
