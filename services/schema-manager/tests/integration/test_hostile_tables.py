"""The platform's own actions on a table whose every part is a trap: none of its code runs as anybody but its owner."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.http import Api
from loquat_common.migrate import Migration
from loquat_common.settings import ClusterAddress
from loquat_embedded.binaries import programs
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.cluster import system_migrations
from loquat_schema_manager.adapters.console import Console
from loquat_schema_manager.adapters.databases import ProjectShapes, opener
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.domain.shapes import Forward, Target
from loquat_schema_manager.http.changes import Changes
from loquat_schema_manager.http.console import Sql
from loquat_schema_manager.http.history import Histories
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.tables import Tables
from loquat_schema_manager.http.transfer import TransferApi
from pydantic import SecretStr

from tests.changing import control
from tests.desk import Answer, Desk, open_desk
from tests.tenants import PASSWORD, Project, message
from tests.tenants import Desk as Readers
from tests.walls import WIDE
from tests.yard import FINGERPRINT

if TYPE_CHECKING:
    from conftest import Platform

pytestmark = [pytest.mark.promise("P4"), pytest.mark.promise("P5")]

TRAP: Final = (Path(__file__).parent / "hostile" / "tables" / "trap.sql").read_text()
NOTES: Final = "SELECT what, who, login, climbed FROM public.notes"
Act = Callable[[Desk], Awaitable[Any]]


@pytest.fixture
async def data(project: Project, platform: Platform) -> AsyncGenerator[Desk]:
    """All parts of the API that there are, on a project with the trap."""
    pool = await control(platform)

    def told(*_told: object) -> None:
        return

    async def open_database(_cluster: str, database: str) -> Any:
        return await project.tenants.as_service("schema-manager")(database)

    def add(api: Api, editors: Editors, _bus: MemoryBus) -> None:
        sets = ChangeSets(editors, Records(pool), lambda: None)
        console, transfer = Sql(Console(editors, open_database, told, told)), TransferApi(Imports(editors, told), Exports(editors))
        for part in (Tables(editors), RowsApi(Rows(editors, told)), Changes(sets), console, transfer, Histories(History(editors, told))):
            part.add_to(api)

    async with open_desk(project, add) as made:
        await (await Readers.of(project)).record(message("user_id:u1"))
        bot = await made.bot()
        await bot.execute(TRAP)
        await bot.execute("DELETE FROM notes")
        yield made


async def change(data: Desk, *changes: dict[str, Any]) -> Answer:
    return await data.ask("POST", "/changes", {"changes": list(changes), "force": True})


async def update(data: Desk) -> None:
    row = (await data.good("GET", data.path("trap", "/rows")))["items"][0]
    await data.good("PATCH", data.path("trap", "/rows"), {"key": row["key"], "version": row["version"], "values": {"e": "new"}})


async def delete_many(data: Desk) -> None:
    found = await data.good("POST", data.path("trap", "/rows/delete"), {})
    assert found["count"]
    await data.good("POST", data.path("trap", "/rows/delete"), {"expected": found["count"]})


async def undo(data: Desk) -> None:
    await data.good("POST", data.path("trap", "/rows"), {"rows": [{"c": "word", "d": 7}]})
    await data.good("PUT", data.path("trap", "/history"), {"enabled": True})
    await update(data)
    changes = (await data.good("GET", data.path("trap", "/history")))["items"]
    await data.good("POST", data.path("trap", f"/history/{changes[0]['id']}/undo"))


async def dump(data: Desk) -> None:
    cluster, login = data.project.tenants.cluster, data.project.names.login("editor")
    command = [
        programs() / "pg_dump",
        "-h",
        cluster.host,
        "-p",
        str(cluster.port),
        "-U",
        login,
        "-n",
        "public",
        "--enable-row-security",
        data.project.database,
    ]
    environment = {**os.environ, "PGPASSWORD": PASSWORD}
    done = await asyncio.to_thread(subprocess.run, command, env=environment, capture_output=True, check=False, timeout=30)
    assert done.returncode == 0, done.stderr.decode()


async def migration(data: Desk) -> None:
    project, now = data.project, system_migrations()
    cluster = ClusterAddress(host=project.tenants.cluster.host, port=project.tenants.cluster.port, password=SecretStr(PASSWORD))
    later = Migration(
        now[-1].number + 1,
        "pre",
        "later",
        "CREATE INDEX contacts_later__lq ON public.contacts (name)",
    )

    async def none(_target: Target, _inside: object) -> int:
        return 0

    shapes = ProjectShapes(opener({"tenants": cluster}), [*now, later], none, lambda: 0.0)
    assert isinstance(await shapes.bring_forward(Target("tenants", project.database, project.project_id)), Forward)
    root = await project.root()
    await root.execute("DROP INDEX public.contacts_later__lq")
    await root.execute("DELETE FROM loquat.migrations WHERE number = $1", later.number)


READS: Final[dict[str, Act]] = {
    "list": lambda d: d.good("GET", "/tables"),
    "describe": lambda d: d.good("GET", d.path("trap")),
    "browse": lambda d: d.good("GET", d.path("trap", "/rows")),
    "browse a view": lambda d: d.good("GET", d.path("glass", "/rows")),
    "browse a view of contacts": lambda d: d.good("GET", d.path("reading", "/rows")),
    "browse behind a fence": lambda d: d.good("GET", d.path("fence", "/rows")),
    "filter": lambda d: d.good("POST", d.path("trap", "/query"), {"filter": {"column": "e", "op": "eq", "value": "1"}, "count": True, "search": "word"}),
    "export": lambda d: d.ask("GET", d.path("trap", "/export")),
    "export from behind a fence": lambda d: d.ask("GET", d.path("fence", "/export")),
    "insert into a view with a rule": lambda d: d.ask("POST", d.path("glass", "/rows"), {"rows": [{"e": "x"}]}),
    "dump": dump,
    "migration": migration,
}  # fmt: skip
"""They note nothing: a read-only transaction cannot, and there the trap raises an error if it can climb; or they touch no row."""
WRITES: Final[dict[str, Act]] = {
    "insert": lambda d: d.good("POST", d.path("trap", "/rows"), {"rows": [{"c": "word", "d": 7}]}),
    "insert behind a fence": lambda d: d.good("POST", d.path("fence", "/rows"), {"rows": [{"e": "z"}]}),
    "upsert": lambda d: d.good("POST", d.path("trap", "/rows/upsert"), {"rows": [{"id": 1, "e": "x"}], "on": ["id"]}),
    "update": update,
    "import": lambda d: d.ask("POST", d.path("trap", "/import"), raw=b"c,d\nword,1\nword,2\n", kind="text/csv"),
    "import line by line": lambda d: d.ask("POST", d.path("trap", "/import"), raw=b"c,d\nword,1\nword,x\n", kind="text/csv", mode="best_effort"),
    "console": lambda d: d.good("POST", "/sql", {"sql": "UPDATE trap SET e = 'x'", "read_only": False}),
    "delete": lambda d: d.good("DELETE", d.path("trap", "/rows"), {"key": {"id": 1}}),
    "delete many": delete_many,
    "history and undo": undo,
}  # fmt: skip
SHAPES: Final[dict[str, Act]] = {
    "another type": lambda d: change(d, {"change": "alter_type", "table": "trap", "column": "h", "type": "integer"}),
    "clear": lambda d: change(d, {"change": "clear_table", "table": "trap"}),
}


@pytest.mark.parametrize(
    ("acts", "notes_something"), [(READS, False), (WRITES, True), (SHAPES, True)], ids=["reads", "writes", "changes of shape"]
)
async def test_nothing_of_a_tenants_runs_as_the_platform(data: Desk, acts: dict[str, Act], notes_something: bool) -> None:
    project, root = data.project, await data.project.root()
    theirs = {project.names.owner, project.names.login("editor")}
    for name, act in acts.items():
        before = (await root.fetchval(FINGERPRINT), await root.fetchval(WIDE))
        await act(data)
        notes = await root.fetch(NOTES)
        assert {n["who"] for n in notes} | {n["login"] for n in notes} <= theirs, name
        assert not [n for n in notes if n["climbed"]], name
        assert bool(notes) is notes_something, f"{name}: {len(notes)} notes"
        assert (await root.fetchval(FINGERPRINT), await root.fetchval(WIDE)) == before, name
        await root.execute("TRUNCATE public.notes")


async def test_the_trap_notes_whoever_could_climb(data: Desk) -> None:
    """The test of the test: as the superuser, whom no service is, the same code climbs."""
    root = await data.project.root()
    await root.execute("BEGIN; INSERT INTO public.trap (e) VALUES ('x')")
    notes = await root.fetch(NOTES)
    await root.execute("ROLLBACK")
    assert "postgres" in {n["login"] for n in notes}
    assert [n for n in notes if n["climbed"]]
