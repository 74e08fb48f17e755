"""A hundred project databases of an older schema are brought forward, whatever their tenants do meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest
from loquat_provisioner.domain.life import LOGINS
from loquat_schema_manager.adapters.cluster import migrate_system, system_migrations
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.handlers.sweep import Sweep

from tests.many import OLD, Attempts, counted, drop, listed, make, next_release, older, shapes, target_of
from tests.tenants import PASSWORD, Desk, Project, Tenants, message

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

HOW_MANY: Final = 100
CONCURRENCY: Final = 4
VERSION: Final = next_release()[-1].number

_FUNCTIONS: Final = """
SELECT p.oid::regprocedure::text || ' -> ' || pg_get_function_result(p.oid) AS signature, p.proargnames, p.pronargdefaults, a.grantee::regrole::text AS caller
FROM pg_proc AS p CROSS JOIN LATERAL aclexplode(p.proacl) AS a
WHERE p.pronamespace = 'loquat'::regnamespace AND a.grantee <> p.proowner AND a.grantee::regrole::text ~ '^loquat_'"""
_READABLE: Final = """
SELECT c.relname, a.attname, a.atttypid::regtype::text, g.grantee::regrole::text
FROM pg_class AS c CROSS JOIN LATERAL aclexplode(c.relacl) AS g JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
WHERE c.relowner = 'loquat_system'::regrole AND c.relkind = 'r' AND g.privilege_type = 'SELECT' AND g.grantee::regrole::text ~ '^loquat_' AND g.grantee <> c.relowner"""


@pytest.fixture
async def hundred(tenants: Tenants) -> AsyncGenerator[list[Project]]:
    """All but the first have no logins."""
    made = await make(tenants, HOW_MANY, await older(tenants))
    await tenants.databases.logins(made[0].names, dict.fromkeys(LOGINS, PASSWORD))
    yield made
    await drop(tenants, made)


async def progress(store: Store, seen: list[int], sweeping: asyncio.Task[int]) -> None:
    """Notes each new number of databases that are behind until the sweep is done."""
    while not sweeping.done():
        behind = (await store.progress(VERSION)).behind
        if not seen or seen[-1] != behind:
            seen.append(behind)
        await asyncio.wait([sweeping], timeout=0.05)


@pytest.mark.promise("P5")
async def test_a_hundred_databases_come_forward_few_at_a_time_and_one_that_fails_keeps_none(
    tenants: Tenants, store: Store, hundred: list[Project]
) -> None:
    sat_on, broken, *_ = hundred
    sitting = await sat_on.login("bot")
    await sitting.execute("BEGIN; SELECT count(*) FROM public.contacts")
    root = await broken.root()
    await root.execute("ALTER TABLE public.contacts ADD COLUMN pronouns text")

    attempts = Attempts(shapes(tenants, next_release()))
    sweep = Sweep(store, VERSION, attempts.attempt, CONCURRENCY)
    for project in hundred:
        sweep.listed(*listed(project))
    seen = list[int]()
    async with counted(tenants, 0.05) as crowd:
        sweeping = asyncio.create_task(sweep.once())
        await progress(store, seen, sweeping)

    assert sweeping.result() == HOW_MANY
    assert sorted(t.database for t in attempts.targets) == sorted(p.database for p in hundred), "each one once"
    assert attempts.most == CONCURRENCY
    assert crowd.most <= CONCURRENCY + 3, "besides the tests' own three"
    assert len(seen) > 5
    assert seen[1:] == sorted(seen[1:], reverse=True), "progress goes one way"
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await sitting.execute("SELECT 1")

    told = await store.progress(VERSION)
    assert (told.total, told.behind) == (HOW_MANY, 1)
    assert [(f.target, f.attempts) for f in told.failing] == [(target_of(broken), 1)]
    assert told.failing[0].reason.startswith("a migration failed there: DuplicateColumnError")
    await comes_forward_when_mended(store, sweep, root)
    await works(sat_on)
    await works(broken)


async def comes_forward_when_mended(store: Store, sweep: Sweep, root: Connection) -> None:
    assert await sweep.once() == 0, "not before its time"
    await root.execute("ALTER TABLE public.contacts DROP COLUMN pronouns")
    await store._pool.execute("UPDATE databases SET next_at = now()")
    assert await sweep.once() == 1
    told = await store.progress(VERSION)
    assert (told.behind, told.failing) == (0, ())


async def works(project: Project) -> None:
    desk = await Desk.of(project)
    (queued,) = await desk.run(message("user_id:u1"), replies=[{"type": "text", "text": "x"}])
    assert await desk.receipts({"key": queued["message_id"], "status": "sent", "at": "2026-01-01T00:00:00Z"}) == 1


@pytest.mark.parametrize("version", range(OLD, VERSION))
async def test_code_of_an_older_release_finds_all_it_calls_and_reads_in_the_newest_schema(tenants: Tenants, version: int) -> None:
    """Every function with its arguments, defaults and callers, every column with its type and readers."""
    (project,) = await make(tenants, 1, await older(tenants))
    inside, manager = await project.root(), await project.service("schema-manager")
    await migrate_system(manager, [m for m in system_migrations() if m.number <= version])
    functions, columns = await surface(inside)
    await migrate_system(manager, next_release())
    now = await surface(inside)
    assert len(functions) >= 9
    assert functions - now[0] == set()
    assert len(columns) >= 20
    assert columns - now[1] == set()
    await tenants.drop(project)


async def surface(inside: Connection) -> tuple[set[str], set[str]]:
    """What services call and read."""
    return {repr(tuple(r)) for r in await inside.fetch(_FUNCTIONS)}, {repr(tuple(r)) for r in await inside.fetch(_READABLE)}
