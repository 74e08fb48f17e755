"""The reaper: tenants' sessions that are too old end, what a login changed of itself is put back, a project over its size keeps its editor."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from dataclasses import replace
from datetime import timedelta
from typing import TYPE_CHECKING

import asyncpg
import pytest
from loquat_common.db import DatabaseAway
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.reaper import Ages, Reaper
from loquat_provisioner.domain.life import SIZE_LIMIT

from services.provisioner.tests.workshop import gone
from tests.system.world import until
from tests.tenants import Project, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.promise("P4")

LONG = timedelta(hours=1)
YOUNG = Ages(LONG, LONG, LONG, LONG)
NOTHING = timedelta(0)
SLEEP = "SELECT pg_catalog.pg_sleep(60)"
ENDED = (asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError, OSError)


@pytest.fixture(scope="module")
async def shared(tenants: Tenants) -> AsyncGenerator[tuple[Project, Project]]:
    """A project and its neighbour, for the tests of this file."""
    both = (await tenants.project(), await tenants.project())
    yield both
    for project in both:
        await tenants.drop(project)


@pytest.fixture
async def databases(tenants: Tenants) -> AsyncGenerator[ProjectDatabases]:
    """The reaper's own way to the cluster."""
    opened = ProjectDatabases(tenants.as_service("provisioner"))
    yield opened
    await opened.close()


@pytest.fixture
async def project(shared: tuple[Project, Project]) -> AsyncGenerator[Project]:
    yield shared[0]
    await shared[0].close()


@pytest.fixture
async def neighbour(shared: tuple[Project, Project]) -> AsyncGenerator[Project]:
    yield shared[1]
    await shared[1].close()


async def sweep(databases: ProjectDatabases, ages: Ages = YOUNG) -> list[str]:
    return await Reaper(databases, ages).sweep(await databases.admin())


async def weigh(databases: ProjectDatabases) -> list[str]:
    return await Reaper(databases, YOUNG).weigh(await databases.admin())


async def in_state(databases: ProjectDatabases, connection: Connection, state: str) -> None:
    """Returns once the server shows the session in this state."""
    admin = await databases.admin()

    async def shown() -> bool:
        found = await admin.fetchval("SELECT state FROM pg_stat_activity WHERE pid = $1", connection.get_server_pid())
        return found == state

    await until(shown, f"the session is {state}", 10)


