"""A thousand project databases on one cluster: brought forward a release while messages come in for all of them, under 100 open connections.

Run by `make soak`; its numbers are printed. LOQUAT_SOAK is the number of databases.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest
from loquat_common.db import ProjectPools, as_service
from loquat_common.migrate import load, migrate
from loquat_provisioner.domain.life import LOGINS
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.handlers.sweep import Sweep

from tests.many import Attempts, clusters, counted, listed, make, next_release, older, shapes
from tests.tenants import PASSWORD, Desk, Project, Tenants, message, open_tenants

if TYPE_CHECKING:
    from conftest import Platform

    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.timeout(3600)

HOW_MANY: Final = int(os.environ.get("LOQUAT_SOAK", "1000"))
CONNECTIONS: Final = 100
SWEEPERS: Final = 8
READERS: Final = 12  # projects at the same time, two connections each
CAP: Final = 32
"""Connections of each of the two services' pools; together with the sweep and the provisioner they stay under the limit."""
ROUNDS: Final = 2  # messages for each project
VERSION: Final = next_release()[-1].number


@pytest.fixture
async def own(clusters_home: Path) -> AsyncGenerator[Tenants]:
    """A cluster of its own, thrown away as a whole."""
    opened = await open_tenants(clusters_home / "soak")
    yield opened
    await opened.close()


@pytest.fixture
async def store(platform: Platform) -> Store:
    pool = await platform.pool("schema-manager", max_size=SWEEPERS + 2)
    async with pool.acquire() as connection:
        migrations = load(files("loquat_schema_manager.migrations"))
        await migrate(connection, schema="schema_manager", component="schema-manager", migrations=migrations)
    return Store(pool, random.random)


def entered(pools: ProjectPools, project: Project) -> AbstractAsyncContextManager[Connection]:
    return pools.acquire("tenants", project.database, project=project.project_id, epoch=1)


async def messages_for_all(tenants: Tenants, projects: Sequence[Project]) -> list[float]:
    """Each project's messages the whole way, in a random order, by pools as the services have them; seconds of each."""
    runners, logs = (
        ProjectPools(as_service(clusters(tenants), f"loquat_{name}"), cap=CAP, per_project=1, wait=60.0)
        for name in ("bot_runner", "conversation_log")
    )
    queue = [p for p in projects for _ in range(ROUNDS)]
    random.Random(7).shuffle(queue)  # noqa: S311  (an order, no secret)
    took = list[float]()

    async def read() -> None:
        while queue:
            project, began = queue.pop(), time.perf_counter()
            async with entered(runners, project) as runner, entered(logs, project) as log:
                desk, given = Desk(runner, log), message("user_id:u1")
                await desk.record(given)
                (queued,) = await desk.run(given, replies=[{"type": "text", "text": "x"}])
                assert await desk.receipts({"key": queued["message_id"], "status": "read", "at": "2026-01-01T00:00:00Z"}) == 1
            took.append(time.perf_counter() - began)

    async with asyncio.TaskGroup() as group:
        for _ in range(READERS):
            group.create_task(read())
    await runners.close()
    await logs.close()
    return sorted(took)


async def test_a_thousand_databases_come_forward_while_messages_come_for_all_of_them(own: Tenants, store: Store) -> None:
    began = time.perf_counter()
    projects = await make(own, HOW_MANY, await older(own))
    for project in projects:
        await own.databases.logins(project.names, dict.fromkeys(LOGINS, PASSWORD))
    made = time.perf_counter() - began
    attempts = Attempts(shapes(own, next_release()))
    sweep = Sweep(store, VERSION, attempts.attempt, SWEEPERS)
    for project in projects:
        sweep.listed(*listed(project))

    async with counted(own, 0.05) as crowd:
        began = time.perf_counter()
        sweeping = asyncio.create_task(sweep.once())
        reading = asyncio.create_task(messages_for_all(own, projects))
        count = await sweeping
        swept = time.perf_counter() - began
        took = await reading
        read = time.perf_counter() - began
    behind, _ = await store.outlook(VERSION)

    print(  # noqa: T201  (its numbers are what it is for)
        f"\nsoak: {HOW_MANY} databases made in {made:.0f} s ({made / HOW_MANY * 1000:.0f} ms each, four roles included);"
        f" brought forward in {swept:.0f} s ({count / swept:.1f} per second, {SWEEPERS} at a time, {behind} left behind);"
        f" {len(took)} messages the whole way meanwhile in {read:.0f} s (p50 {took[len(took) // 2] * 1000:.0f} ms, max {took[-1] * 1000:.0f} ms);"
        f" at most {crowd.most} open connections (limit {CONNECTIONS}, {crowd.looks} looks)"
    )
    assert crowd.most < CONNECTIONS
    assert len(took) == HOW_MANY * ROUNDS
    assert behind == 0, (await store.progress(VERSION)).failing[:5]
    root = await own.cluster.connect(projects[-1].database)
    assert await root.fetchval("SELECT count(*) FROM public.messages WHERE direction = 'out' AND status = 'read'") == ROUNDS
    await root.close()
