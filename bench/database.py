"""Rows by the API against the same done by a bare asyncpg connection: first page, import, export. The API is a process of its own.

`python -m bench.database HOST PORT DATABASE PROJECT` is that process: the schema-manager's own code, as in tests, without the gateway in front.
"""

from __future__ import annotations

import asyncio
import io
import statistics
import sys
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import aiohttp
import asyncpg
import orjson
import uvloop
from aiohttp import web
from loquat_common.lifecycle import Server
from loquat_provisioner.domain.life import Names
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.transfer import TransferApi

from tests.desk import open_desk
from tests.tenants import PASSWORD, Project, open_tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

ROWS, IMPORTED, PAGES, ROUNDS = 1_000_000, 100_000, 200, 5
TABLE = "CREATE TABLE {name} (id bigint PRIMARY KEY, guest text, email text, seats integer, price numeric(10,2), paid boolean, at timestamptz, ref uuid)"
FILL = (
    "INSERT INTO big SELECT n, 'guest ' || n, 'guest' || n || '@example.org', n % 10, n / 100.0, n % 2 = 0, timestamptz '2026-01-01' + n * interval '1 second',"
    " gen_random_uuid() FROM generate_series($1::int, $2::int) AS n"
)

Timed = Callable[[], Awaitable[object]]


async def database() -> None:
    """Goals: the page within 2 times, import and export at least 0.5 of COPY, an export under 100 MB."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        tenants = await open_tenants(home / "tenants", durable=True)
        project = await tenants.project()
        editor, root = await project.login("editor"), await project.root()
        await editor.execute(TABLE.format(name="big"))
        for start in range(0, ROWS, 100_000):
            await editor.execute(FILL, start + 1, start + 100_000)
        await editor.execute("CREATE INDEX ON big (at)")
        await root.execute("VACUUM ANALYZE big")
        async with _api(project) as (http, pid, port):
            for limit in (100, 500):
                await _pages(editor, http, port, limit)
            await _imports(editor, http)
            await _exports(editor, http, pid)
        await tenants.drop(project)
        await tenants.close()


async def _pages(editor: Connection, http: aiohttp.ClientSession, port: int, limit: int) -> None:
    """Against the query alone, and against a bare handler in the same process: an open connection, `SELECT *`, orjson."""
    query = f"SELECT * FROM big ORDER BY at DESC LIMIT {limit}"  # noqa: S608  (a constant)

    async def alone() -> None:
        await editor.fetch(query)

    async def bare() -> None:
        await _asked(http, "GET", f"http://127.0.0.1:{port}/bare", params={"limit": limit})

    async def ours() -> None:
        await _asked(http, "POST", "tables/big/query", json={"sort": [{"column": "at", "direction": "desc"}], "limit": limit})

    times = await _interleaved(PAGES, alone, bare, ours)
    of_query, of_handler, page = (statistics.median(t) * 1000 for t in times)
    print(
        f"first page of {limit} of {ROWS:,} rows by an indexed column: {page:.2f} ms: {page / of_handler:.2f} times a bare handler of the same query"
        f" ({of_handler:.2f} ms; goal 2), {page / of_query:.1f} times the query alone, prepared, without HTTP ({of_query:.2f} ms)"
    )


async def _imports(editor: Connection, http: aiohttp.ClientSession) -> None:
    await editor.execute(TABLE.format(name="small"))
    file = io.BytesIO()
    query = f"SELECT * FROM big WHERE id <= {IMPORTED}"  # noqa: S608  (a constant)
    await editor.copy_from_query(query, output=file, format="csv", header=True)
    raw, records = file.getvalue(), [tuple(r) for r in await editor.fetch(query)]

    async def binary() -> None:
        await editor.copy_records_to_table("small", records=records)

    async def bare() -> None:
        await editor.copy_to_table("small", source=io.BytesIO(raw), format="csv", header=True)

    async def ours() -> None:
        await _asked(http, "POST", "tables/small/import", data=io.BytesIO(raw), headers={"Content-Type": "text/csv"})

    async def clear() -> None:
        await editor.execute("TRUNCATE small")

    times = await _interleaved(ROUNDS, binary, bare, ours, before=clear)
    of_records, of_text, mine = (statistics.median(t) for t in times)
    print(
        f"import of {IMPORTED:,} rows, {len(raw) / 1e6:.0f} MB of CSV: {of_text / mine:.2f} of asyncpg's COPY of the same file, {of_records / mine:.2f} of its"
        f" COPY of records (goal 0.5); {IMPORTED / mine:,.0f} rows per second"
    )


async def _exports(editor: Connection, http: aiohttp.ClientSession, pid: int) -> None:
    async def drop(_piece: bytes) -> None:
        return

    async def bare() -> None:
        await editor.copy_from_table("big", output=drop, format="csv")

    def ours(kind: str) -> Timed:
        async def run() -> None:
            await _asked(http, "GET", f"tables/big/export?format={kind}")

        return run

    before = _peak(pid)
    times = await _interleaved(3, bare, ours("csv"), ours("jsonl"))
    base, csv, jsonl = (statistics.median(t) for t in times)
    print(
        f"export of {ROWS:,} rows: CSV {base / csv:.2f}, JSONL {base / jsonl:.2f} of asyncpg's COPY TO as CSV (goal 0.5); {ROWS / csv:,.0f} rows per second;"
        f" peak memory of the process {_peak(pid):.0f} MB, {before:.0f} MB before (goal 100)"
    )


async def _interleaved(rounds: int, *kinds: Timed, before: Timed | None = None) -> list[list[float]]:
    """Seconds of each, round by round."""
    times: list[list[float]] = [[] for _ in kinds]
    for _ in range(rounds):
        for kind, taken in zip(kinds, times, strict=True):
            if before is not None:
                await before()
            began = time.perf_counter()
            await kind()
            taken.append(time.perf_counter() - began)
    return times


async def _asked(http: aiohttp.ClientSession, method: str, path: str, **more: Any) -> None:
    async with http.request(method, path, **more) as response:
        async for _ in response.content.iter_any():
            pass
        assert response.status < 500, f"{path}: {response.status}"


def _peak(pid: int) -> float:
    """Megabytes that the process had in memory at most."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