async def sitting(databases: ProjectDatabases, connection: Connection, state: str) -> asyncio.Task[str] | None:
    """Brings the session there, with its politeness switched off; the statement that still runs, if one does."""
    await connection.execute("SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    running = None
    if state == "idle in transaction":
        await connection.execute("BEGIN")
    elif state == "idle in transaction (aborted)":
        with pytest.raises(asyncpg.DivisionByZeroError):
            await connection.execute("BEGIN; SELECT 1 / 0")
    elif state == "active":
        running = asyncio.create_task(connection.execute(SLEEP))
    await in_state(databases, connection, state)
    return running


# -- ages


@pytest.mark.parametrize(
    ("state", "ages", "reason"),
    [
        ("active", replace(YOUNG, statement=NOTHING), "statement"),
        ("active", replace(YOUNG, transaction=NOTHING), "transaction"),
        ("idle in transaction", replace(YOUNG, idle_in_transaction=NOTHING), "idle in transaction"),
        ("idle in transaction (aborted)", replace(YOUNG, idle_in_transaction=NOTHING), "idle in transaction"),
        ("idle in transaction", replace(YOUNG, transaction=NOTHING), "transaction"),
        ("idle", replace(YOUNG, idle=NOTHING), "idle"),
    ],
)
async def test_a_tenants_session_that_is_too_old_is_ended_and_the_platforms_is_not(
    databases: ProjectDatabases, project: Project, state: str, ages: Ages, reason: str
) -> None:
    tenant, service, root = await project.login("direct"), await project.service("bot-runner"), await project.root()
    running = [task for connection in (tenant, service, root) if (task := await sitting(databases, connection, state))]
    assert await sweep(databases) == [], "while they are young"
    assert await sweep(databases, ages) == [f"ended {project.names.login('direct')}: {reason}"]
    await gone(tenant)
    for task in running[:1]:
        with pytest.raises(ENDED):
            await task
    for connection, task in zip((service, root), running[1:] or (None, None), strict=True):
        assert not connection.is_closed()
        if task is not None:
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        elif state != "idle":
            await connection.execute("ROLLBACK")
        assert await connection.fetchval("SELECT 1") == 1


async def test_a_session_that_works_is_not_too_old_for_having_been_open_long(databases: ProjectDatabases, project: Project) -> None:
    tenant, root = await project.login("bot"), await project.root()
    running = await sitting(databases, tenant, "active")
    assert await sweep(databases, replace(YOUNG, idle=NOTHING, idle_in_transaction=NOTHING)) == []
    assert await root.fetchval("SELECT pg_terminate_backend($1, 10000)", tenant.get_server_pid())
    assert running is not None
    with pytest.raises(ENDED):
        await running


# -- what a login changes of itself


@pytest.mark.parametrize(
    "change",
    [
        "ALTER ROLE {login} PASSWORD 'mine'",
        "ALTER ROLE {login} PASSWORD NULL",
        "ALTER ROLE {login} SET statement_timeout = 0",
        "ALTER ROLE {login} IN DATABASE {database} SET role = none",
        "ALTER ROLE {login} IN DATABASE {database} RESET ALL",
        "ALTER ROLE {login} IN DATABASE {other} SET statement_timeout = 0",
        "ALTER ROLE {login} IN DATABASE postgres SET search_path = nowhere",
        "ALTER ROLE {login} PASSWORD 'mine'; ALTER ROLE {login} SET role = none; ALTER ROLE {login} IN DATABASE {database} SET search_path = x",
    ],
)
async def test_what_a_login_changed_of_itself_is_put_back_once(
    databases: ProjectDatabases, project: Project, neighbour: Project, change: str
) -> None:
    login = project.names.login("editor")
    before = await settings(await project.root(), login)
    editor = await project.login("editor")
    await editor.execute("SET ROLE NONE")
    await editor.execute(change.format(login=login, database=project.database, other=neighbour.database))
    assert await sweep(databases) == [f"put back {login}"]
    assert await sweep(databases) == [], "and then it is as it was"
    assert await settings(await project.root(), login) == before
    again = await project.login("editor")
    assert await again.fetchval("SELECT current_user") == project.names.owner
    assert await again.fetchval("SHOW search_path") == "public"
    with pytest.raises(asyncpg.InvalidPasswordError):
        await project.tenants.connect(project.database, login, "mine")


async def settings(root: Connection, login: str) -> list[str]:
    query = (
        "SELECT format('%s: %s', coalesce(datname, 'everywhere'), setconfig) AS line FROM pg_db_role_setting AS s"
        " LEFT JOIN pg_database AS d ON d.oid = s.setdatabase WHERE setrole = to_regrole($1) ORDER BY 1"
    )
    return [r["line"] for r in await root.fetch(query, login)]


async def test_a_login_that_holds_its_own_role_is_ended_and_put_back_and_the_others_do_not_wait(
    databases: ProjectDatabases, project: Project, neighbour: Project
) -> None:
    """What it changed stands; the transaction in which it changes it again is in the way of who puts it back."""
    hostile, good = project.names.login("bot"), neighbour.names.login("bot")
    holder, other = await project.login("bot"), await neighbour.login("bot")
    for connection, login in ((holder, hostile), (other, good)):
        await connection.execute("SET ROLE NONE")
        await connection.execute(f"ALTER ROLE {login} PASSWORD 'mine'")
    await holder.execute("BEGIN")
    await holder.execute(f"ALTER ROLE {hostile} PASSWORD 'again'")
    async with asyncio.timeout(4):  # below the cluster's lock time-out
        acts = await sweep(databases)
    assert f"put back {good}" in acts
    await gone(holder)

    async def put_back() -> bool:
        return f"put back {hostile}" in await sweep(databases)

    if f"put back {hostile}" not in acts:
        await until(put_back, "the next sweep puts it back", 10)
    for tidy in (project, neighbour):
        await (await tidy.login("bot")).close()


async def test_a_login_that_changes_itself_while_it_is_put_back_does_not_end_the_reaper(
    databases: ProjectDatabases, project: Project
) -> None:
    """PostgreSQL answers the second of two such changes with an error of its own: tuple concurrently updated."""
    login, admin = project.names.login("bot"), await databases.admin()
    holder = await project.login("bot")
    await holder.execute("SET ROLE NONE")
    await holder.execute(f"ALTER ROLE {login} PASSWORD 'mine'")
    await holder.execute("BEGIN")
    await holder.execute(f"ALTER ROLE {login} PASSWORD 'again'")
    watcher = await project.root()
    sweeping = asyncio.create_task(Reaper(databases, YOUNG).sweep(admin))

    async def waits() -> bool:
        query = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1 AND wait_event_type = 'Lock')"
        return sweeping.done() or await watcher.fetchval(query, admin.get_server_pid())

    await until(waits, "the reaper waits for the role", 10)
    if not holder.is_closed():
        with contextlib.suppress(*ENDED):
            await holder.execute("COMMIT")
    await sweeping

    async def usual() -> bool:
        return await sweep(databases) == []

    await until(usual, "all is as it was", 10)
    await (await project.login("bot")).close()


