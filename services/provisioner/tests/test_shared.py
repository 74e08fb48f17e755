"""What all projects of a cluster share: one of them keeps it from no other."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import asyncpg
import pytest
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.reaper import Reaper

from tests.system.world import until
from tests.tenants import Project, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.promise("P4")

FREE = "SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0"
ROLES = "SELECT rolname FROM pg_roles WHERE rolname LIKE $1 || '\\_%' ORDER BY rolname"


@pytest.fixture
async def both(tenants: Tenants) -> AsyncGenerator[tuple[Project, Project]]:
    """A hostile project and its neighbour; the neighbour's end is the test's business."""
    hostile, neighbour = await tenants.project(), await tenants.project()
    yield hostile, neighbour
    await neighbour.close()
    await tenants.drop(hostile)
    await tenants.drop(neighbour)


async def swept(tenants: Tenants) -> list[str]:
    databases = ProjectDatabases(tenants.as_service("provisioner"))
    try:
        return await Reaper(databases).sweep(await databases.admin())
    finally:
        await databases.close()


@pytest.mark.parametrize("want", ["DROP DATABASE {}", "ALTER DATABASE {} RENAME TO mine", "ALTER DATABASE {} SET TABLESPACE pg_default"])
@pytest.mark.parametrize("whose", ["the neighbour's", "the template"])
async def test_who_waits_for_a_database_of_somebody_elses_is_ended_at_the_next_sweep(
    tenants: Tenants, both: tuple[Project, Project], want: str, whose: str
) -> None:
    hostile, neighbour = both
    database = neighbour.database if whose == "the neighbour's" else await tenants.databases.template()
    holder, waiter, root = await hostile.login("bot"), await hostile.login("editor"), await hostile.root()
    await holder.execute(
        f"{FREE}; BEGIN; SET ROLE NONE; ALTER ROLE {hostile.names.login('bot')} IN DATABASE {database} SET work_mem = '1MB'"
    )
    await waiter.execute(FREE)
    waiting = asyncio.create_task(waiter.execute(want.format(database)))

    async def queued() -> bool:
        return await root.fetchval("SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND pid = $1)", waiter.get_server_pid())

    await until(queued, "it waits for the database", 5)
    acts = await swept(tenants)
    assert f"ended {hostile.names.login('bot')}: lock on what is shared" in acts
    assert f"ended {hostile.names.login('editor')}: lock on what is shared" in acts
    async with asyncio.timeout(2):
        assert await (await neighbour.login("bot")).fetchval("SELECT 1") == 1
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, OSError)):
        await waiting
    made = await tenants.project()
    await tenants.drop(made)


async def test_an_honest_session_is_left_alone(tenants: Tenants, both: tuple[Project, Project]) -> None:
    honest, _ = both
    bot = await honest.login("bot")
    await bot.execute("CREATE TABLE t (a int); BEGIN; LOCK TABLE t; SELECT FROM pg_database")
    await bot.execute(f"GRANT SELECT ON t TO {honest.names.login('editor')}")
    assert await swept(tenants) == []
    assert await bot.fetchval("SELECT 1") == 1


async def test_a_transaction_that_gives_rights_to_a_neighbour_is_ended(tenants: Tenants, both: tuple[Project, Project]) -> None:
    hostile, neighbour = both
    bot = await hostile.login("bot")
    await bot.execute(f"CREATE TABLE t (a int); BEGIN; GRANT SELECT ON t TO {neighbour.names.owner}")
    assert await swept(tenants) == [f"ended {hostile.names.login('bot')}: lock on what is shared"]


@pytest.mark.parametrize(
    "give",
    [
        "GRANT SELECT ON gift TO {owner}, {owner_bot} WITH GRANT OPTION",
        "CREATE POLICY p ON gift TO {owner} USING (true)",
        "ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO {owner_bot}",
    ],
    ids=["grant", "policy", "default privileges"],
)
async def test_a_project_can_be_deleted_though_strangers_gave_rights_to_its_roles(
    tenants: Tenants, both: tuple[Project, Project], give: str
) -> None:
    """The names stay as long as the rights do, and nobody comes in by them."""
    hostile, neighbour = both
    root = await hostile.root()
    editor = await hostile.login("editor")
    places = {"owner": neighbour.names.owner, "owner_bot": neighbour.names.login("bot")}
    await editor.execute("CREATE TABLE gift (a int)")
    await editor.execute(give.format(**places))
    await tenants.drop(neighbour)
    assert await root.fetchval("SELECT count(*) FROM pg_database WHERE datname = $1", neighbour.database) == 0
    left = [r["rolname"] for r in await root.fetch(ROLES, neighbour.database)]
    assert set(left) <= set(places.values())
    assert left
    assert not await root.fetchval("SELECT bool_or(rolcanlogin) FROM pg_roles WHERE rolname = ANY ($1)", left)

    await editor.execute("DROP OWNED BY CURRENT_USER")
    await tenants.drop(await tenants.project())
    assert await root.fetch(ROLES, neighbour.database) == []


async def test_a_role_that_is_left_and_locked_holds_up_no_other_projects_end(tenants: Tenants, both: tuple[Project, Project]) -> None:
    hostile, neighbour = both
    editor = await hostile.login("editor")
    await editor.execute(f"CREATE TABLE gift (a int); GRANT SELECT ON gift TO {neighbour.names.owner}")
    await tenants.drop(neighbour)
    await editor.execute(f"BEGIN; GRANT INSERT ON gift TO {neighbour.names.owner}")
    async with asyncio.timeout(5):
        await tenants.drop(await tenants.project())


async def test_projects_that_end_while_all_are_weighed_do_not_end_the_reaper(tenants: Tenants) -> None:
    databases = ProjectDatabases(tenants.as_service("provisioner"))
    reaper, admin, over = Reaper(databases), await databases.admin(), asyncio.Event()

    async def weigh() -> int:
        count = 0
        while not over.is_set():
            assert await reaper.weigh(admin) == []
            count += 1
        return count

    weighing = asyncio.create_task(weigh())
    for _ in range(5):
        await tenants.drop(await tenants.project())
    over.set()
    assert await weighing > 5
    await databases.close()
