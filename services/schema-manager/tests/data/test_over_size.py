"""A project over its size: whatever grows is refused with the way out, the way out works, and afterwards all is as before."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.db import GONE
from loquat_common.http import Api
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.reaper import Reaper
from loquat_provisioner.domain.life import SIZE_LIMIT
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.console import Console
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.http.changes import Changes
from loquat_schema_manager.http.console import Sql
from loquat_schema_manager.http.history import Histories
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.tables import Tables
from loquat_schema_manager.http.transfer import TransferApi

from tests.changing import control
from tests.desk import SIZE, Desk, open_desk
from tests.tenants import Project, Tenants

if TYPE_CHECKING:
    from conftest import Platform

    Pool = asyncpg.Pool[asyncpg.Record]

pytestmark = pytest.mark.promise("P4")

FILL = (
    "CREATE TABLE fat (id int PRIMARY KEY, t text); ALTER TABLE fat ALTER t SET STORAGE EXTERNAL;"
    " INSERT INTO fat SELECT n, repeat('x', 500000) FROM generate_series(1, 10) AS n; CREATE TABLE thin (id int PRIMARY KEY, t text);"
    " INSERT INTO thin SELECT generate_series(1, 3), 'x'; CREATE TABLE spare (id int PRIMARY KEY, t text)"
)
NEW: dict[str, Any] = {"change": "create_table", "name": "made", "columns": []}
COLUMN: dict[str, Any] = {"change": "add_column", "table": "thin", "column": {"name": "more", "type": "text"}}


@dataclass(slots=True)
class Heavy:
    """A desk with every kind of operation, and the reaper that weighs its project."""

    desk: Desk
    databases: ProjectDatabases

    async def limit(self, size: int) -> None:
        query = "UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1"
        await (await self.databases.admin()).execute(query, self.desk.project.database, size)

    async def weigh(self) -> list[str]:
        return await Reaper(self.databases).weigh(await self.databases.admin())

    async def close(self) -> None:
        """Its size is over its limit from now on."""
        admin = await self.databases.admin()
        await self.limit(await admin.fetchval("SELECT pg_database_size($1::name)", self.desk.project.database) - (2 << 20))
        assert await self.weigh() == [f"closed {self.desk.project.database}"]

    async def ask(self, method: str, path: str, body: Any) -> tuple[int, Any]:
        raw = isinstance(body, bytes)
        answer = await (self.desk.ask(method, path, raw=body, kind="text/csv") if raw else self.desk.ask(method, path, body))
        return answer.status, answer.json if answer.body else None


@pytest.fixture
async def heavy(tenants: Tenants, platform: Platform) -> AsyncGenerator[Heavy]:
    project, pool, databases = await tenants.project(), await control(platform), ProjectDatabases(tenants.as_service("provisioner"))
    async with open_desk(project, lambda api, editors, bus: _add(api, editors, bus, project, pool)) as desk:
        made = Heavy(desk, databases)
        bot = await project.login("bot")
        await bot.execute(FILL)
        await bot.close()
        yield made
    await databases.close()
    await tenants.drop(project)


def _add(api: Api, editors: Editors, _bus: MemoryBus, project: Project, pool: Pool) -> None:
    def changed(*_told: object) -> None:
        return

    parts = (
        Tables(editors), Changes(ChangeSets(editors, Records(pool))), RowsApi(Rows(editors, changed)), Histories(History(editors, changed)),
        TransferApi(Imports(editors, changed), Exports(editors)), Sql(Console(editors, _as_service(project), changed, changed)),
    )  # fmt: skip
    for part in parts:
        part.add_to(api)


def _as_service(project: Project) -> Any:
    async def opened(_cluster: str, database: str) -> asyncpg.Connection[asyncpg.Record]:
        return await project.tenants.as_service("schema-manager")(database)

    return opened


async def thin(desk: Desk, key: int) -> dict[str, Any]:
    rows = (await desk.good("GET", "/tables/thin/rows"))["items"]
    return next(r for r in rows if r["key"] == {"id": key})


async def writes(desk: Desk) -> list[tuple[str, str, Any]]:
    """Whatever may grow, one of each kind."""
    row = await thin(desk, 1)
    noted = (await desk.good("GET", "/tables/thin/history"))["items"][0]["id"]
    return [
        ("POST", "/tables/thin/rows", {"rows": [{"id": 7}]}),
        ("POST", "/tables/thin/rows/upsert", {"rows": [{"id": 7}], "on": ["id"]}),
        ("PATCH", "/tables/thin/rows", {"key": {"id": 1}, "version": row["version"], "values": {"t": "y"}}),
        ("POST", "/tables/thin/import", b"id,t\n8,x\n"),
        ("POST", f"/tables/thin/history/{noted}/undo", None),
        ("PUT", "/tables/spare/history", {"enabled": True}),
        ("POST", "/changes", {"changes": [NEW]}),
        ("POST", "/changes", {"changes": [NEW], "dry_run": True}),
        ("POST", "/changes", {"changes": [{"change": "drop_table", "table": "spare"}, COLUMN]}),
        ("POST", "/sql", {"sql": "INSERT INTO thin VALUES (9)", "read_only": False}),
    ]


async def test_what_grows_is_refused_with_size_limit_and_the_way_out_and_what_reads_goes_on(heavy: Heavy) -> None:
    desk = heavy.desk
    await desk.good("PUT", "/tables/thin/history", {"enabled": True})
    await desk.good("PATCH", "/tables/thin/rows", {"key": {"id": 2}, "version": (await thin(desk, 2))["version"], "values": {"t": "z"}})
    asked = await writes(desk)
    await heavy.close()
    for method, path, body in asked:
        status, problem = await heavy.ask(method, path, body)
        assert (status, problem["code"]) == (507, "over_limit"), (path, problem)
        assert (problem["size_bytes"], problem["limit_bytes"]) == (SIZE.size, SIZE.limit)
        assert "2000000 bytes; 1000000 are the limit" in problem["detail"]
        assert "clear or drop tables" in problem["detail"]
    assert len((await desk.good("GET", "/tables/thin/rows"))["items"]) == 3
    assert (await desk.ask("GET", "/tables/thin/export", format="csv")).status == 200
    assert (await desk.good("POST", "/sql", {"sql": "SELECT 1", "read_only": True}))["results"]
    await heavy.limit(SIZE_LIMIT)
    assert await heavy.weigh() == [f"opened {desk.project.database}"]
    for method, path, body in asked:
        status, answer = await heavy.ask(method, path, body)
        assert status < 300, (path, answer)


async def test_the_way_out_is_open(heavy: Heavy) -> None:
    await heavy.desk.good("PUT", "/tables/thin/history", {"enabled": True})
    await heavy.close()
    drop = [{"change": "drop_table", "table": "spare"}, {"change": "drop_column", "table": "thin", "column": "t"}]
    for method, path, body in (
        ("DELETE", "/tables/thin/rows", {"key": {"id": 1}}),
        ("POST", "/tables/thin/rows/delete", {"expected": 2}),
        ("PUT", "/tables/thin/history", {"enabled": False}),
        ("DELETE", "/tables/thin/history?before=2100-01-01T00:00:00Z", None),
        ("POST", "/changes", {"changes": [{"change": "clear_table", "table": "thin"}], "dry_run": True}),
        ("POST", "/changes", {"changes": [{"change": "clear_table", "table": "thin"}]}),
        ("POST", "/changes", {"changes": drop}),
    ):
        await heavy.desk.good(method, path, body)
        await heavy.desk.bad("POST", "/tables/thin/rows", {"rows": [{"id": 7}]}, status=507, code="over_limit")


async def test_after_a_large_table_is_cleared_the_project_writes_again(heavy: Heavy) -> None:
    """By sessions that began while it was over its size, too."""
    await heavy.close()
    new = {"rows": [{"id": 11}]}
    await heavy.desk.bad("POST", "/tables/fat/rows", new, status=507, code="over_limit")
    await heavy.desk.good("POST", "/changes", {"changes": [{"change": "clear_table", "table": "fat"}]})
    await heavy.desk.bad("POST", "/tables/fat/rows", new, status=507, code="over_limit")
    assert await heavy.weigh() == [f"opened {heavy.desk.project.database}"]
    await heavy.desk.good("POST", "/tables/fat/rows", new)


async def test_a_session_that_began_before_is_ended_with_what_it_writes(heavy: Heavy) -> None:
    editor = await heavy.desk.project.login("editor")
    await editor.execute("BEGIN; INSERT INTO thin VALUES (7)")
    await heavy.close()
    with pytest.raises(GONE):
        await editor.execute("COMMIT")
    assert len((await heavy.desk.good("GET", "/tables/thin/rows"))["items"]) == 3


async def test_no_script_of_the_console_makes_itself_a_writing_one(heavy: Heavy) -> None:
    await heavy.close()
    for before in (
        "SET default_transaction_read_only = off",
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    ):
        status, _ = await heavy.ask("POST", "/sql", {"sql": f"{before}; DELETE FROM thin", "read_only": True})  # noqa: S608
        assert status in {403, 422}
    assert len((await heavy.desk.good("GET", "/tables/thin/rows"))["items"]) == 3