async def test_what_was_changed_by_a_session_that_left_at_once_is_put_back_too(databases: ProjectDatabases, project: Project) -> None:
    """Nobody of any project is connected when the reaper looks."""
    login = project.names.login("bot")
    bot = await project.login("bot")
    await bot.execute("SET ROLE NONE")
    await bot.execute(f"ALTER ROLE {login} PASSWORD 'mine'")
    await project.close()
    reaping = asyncio.create_task(Reaper(databases).run())

    async def lets_in() -> bool:
        try:
            await (await project.login("bot")).close()
        except asyncpg.InvalidPasswordError:
            return False
        return True

    await until(lets_in, "its own password is good again", 10)
    reaping.cancel()
    await asyncio.wait([reaping])
    assert reaping.cancelled()


# -- sizes


async def test_a_project_over_its_size_keeps_its_editor_until_it_is_well_below(
    databases: ProjectDatabases, project: Project, neighbour: Project
) -> None:
    admin, bot, beside = await databases.admin(), await project.login("bot"), await neighbour.login("bot")
    size: int = await admin.fetchval("SELECT pg_database_size($1::name)", project.database)

    async def limit(share: float) -> None:
        query = "UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1"
        await admin.execute(query, project.database, int(size / share))

    assert await weigh(databases) == []
    await limit(1.5)
    assert await weigh(databases) == [f"closed {project.database}"]
    assert await weigh(databases) == []
    await gone(bot)
    for kind in ("bot", "direct"):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await project.login(kind)
    editor = await project.login("editor")
    assert await editor.fetchval("SHOW default_transaction_read_only") == "on"
    assert await beside.fetchval("SELECT 1") == 1
    assert await sweep(databases) == [], "a login that is closed is as it shall be"
    login = project.names.login("editor")
    await editor.execute("SET ROLE NONE; SET default_transaction_read_only = off")
    await editor.execute(f"ALTER ROLE {login} IN DATABASE {project.database} RESET default_transaction_read_only")
    assert await sweep(databases) == [f"put back {login}"]
    await gone(editor)
    again = await project.login("editor")
    assert await again.fetchval("SHOW default_transaction_read_only") == "on"
    await limit(0.95)
    assert await weigh(databases) == [], "it would flicker"
    await limit(0.5)
    assert await weigh(databases) == [f"opened {project.database}"]
    for kind in ("bot", "editor"):
        assert await (await project.login(kind)).fetchval("SHOW default_transaction_read_only") == "off"
    assert await sweep(databases) == []
    await admin.execute("UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1", project.database, SIZE_LIMIT)


async def test_a_project_that_is_deleted_while_it_is_weighed_does_not_keep_the_others(
    tenants: Tenants, databases: ProjectDatabases
) -> None:
    """Its roles went after the reaper had looked."""
    vanishing, heavy, admin = await tenants.project(), await tenants.project(), await databases.admin()
    await admin.execute(
        "UPDATE loquat_operations.projects SET size_limit = 1 WHERE database = ANY ($1)", [vanishing.database, heavy.database]
    )
    root = await tenants.cluster.connect()
    for kind in ("bot", "direct"):
        await root.execute(f"DROP OWNED BY {vanishing.names.login(kind)}; DROP ROLE {vanishing.names.login(kind)}")
    await root.close()
    assert f"closed {heavy.database}" in await weigh(databases)
    for project in (vanishing, heavy):
        await tenants.drop(project)


# -- for ever


async def test_a_cluster_that_is_away_does_not_end_the_reaper(tenants: Tenants) -> None:
    asked = asyncio.Event()

    async def connect(_database: str) -> Connection:
        asked.set()
        raise ConnectionRefusedError

    databases = ProjectDatabases(connect)
    with pytest.raises(DatabaseAway):
        await databases.admin()
    asked.clear()
    reaping = asyncio.create_task(Reaper(databases).run())
    await asked.wait()
    await tenants.databases.template()  # something else goes on meanwhile
    assert not reaping.done()
    reaping.cancel()
    await asyncio.wait([reaping])
    assert reaping.cancelled()


async def test_a_running_reaper_ends_what_is_too_old(databases: ProjectDatabases, project: Project) -> None:
    tenant = await project.login("direct")
    await sitting(databases, tenant, "idle in transaction")
    reaping = asyncio.create_task(Reaper(databases, replace(YOUNG, idle_in_transaction=NOTHING)).run())
    await gone(tenant)
    reaping.cancel()
    await asyncio.wait([reaping])
    assert reaping.cancelled()