@asynccontextmanager
async def _api(project: Project) -> AsyncGenerator[tuple[aiohttp.ClientSession, int, int]]:
    cluster = project.tenants.cluster
    arguments = [cluster.host, str(cluster.port), project.database, project.project_id]
    process = await asyncio.create_subprocess_exec(sys.executable, "-m", "bench.database", *arguments, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    base, port = (await process.stdout.readline()).decode().split()
    async with aiohttp.ClientSession(base_url=base + "/", timeout=aiohttp.ClientTimeout(total=None)) as http:
        yield http, process.pid, int(port)
    process.kill()
    await process.wait()


async def _serve(host: str, port: str, database_name: str, project_id: str) -> None:
    place: Any = SimpleNamespace(
        tenants=SimpleNamespace(cluster=SimpleNamespace(host=host, port=int(port))),
        names=Names(database_name),
        database=database_name,
        project_id=project_id,
    )

    def changed(*_told: object) -> None:
        return

    def add(api: Any, editors: Any, _bus: object) -> None:
        RowsApi(Rows(editors, changed)).add_to(api)
        TransferApi(Imports(editors, changed), Exports(editors)).add_to(api)

    connection = await asyncpg.connect(
        host=host, port=int(port), database=database_name, user=place.names.login("editor"), password=PASSWORD
    )

    async def bare(request: web.Request) -> web.Response:
        rows = await connection.fetch(f"SELECT * FROM big ORDER BY at DESC LIMIT {int(request.query['limit'])}")  # noqa: S608  (a number)
        return web.Response(body=orjson.dumps([dict(r) for r in rows], default=str), content_type="application/json")

    plain = web.Application()
    plain.router.add_get("/bare", bare)
    beside = Server(plain, "127.0.0.1", 0)
    await beside.start()
    async with open_desk(place, add) as desk:
        print(desk.base, beside.port, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(_serve(*sys.argv[1:]))
