"""Attacks that need more than one connection or more than one moment."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator
from pathlib import Path
from uuid import UUID

import asyncpg
import pytest
from loquat_embedded.binaries import programs
from loquat_provisioner.domain.life import LOGINS

from tests.system.world import until
from tests.tenants import PASSWORD, Desk, Tenants, message
from tests.yard import Yard, classify, open_yard

pytestmark = [pytest.mark.promise("P4"), pytest.mark.promise("P5")]


@pytest.fixture(scope="module")
async def yard(tenants: Tenants) -> AsyncGenerator[Yard]:
    async with open_yard(tenants) as opened:
        yield opened


async def test_a_projects_logins_enter_their_own_database_and_no_other(yard: Yard) -> None:
    others = (yard.neighbour.database, "postgres", "template0", "template1", "loquat_base", await yard.tenants.databases.template())
    for kind in LOGINS:
        await (await yard.victim.login(kind)).close()
        for other in others:
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ObjectNotInPrerequisiteStateError)):
                await yard.tenants.connect(other, yard.victim.names.login(kind))
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await yard.tenants.connect(yard.victim.database, yard.victim.names.owner)


async def test_a_trigger_on_a_tenants_table_has_no_better_role_to_climb_to(yard: Yard) -> None:
    """The platform writes to tenants' tables only as logged in as the editor: RESET ROLE leads to the editor, not to a service."""
    editor = await yard.victim.login("editor")
    await editor.execute("""
        CREATE FUNCTION public.climb() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          EXECUTE 'RESET ROLE'; EXECUTE 'SET ROLE NONE'; EXECUTE 'SET ROLE loquat_system'; RETURN NEW; END $$;
        CREATE TRIGGER climb BEFORE INSERT ON public.bookings FOR EACH ROW EXECUTE FUNCTION public.climb()""")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await editor.execute("INSERT INTO public.bookings VALUES (1, 'by the data browser')")
    await editor.execute("DROP TRIGGER climb ON public.bookings")
    manager = await yard.victim.service("schema-manager")
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await manager.execute(f'SET ROLE "{yard.victim.names.owner}"')


async def test_a_bot_that_sits_on_its_result_holds_up_its_own_conversation_alone_until_the_reaper_comes(yard: Yard) -> None:
    desk = await Desk.of(yard.victim)
    first, second = message("user_id:sitter"), message("user_id:sitter")
    begun = await desk.begin(first)
    await desk.begin(second)
    bot = await yard.victim.login("bot")
    await bot.execute("SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0")
    await bot.execute("BEGIN")
    await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(first["id"]), begun["version"])
    async with asyncio.timeout(1.5):
        await desk.record(message("user_id:sitter"), message("user_id:new"))
        assert (await desk.begin(second))["todo"] == "run"
        await yard.run_event(yard.victim)
        with pytest.raises(asyncpg.LockNotAvailableError):
            await desk.commit(second, begun["version"], {})

    async def ended() -> bool:
        return bot.is_closed()

    await until(ended, "the reaper ends the session")
    assert (await desk.commit(second, begun["version"], {}))["status"] == "committed"


async def test_a_login_has_few_connections(yard: Yard) -> None:
    crowd = [await yard.victim.login("direct") for _ in range(4)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await yard.victim.login("direct")
    for connection in crowd:
        await connection.close()


async def test_what_a_login_changes_of_itself_is_put_back(yard: Yard) -> None:
    """Its password, its settings: Postgres lets every role do that."""
    login, acts = yard.victim.names.login("bot"), len(yard.acts)
    bot = await yard.victim.login("bot")
    await bot.execute("SET ROLE NONE")
    await bot.execute(f"ALTER ROLE {login} PASSWORD 'mine'; ALTER ROLE {login} SET statement_timeout = 0")
    await bot.execute(f"ALTER ROLE {login} IN DATABASE {yard.victim.database} SET role = none")

    async def put_back() -> bool:
        return f"put back {login}" in yard.acts[acts:]

    await until(put_back, "the reaper puts it back")
    again = await yard.victim.login("bot")
    assert await again.fetchval("SELECT current_user") == yard.victim.names.owner
    await yard.run_event(yard.victim)


async def test_a_project_over_its_size_keeps_its_editor_alone_until_it_has_made_room(yard: Yard) -> None:
    project, admin = yard.neighbour, await yard.tenants.databases.admin()
    size = await admin.fetchval("SELECT pg_database_size($1::name)", project.database)
    direct = await project.login("direct")
    await direct.execute("CREATE TABLE fat (t text); ALTER TABLE fat ALTER t SET STORAGE EXTERNAL")
    await admin.execute("UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1", project.database, size + (8 << 20))
    with pytest.raises((asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)) as ended:
        async with asyncio.timeout(20):
            while True:
                await direct.execute("INSERT INTO fat SELECT repeat('x', 1000000) FROM generate_series(1, 2)")
    assert classify(ended.value) == "reaper"
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await project.login("bot")
    editor = await project.login("editor")
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await editor.execute("CREATE TABLE more ()")
    await editor.execute("SET default_transaction_read_only = off")  # what the platform does for that which takes away
    await editor.execute("DROP TABLE fat")
    await admin.execute("UPDATE loquat_operations.projects SET size_limit = 1 << 30 WHERE database = $1", project.database)

    async def let_in() -> bool:
        try:
            await (await project.login("bot")).close()
        except asyncpg.InvalidAuthorizationSpecificationError:
            return False
        return True

    await until(let_in, "the other logins come back")
    await yard.run_event(project)


async def test_a_tenant_that_drops_all_it_owns_loses_its_own_tables_only(yard: Yard) -> None:
    before = await yard.fingerprint()
    direct = await yard.neighbour.login("direct")
    await direct.execute("CREATE TABLE lost (a int)")
    await direct.execute("DROP OWNED BY CURRENT_USER")
    assert await direct.fetchval("SELECT to_regclass('lost')") is None
    assert await direct.fetchval("SELECT count(*) FROM public.messages") >= 0
    assert await yard.fingerprint() == before
    await yard.run_event(yard.neighbour)


@pytest.mark.skipif(not Path(programs() / "pg_dump").exists(), reason="this PostgreSQL comes without pg_dump")
async def test_the_editor_can_export_the_project(yard: Yard) -> None:
    cluster, login = yard.tenants.cluster, yard.victim.names.login("editor")
    command = [programs() / "pg_dump", "-h", cluster.host, "-p", str(cluster.port), "-U", login, "-n", "public", yard.victim.database]
    done = await asyncio.to_thread(
        subprocess.run, command, env={**os.environ, "PGPASSWORD": PASSWORD}, capture_output=True, check=False, timeout=30
    )
    assert done.returncode == 0, done.stderr.decode()
    assert b"COPY public.messages" in done.stdout
