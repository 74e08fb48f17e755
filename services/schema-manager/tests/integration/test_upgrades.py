"""A cluster that an older release made: one command brings its walls to every database that stands."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg
import pytest
from loquat_common.bootstrap import BOOTSTRAP, Bootstraps, bootstrap_of, mark_bootstrap
from loquat_common.health import Health
from loquat_common.sql import Ident, compose
from loquat_provisioner.adapters import copies
from loquat_schema_manager.adapters.cluster import bootstrap_cluster, statements, system_migrations, template_name, version_of

from tests.tenants import Project, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

AGE: Final = """
DROP EVENT TRIGGER limit_lock_wait;
DROP SCHEMA loquat_walls CASCADE;
REVOKE SELECT ON pg_catalog.pg_db_role_setting FROM loquat_dump;
GRANT SELECT ON pg_catalog.pg_shdepend, pg_catalog.pg_db_role_setting TO PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify, pg_catalog.pg_advisory_lock(bigint) TO PUBLIC"""
"""What the first release did not have."""
WALLS: Final = """
SELECT string_agg(line, E'\n' ORDER BY line) FROM (
  SELECT format('%s %s', oid::regprocedure, array(SELECT a::text FROM unnest(proacl) AS a ORDER BY 1)) FROM pg_proc WHERE pronamespace IN ('pg_catalog'::regnamespace, to_regnamespace('loquat_walls'))
  UNION ALL SELECT format('%s %s', oid::regclass, array(SELECT a::text FROM unnest(relacl) AS a ORDER BY 1)) FROM pg_class WHERE relnamespace = 'pg_catalog'::regnamespace
  UNION ALL SELECT format('%s %s %s', nspname, nspowner::regrole, nspacl) FROM pg_namespace WHERE nspname ~ '^loquat' OR nspname = 'extensions'
  UNION ALL SELECT format('%s %s %s', evtname, evtenabled, evtfoid::regproc) FROM pg_event_trigger
  UNION ALL SELECT prosrc FROM pg_proc WHERE pronamespace = to_regnamespace('loquat_walls')) AS lines(line)"""
CLOSED: Final = "SELECT datname, datallowconn, datconnlimit, datistemplate FROM pg_database ORDER BY datname"


@pytest.fixture
async def root(tenants: Tenants) -> AsyncGenerator[Connection]:
    connection = await tenants.cluster.connect()
    yield connection
    await connection.close()


async def look(tenants: Tenants, root: Connection, database: str, query: str) -> str:
    """As a superuser, in a database that may be closed."""
    closed = not await root.fetchval("SELECT datallowconn FROM pg_database WHERE datname = $1", database)
    name = Ident(database)
    if closed:
        await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name))
    inside = await tenants.cluster.connect(database)
    try:
        return await inside.fetchval(query) if query.startswith("\nSELECT") else await inside.execute(query)
    finally:
        await inside.close()
        if closed:
            await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name))


@pytest.mark.promise("P4")
async def test_an_older_cluster_has_the_walls_of_this_release_in_every_database_after_one_command(
    tenants: Tenants, root: Connection, project: Project
) -> None:
    backup, template = "b_00000000beef", template_name(version_of(system_migrations()))
    await project.close()
    await copies.copy(tenants.databases, project.database, backup)
    databases = ["loquat_base", template, project.database, backup]
    before = [await look(tenants, root, d, WALLS) for d in databases]
    for database in databases:
        await look(tenants, root, database, AGE)
    assert all([await look(tenants, root, d, WALLS) != b for d, b in zip(databases, before, strict=True)])
    await mark_bootstrap(root, 1)
    doors = await root.fetch(CLOSED)

    for all_again in (False, True):  # as `loquat up` does it, then as the command does: twice is the same as once
        assert await bootstrap_cluster(tenants.cluster.connect, {}, all_again=all_again) == []
        assert [await look(tenants, root, d, WALLS) for d in databases] == before
        assert await root.fetch(CLOSED) == doors, "what was closed is closed, what was open is open"
    assert await bootstrap_of(root) == BOOTSTRAP
    await copies.drop(tenants.databases, backup)
    await keeps_its_walls(project)


async def keeps_its_walls(project: Project) -> None:
    """What a tenant of the older release could do."""
    bot = await project.login("bot")
    for statement in ("SELECT pg_notify('a', 'b')", "SELECT pg_advisory_lock(1)", "SELECT FROM pg_shdepend"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await bot.execute(statement)
    await bot.execute("SET lock_timeout = 0; BEGIN; CREATE TABLE any_table (a int)")
    assert await bot.fetchval("SELECT current_setting('lock_timeout')") == "1s"


HOLD: Final = (  # in vain, but the row is rewritten
    "SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0; BEGIN; GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify TO PUBLIC"
)


@pytest.mark.promise("P4")
async def test_a_tenant_whose_sessions_take_turns_at_holding_what_the_walls_are_made_of_is_kept_out_and_not_waited_for(
    tenants: Tenants, root: Connection, project: Project
) -> None:
    await look(tenants, root, project.database, AGE)
    doors, holds, turn = await root.fetch(CLOSED), asyncio.Event(), asyncio.Lock()

    async def hold(session: Connection) -> None:
        async with turn:
            await session.execute(HOLD)
            holds.set()
            await session.execute("SELECT pg_sleep(600)")

    heirs = [asyncio.create_task(hold(await project.login("bot"))) for _ in range(5)]
    await holds.wait()
    assert await bootstrap_cluster(tenants.cluster.connect, {}, all_again=True) == []
    assert all(isinstance(end, Exception) for end in await asyncio.gather(*heirs, return_exceptions=True))
    assert await root.fetch(CLOSED) == doors
    with pytest.raises(asyncpg.PostgresError):
        await (await project.login("bot")).execute("SELECT pg_notify('a', 'b')")


async def test_a_database_that_an_upgrade_had_barred_when_it_was_killed_lets_in_again(
    tenants: Tenants, root: Connection, project: Project
) -> None:
    doors = await root.fetch(CLOSED)
    await root.execute(
        f"INSERT INTO loquat_operations.opened VALUES ('{project.database}', 30, '0'); ALTER DATABASE {project.database} CONNECTION LIMIT 0"  # noqa: S608  (a name of the test's)
    )
    await bootstrap_cluster(tenants.cluster.connect, {})
    assert await root.fetch(CLOSED) == doors


@pytest.mark.parametrize("all_again", [True, False])
async def test_an_upgrade_that_was_killed_leaves_nothing_open_for_the_next_one(tenants: Tenants, root: Connection, all_again: bool) -> None:
    doors = await root.fetch(CLOSED)
    await root.execute(
        "BEGIN; INSERT INTO loquat_operations.opened SELECT datname, datconnlimit, pg_current_xact_id()::xid FROM pg_database"
        " WHERE datname = 'loquat_base'; ALTER DATABASE loquat_base ALLOW_CONNECTIONS true CONNECTION LIMIT 0; COMMIT"
    )
    await bootstrap_cluster(tenants.cluster.connect, {}, all_again=all_again)
    assert await root.fetch(CLOSED) == doors


async def test_a_project_that_the_provisioner_opens_meanwhile_stays_open(tenants: Tenants, root: Connection, project: Project) -> None:
    await project.close()
    await root.execute(f"ALTER DATABASE {project.database} ALLOW_CONNECTIONS false")
    doors = await root.fetch(CLOSED)

    async def connect(database: str) -> Connection:
        if database == project.database:
            await copies.reopen(tenants.databases, project.names)
        return await tenants.cluster.connect(database)

    assert await bootstrap_cluster(connect, {}, all_again=True) == []
    changed = [(a["datname"], b["datallowconn"], b["datconnlimit"]) for a, b in zip(doors, await root.fetch(CLOSED), strict=True) if a != b]
    assert changed == [(project.database, True, 30)]


async def test_a_service_says_that_a_clusters_bootstrap_is_older_than_it_needs(tenants: Tenants, root: Connection) -> None:
    health = Health()
    bootstraps = Bootstraps(health, {"main": lambda: tenants.as_service("provisioner")("postgres")})
    await mark_bootstrap(root, BOOTSTRAP - 1)
    await bootstraps.once()
    older = health.facts["bootstrap of main"]
    await mark_bootstrap(root, BOOTSTRAP)
    await bootstraps.once()
    assert "loquat cluster upgrade tenants" in older
    assert health.facts["bootstrap of main"] == str(BOOTSTRAP)


def test_whoever_changes_what_a_superuser_makes_raises_its_version() -> None:
    scripts = files("loquat_schema_manager.adapters.bootstrap")
    text = "\n".join(s for f in ("cluster.sql", "base.sql") for s in statements(scripts.joinpath(f).read_text()))
    assert (BOOTSTRAP, hashlib.sha256(text.encode()).hexdigest()[:16]) == (2, "bc37976f3dec71ab"), (
        "raise BOOTSTRAP, then write the new digest here"
    )
