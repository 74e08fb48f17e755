"""Templates and the service as a process."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import aiohttp
import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.client import InternalClient
from loquat_common.tokens import Actor, Signer, new_key
from loquat_embedded.ports import free_port
from loquat_events.catalog import PROJECTS
from loquat_events.projects import TemplateSealed
from loquat_schema_manager.adapters.cluster import system_migrations, version_of
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.handlers.templates import NotSealed, Templates

from tests.tenants import PASSWORD, Tenants

if TYPE_CHECKING:
    from conftest import Platform

VERSION = version_of(system_migrations())


async def test_each_clusters_template_is_announced_once_and_one_that_is_away_keeps_nobody(store: Store) -> None:
    bus = MemoryBus("schema-manager")
    back, builds = asyncio.Event(), list[str]()

    async def build(cluster: str) -> str:
        builds.append(cluster)
        if cluster == "far" and not back.is_set():
            back.set()
            raise ConnectionRefusedError
        return "loquat_template_5"

    def templates() -> Templates:
        return Templates(["far", "near"], 5, build, store, bus, lambda: datetime.now(UTC), again=0.01)

    first = templates()
    with pytest.raises(NotSealed, match="far, near"):
        await first.ping()
    await first.run()
    await first.ping()
    assert builds == ["far", "near", "far"]
    await templates().run()
    said = [e.data for e in bus.broker.events(PROJECTS)]
    assert [(d.cluster, d.database, d.schema_version) for d in said if isinstance(d, TemplateSealed)] == [
        ("near", "loquat_template_5", 5),
        ("far", "loquat_template_5", 5),
    ]
    assert [(t.cluster, t.version) for t in await store.templates()] == [("far", 5), ("near", 5)]


async def test_a_template_that_could_not_be_announced_is_announced_later(store: Store) -> None:
    bus = MemoryBus("schema-manager")
    bus.broker.down = True

    async def build(_cluster: str) -> str:
        bus.broker.down = len(builds) == 0
        builds.append("")
        return "loquat_template_5"

    builds: list[str] = []
    await Templates(["near"], 5, build, store, bus, lambda: datetime.now(UTC), again=0.01).run()
    assert len(builds) == 2
    assert len(bus.broker.events(PROJECTS)) == 1


async def test_the_service_starts_builds_answers_and_stops_when_told(platform: Platform, tenants: Tenants) -> None:
    (mine, _), (asker, public) = new_key(), new_key()
    http, internal = free_port(), free_port()
    environment = {
        "LOQUAT_ENVIRONMENT": "test",
        "LOQUAT_PLATFORM_DSN": platform.dsn("schema-manager"),
        "LOQUAT_TENANT_CLUSTERS": json.dumps(
            {"tenants": {"host": tenants.cluster.host, "port": tenants.cluster.port, "password": PASSWORD}}
        ),
        "LOQUAT_HTTP_PORT": str(http),
        "LOQUAT_INTERNAL_PORT": str(internal),
        "LOQUAT_SIGNING_KEY": mine,
        "LOQUAT_TRUSTED_KEYS": json.dumps({"gateway": public}),
        "LOQUAT_SERVICES": json.dumps({"provisioner": "http://127.0.0.1:9"}),
    }
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "loquat_schema_manager", env={**os.environ, **environment})
    client = InternalClient(f"http://127.0.0.1:{http}", Signer("gateway", asker), "schema-manager")
    await client.start()
    try:
        async with asyncio.timeout(20), aiohttp.ClientSession() as session:
            while not await _ready(session, internal):  # noqa: ASYNC110  (another process)
                await asyncio.sleep(0.05)
        actor = Actor("user", "operator", "o", None, frozenset({"schema:read"}))
        schema = await client.call("GET", "/internal/schema", actor=actor)
        assert schema["version"] == VERSION
        assert [(t["cluster"], t["database"]) for t in schema["templates"]] == [("tenants", f"loquat_template_{VERSION}")]
        assert schema["databases"] == {"total": 0, "current": 0, "behind": 0}
    finally:
        await client.stop()
        process.send_signal(signal.SIGTERM)
        async with asyncio.timeout(15):
            code = await process.wait()
    assert code == 0


async def _ready(session: aiohttp.ClientSession, port: int) -> bool:
    try:
        async with session.get(f"http://127.0.0.1:{port}/readyz") as response:
            return response.status == 200
    except aiohttp.ClientError:
        return False
