"""Dumps: pg_dump as the project's editor, streamed; what cannot be whole is seen not to be whole, and no child outlives its request."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import pytest
from loquat_common.bus.port import Done
from loquat_common.problems import Problem
from loquat_embedded.binaries import programs
from loquat_provisioner.adapters.errands import errand
from loquat_provisioner.adapters.reaper import Ages
from loquat_provisioner.http.dumps import Turns
from loquat_provisioner.http.pace import Pace

from services.provisioner.tests.counter import Counter, open_counter
from services.provisioner.tests.workshop import Workshop, delete, gone
from tests.system.world import until
from tests.tenants import Desk, message
from tests.tenants import Project as Tenant

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

TABLES = (
    "CREATE TABLE orders (id int PRIMARY KEY, note text); INSERT INTO orders SELECT n, 'note ' || n FROM generate_series(1, 2000) AS n;"
    " CREATE INDEX ON orders (note); CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql RETURN 2 * n; CREATE VIEW few AS SELECT * FROM orders LIMIT 3"
)

WIDE = (
    "CREATE TABLE wide (t text); ALTER TABLE wide ALTER t SET STORAGE EXTERNAL;"
    " INSERT INTO wide SELECT repeat(md5(n::text), 100000) FROM generate_series(1, 20) AS n"
)


@pytest.fixture
async def editor(counter: Counter) -> AsyncGenerator[Connection]:
    opened = await counter.shop.enter(counter.project, "editor")
    yield opened
    opened.terminate()


def listed(dump: bytes, folder: Path) -> str:
    """What pg_restore says is in it."""
    (folder / "dump").write_bytes(dump)
    found = subprocess.run([programs() / "pg_restore", "--list", folder / "dump"], check=True, capture_output=True, text=True, timeout=20)  # noqa: S603
    return found.stdout


async def visitors(counter: Counter) -> list[str]:
    """The one-time logins that there are."""
    query = "SELECT rolname FROM pg_roles WHERE rolname ~ ('^' || $1 || '_dump_')"
    return [r["rolname"] for r in await counter.shop.root.fetch(query, counter.project.database)]


async def left(counter: Counter) -> list[str]:
    """Logins and child processes of dumps."""
    return await visitors(counter) + children(counter)


def children(counter: Counter) -> list[str]:
    """The processes that work with a one-time login of the project."""
    found: list[str] = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            environment = (process / "environ").read_bytes()
        except OSError:  # it ended meanwhile, or is somebody else's
            continue
        found += [process.name] if f"PGUSER={counter.project.database}_dump_".encode() in environment else []
    return found


async def test_a_custom_dump_has_the_projects_objects_and_system_rows_and_nothing_of_the_platforms_schema(
    counter: Counter, editor: Connection, tmp_path: Path
) -> None:
    tenant = Tenant(counter.shop.tenants, counter.names, counter.project.project_id)
    await (desk := await Desk.of(tenant)).record(message("phone:491700000001", text="hello"))
    await editor.execute(TABLES)
    content = listed(await counter.file("/dump"), tmp_path)
    for line in (
        "TABLE public orders",
        "TABLE DATA public orders",
        "TABLE DATA public messages",
        "FUNCTION public twice",
        "VIEW public few",
    ):
        assert line in content
    assert " loquat " not in content.replace("loquat_system", ""), "no schema of that name"
    await desk.log.close()
    await tenant.close()


async def test_a_plain_dump_is_sql_that_holds_the_rows(counter: Counter, editor: Connection) -> None:
    tenant = Tenant(counter.shop.tenants, counter.names, counter.project.project_id)
    await (await Desk.of(tenant)).record(message("phone:491700000001", text="a message of the past"))
    await editor.execute(TABLES)
    text = (await counter.file("/dump", format="plain")).decode()
    assert "CREATE TABLE public.orders" in text
    assert "2000\tnote 2000\n" in text
    assert "a message of the past" in text
    assert "PASSWORD" not in text
    assert f"{counter.project.database}_owner" not in text, "another project has another owner"
    await tenant.close()


async def test_a_dump_leaves_nothing_behind_and_its_password_is_in_no_arguments(counter: Counter, tmp_path: Path) -> None:
    """A program that stands in for pg_dump writes down what it was given."""
    script = '#!/bin/sh\n{ echo "$@"; env; } > "%s"\nprintf dump\n'
    async with pretended(counter.shop, script % (tmp_path / "given"), tmp_path) as pretending:
        assert await pretending.file("/dump") == b"dump"
        arguments, *environment = (tmp_path / "given").read_text().splitlines()
        (password,) = (e.removeprefix("PGPASSWORD=") for e in environment if e.startswith("PGPASSWORD="))
        assert len(password) >= 40
        assert password not in arguments
        assert password not in (await pretending.shop.store.passwords(pretending.project.project_id)).values()
        assert not [e for e in environment if e.startswith(("LOQUAT_", "PYTHON", "AWS"))], "nothing of ours is inherited"
        assert any(e.startswith(f"PGUSER={pretending.project.database}_dump_") for e in environment)
        await until(lambda: nothing_left(pretending), "its login is gone", 10)


def pretended(shop: Workshop, script: str, folder: Path, **more: Any) -> AbstractAsyncContextManager[Counter]:
    """The API with a program in place of pg_dump."""
    (folder / "bin").mkdir(exist_ok=True)
    program = folder / "bin" / "pg_dump"
    program.write_text(script)
    program.chmod(0o755)
    return open_counter(shop, folder=folder / "bin", **more)  # pyright: ignore[reportArgumentType]


async def test_a_failure_before_the_first_byte_is_a_problem_and_what_the_program_said_stays_here(shop: Workshop, tmp_path: Path) -> None:
    script = "#!/bin/sh\necho 'pg_dump: error: permission denied for table secrets of anna' >&2\nexit 1\n"
    async with pretended(shop, script, tmp_path) as counter:
        problem = await counter.bad("GET", "/dump", status=502, code="dump_failed")
        assert "secrets" not in str(problem)
        assert "may not read" in problem["detail"]
        assert await left(counter) == []


@pytest.mark.parametrize(
    "script", ["printf begin; exit 1", "printf begin; kill -9 $$", "printf begin; exec sleep 60"], ids=["fails", "is killed", "is silent"]
)
async def test_a_failure_in_the_middle_cuts_the_connection_and_is_no_clean_end(shop: Workshop, tmp_path: Path, script: str) -> None:
    async with pretended(shop, f"#!/bin/sh\n{script}\n", tmp_path, silence=1) as counter:
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ServerDisconnectedError, aiohttp.ClientOSError)):
            await counter.file("/dump")
        await until(lambda: nothing_left(counter), "the child is gone", 10)


async def nothing_left(counter: Counter) -> bool:
    return await left(counter) == []


@pytest.mark.parametrize("script", ["exec yes dump", "printf begin; exec sleep 60"], ids=["while it writes", "while it is silent"])
async def test_a_caller_who_leaves_ends_the_child(shop: Workshop, tmp_path: Path, script: str) -> None:
    async with pretended(shop, f"#!/bin/sh\n{script}\n", tmp_path) as counter:
        response = await counter.http.get(counter.base + "/dump")
        assert await response.content.readany()
        assert len(children(counter)) == 1
        response.close()
        await until(lambda: nothing_left(counter), "the child is gone", 10)


async def test_one_dump_of_a_project_runs_at_a_time_and_a_few_in_all(shop: Workshop, tmp_path: Path) -> None:
    async with pretended(shop, "#!/bin/sh\nprintf begin\nexec sleep 60\n", tmp_path, at_once=1) as counter:
        first = await counter.http.get(counter.base + "/dump")
        assert await first.content.readany()
        await counter.bad("GET", "/dump", status=429, code="busy")
        first.close()
        await until(lambda: nothing_left(counter), "its turn is over", 10)


@pytest.mark.promise("P4")
@pytest.mark.parametrize("pace", [Pace(taken=0.5), Pace(longest=0.5)], ids=["takes nothing", "takes too long"])
async def test_a_dump_that_is_read_too_slowly_is_cut_off_and_its_turn_is_free(shop: Workshop, tmp_path: Path, pace: Pace) -> None:
    async with pretended(shop, "#!/bin/sh\nexec yes dump\n", tmp_path, at_once=1, pace=pace) as counter:
        response = await counter.http.get(counter.base + "/dump")
        await until(lambda: nothing_left(counter), "the child is gone", 10)
        with pytest.raises((aiohttp.ClientPayloadError, aiohttp.ClientOSError)):
            await response.read()


async def test_one_organization_has_at_most_half_of_the_turns() -> None:
    turns = Turns(4)
    async with turns.turn("prj_a1", "org_a"), turns.turn("prj_a2", "org_a"):
        with pytest.raises(Problem) as refused:
            async with turns.turn("prj_a3", "org_a"):
                pass
        assert refused.value.status == 429
        async with turns.turn("prj_b", "org_b"):
            pass
    async with turns.turn("prj_a3", "org_a"):
        pass


async def test_a_program_that_is_not_installed_is_named(shop: Workshop, tmp_path: Path) -> None:
    async with open_counter(shop, folder=tmp_path) as counter:
        problem = await counter.bad("GET", "/dump", status=503, code="not_set_up")
        assert "pg_dump" in problem["detail"]
        assert "LOQUAT_POSTGRES_BIN" in problem["detail"]


async def test_a_table_that_a_tenant_holds_ends_the_dump_with_a_reason_and_not_the_platforms_patience(
    counter: Counter, editor: Connection
) -> None:
    await editor.execute("CREATE TABLE held (id int)")
    await editor.execute("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
    problem = await counter.bad("GET", "/dump", status=502, code="dump_failed")
    assert "lock" in problem["detail"]


async def test_the_reaper_spares_a_dump_while_a_tenants_session_of_the_same_age_ends(counter: Counter, editor: Connection) -> None:
    await editor.execute(WIDE)
    response = await counter.http.get(counter.base + "/dump", params={"format": "plain"})
    assert await response.content.readany()
    await editor.execute("BEGIN")
    none = timedelta(0)
    assert await counter.sweep(Ages(none, none, none, none)) == [f"ended {counter.names.login('editor')}: idle in transaction"]
    size = 0
    while piece := await response.content.readany():
        size += len(piece)
    assert size > 60_000_000, "it ends whole"


async def test_the_login_of_a_dump_opens_nothing_a_minute_later_and_may_only_read(counter: Counter, editor: Connection) -> None:
    await editor.execute(WIDE)
    async with errand(counter.databases, counter.names, "dump") as visitor:
        session = await counter.shop.tenants.connect(visitor.database, visitor.user, visitor.password)
        for refused in (
            "DELETE FROM public.wide",
            "SELECT * FROM loquat.events",
            f"SET ROLE {counter.names.owner}",
            "CREATE TABLE x (a int)",
        ):
            with pytest.raises((asyncpg.InsufficientPrivilegeError, asyncpg.ReadOnlySQLTransactionError)):
                await session.execute(refused)
        valid = "SELECT rolvaliduntil - clock_timestamp() < interval '1 minute' FROM pg_roles WHERE rolname = $1"
        assert await counter.shop.root.fetchval(valid, visitor.user)
    await gone(session)
    assert await visitors(counter) == []


async def test_what_is_left_of_a_dump_whose_process_was_killed_goes_with_the_next_one_or_the_project(counter: Counter) -> None:
    database = counter.project.database
    for n in range(2):
        await counter.shop.root.execute(
            f"CREATE ROLE {database}_dump_0000000{n} LOGIN VALID UNTIL '2000-01-01'; GRANT {database}_dump_0000000{n} TO loquat_provisioner WITH ADMIN TRUE;"
            f" GRANT CONNECT ON DATABASE {database} TO {database}_dump_0000000{n}"
        )
        if n == 0:
            await counter.file("/dump")
            await until(lambda: nothing_left(counter), "both logins are gone", 10)
    assert await counter.shop.handle(delete(counter.project.project_id)) == Done()
    assert await visitors(counter) == []


@pytest.mark.promise("P4")
@pytest.mark.parametrize("end", ["COMMIT", "SELECT 1"], ids=["and keeps it", "in a transaction that stays open"])
async def test_a_stranger_who_gives_a_right_to_the_login_of_a_dump_stops_no_later_one(shop: Workshop, end: str) -> None:
    async with open_counter(shop) as counter, open_counter(shop) as stranger:
        giver, visitor = await shop.enter(stranger.project, "editor"), f"{counter.project.database}_dump_00000000"
        await shop.root.execute(
            f"CREATE ROLE {visitor} LOGIN VALID UNTIL '2000-01-01'; GRANT {visitor} TO loquat_provisioner WITH ADMIN TRUE;"
            f" GRANT CONNECT ON DATABASE {counter.project.database} TO {visitor}"
        )
        await giver.execute("CREATE TABLE mine (id int)")
        await giver.execute(f"BEGIN; GRANT SELECT ON mine TO {visitor}; {end}")
        async with asyncio.timeout(10):
            assert (await counter.file("/dump")).startswith(b"PGDMP")

        async def kept() -> bool:
            return await visitors(counter) == [visitor]

        await until(kept, "the dump's own login is gone", 10)
        assert not await shop.root.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", visitor)
        await giver.execute("ROLLBACK; DROP TABLE mine")
        await counter.file("/dump")
        await until(lambda: nothing_left(counter), "it goes once it is free", 10)
        giver.terminate()


@pytest.mark.promise("P4")
async def test_a_dump_ends_whole_though_a_stranger_gives_a_right_to_its_login_meanwhile(shop: Workshop) -> None:
    async with open_counter(shop) as counter, open_counter(shop) as stranger:
        giver = await shop.enter(stranger.project, "editor")
        await giver.execute("CREATE TABLE mine (id int)")
        async with errand(counter.databases, counter.names, "dump") as visitor:
            await giver.execute(f"GRANT SELECT ON mine TO {visitor.user}")
        assert await visitors(counter) == [visitor.user]
        assert await counter.shop.handle(delete(counter.project.project_id)) == Done()
        await giver.execute("DROP TABLE mine")
        await shop.handle(delete((await shop.project()).project_id))
        assert await visitors(counter) == [], "it goes with the end of whatever project"
        giver.terminate()


@pytest.mark.promise("P4")
async def test_what_a_tenant_wrote_runs_as_nobody_but_the_tenant(counter: Counter, editor: Connection, tmp_path: Path) -> None:
    """Everything that pg_dump might evaluate notes who it is."""
    await editor.execute(
        "CREATE TABLE witness (who text); CREATE FUNCTION tell() RETURNS int LANGUAGE plpgsql AS $$ BEGIN"
        " INSERT INTO witness VALUES (session_user || ' ' || current_user); RETURN 1; END $$;"
        " CREATE TABLE bait (id int DEFAULT tell(), CHECK (tell() IS NOT NULL)); CREATE VIEW lure AS SELECT tell() AS n;"
        ' CREATE TABLE "a""; DROP TABLE witness; --" (id int); COMMENT ON TABLE bait IS $c$\n\\! touch /tmp/x\n$c$'
    )
    content = listed(await counter.file("/dump"), tmp_path)
    assert "witness" in content
    told = {r["who"] for r in await editor.fetch("SELECT who FROM witness")}
    assert told == set(), "nothing is evaluated, and were it, nothing could be written"
    text = (await counter.file("/dump", format="plain")).decode()
    assert "\n\\! touch" not in text.split("COMMENT ON TABLE")[0]


async def test_a_form_that_there_is_not_is_refused(counter: Counter) -> None:
    problem = await counter.bad("GET", "/dump", status=422, code="invalid_request", format="tar; rm")
    assert "query.format" in problem["detail"]


async def test_two_projects_dump_side_by_side(shop: Workshop) -> None:
    async with open_counter(shop) as one, open_counter(shop) as other:
        first, second = await asyncio.gather(one.file("/dump"), other.file("/dump", format="plain"))
    assert first.startswith(b"PGDMP")
    assert b"PostgreSQL database dump complete" in second
