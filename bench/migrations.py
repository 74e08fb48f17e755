"""Many project databases brought forward one step, against a bare loop of asyncpg connections that runs the same SQL at the same concurrency."""

from __future__ import annotations

import asyncio
import os
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.bootstrap import bootstrap_database, bootstrap_roles
from loquat_common.db import open_pool
from loquat_common.migrate import Migration, load, migrate
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import SERVICES
from loquat_schema_manager.adapters.cluster import ADDRESS_SPACE, bootstrap_cluster, build_template, system_migrations, tenant_settings
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.handlers.sweep import Sweep

from tests.many import listed, make, shapes
from tests.tenants import PASSWORD, TENANT_SERVICES, Project, Tenants

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

DATABASES: Final = int(os.environ.get("LOQUAT_BENCH_DATABASES", "400"))  # noqa: TID251  (the bench's own knob)
"""1,000 take five minutes, nearly all of it for making them and throwing them away with fsync on; the rate is the same."""
CONCURRENCY, ROUNDS = 4, 5
STEP: Final = "ALTER TABLE public.contacts ADD COLUMN step_{n} text; CREATE INDEX contacts_step_{n}__lq ON public.contacts (step_{n}) WHERE step_{n} IS NOT NULL"


async def migrations() -> None:
    """Rounds interleaved on the same databases, each its share of them; the ratio inside each round. Goal: at least 0.5."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        tenants, platform = (
            Tenants(Cluster(home / "tenants", settings=tenant_settings(), address_space=ADDRESS_SPACE)),
            Cluster(home / "platform"),
        )
        await tenants.cluster.start()
        await platform.start()
        pool = await _pool(platform)
        try:
            await _measure(tenants, Store(pool, lambda: 0.0))
        finally:
            pool.terminate()
            await tenants.close()
            await platform.stop()


async def _measure(tenants: Tenants, store: Store) -> None:
    await bootstrap_cluster(tenants.cluster.connect, {s.replace("-", "_"): PASSWORD for s in TENANT_SERVICES})
    template = await build_template(tenants.as_service("schema-manager"))
    began = time.perf_counter()
    projects = await make(tenants, DATABASES, template)
    made = time.perf_counter() - began
    share = DATABASES // (2 * ROUNDS)
    parts = [projects[n * share : (n + 1) * share] for n in range(2 * ROUNDS)]
    base, ours = list[float](), list[float]()
    for n in range(ROUNDS):
        base.append(share / await _timed(lambda n=n: _bare(tenants, parts[2 * n])))
        ours.append(share / await _timed(lambda n=n: _swept(tenants, store, parts[2 * n + 1])))
    ratios = sorted(o / b for b, o in zip(base, ours, strict=True))
    print(
        f"migrations: {statistics.median(ratios):.2f} of a bare loop of connections (goal 0.5), rounds {', '.join(f'{r:.2f}' for r in ratios)};"
        f" {statistics.median(ours):.0f} databases per second against {statistics.median(base):.0f}, {CONCURRENCY} at a time"
    )
    print(f"  {share * 2 * ROUNDS} databases, each one step (a column and an index), half of them by either; made in {made:.0f} s before")


async def _timed(work: Callable[[], Awaitable[None]]) -> float:
    began = time.perf_counter()
    await work()
    return time.perf_counter() - began


def _release() -> list[Migration]:
    now = system_migrations()
    return [*now, Migration(now[-1].number + 1, "pre", "step", STEP.format(n=1))]


async def _swept(tenants: Tenants, store: Store, projects: Sequence[Project]) -> None:
    """As the service does it, with its rows of the control database."""
    subject = shapes(tenants, _release())
    sweep = Sweep(store, subject.version, subject.bring_forward, CONCURRENCY)
    for project in projects:
        sweep.listed(*listed(project))
    assert await sweep.once() == len(projects)


async def _bare(tenants: Tenants, projects: Sequence[Project]) -> None:
    """Connect, one transaction, close: no record of what was done, no locks between replicas, no time-outs."""
    queue = [p.database for p in projects]

    async def work() -> None:
        while queue:
            connection = await asyncpg.connect(
                tenants.cluster.dsn(queue.pop(), user="loquat_schema_manager", password=PASSWORD), statement_cache_size=0
            )
            async with connection.transaction():
                await connection.execute("SET LOCAL ROLE loquat_system")
                await connection.execute(STEP.format(n=1))
            await connection.close()

    async with asyncio.TaskGroup() as group:
        for _ in range(CONCURRENCY):
            group.create_task(work())


async def _pool(platform: Cluster) -> Pool:
    admin = await platform.connect()
    await bootstrap_roles(admin, dict.fromkeys(SERVICES, PASSWORD))
    await admin.execute("CREATE DATABASE loquat")
    await admin.close()
    inside = await platform.connect("loquat")
    await bootstrap_database(inside)
    await inside.close()
    dsn = platform.dsn("loquat", user="loquat_schema_manager", password=PASSWORD)
    pool = await open_pool(dsn, search_path="schema_manager, pg_catalog", max_size=CONCURRENCY + 2)
    async with pool.acquire() as connection:
        own = load(files("loquat_schema_manager.migrations"))
        await migrate(connection, schema="schema_manager", component="schema-manager", migrations=own)
    return pool
