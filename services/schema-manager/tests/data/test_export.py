"""Export over real HTTP."""

from __future__ import annotations

import csv
import io
from collections.abc import AsyncGenerator
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.http.transfer import TransferApi

from tests.desk import Desk, open_desk
from tests.system.world import until
from tests.tenants import Desk as Readers
from tests.tenants import Project, message

TABLE = "CREATE TABLE things (id bigint PRIMARY KEY, name text, n integer, price numeric(10,2), ok boolean, day date, at timestamptz, ref uuid, extra jsonb)"
ROWS = (
    "INSERT INTO things VALUES (1, 'a,\"b\"' || chr(10) || 'c;\\', 2, 1.50, true, '2026-01-31', '2026-01-31 10:00:00.5+02',"
    " '0198f0c2-0000-7000-8000-000000000001', '{\"k\": \"\\u0001\\n\\\"\"}'), (2, '', NULL, NULL, false, NULL, NULL, NULL, NULL), (3, NULL, 0, 0, NULL, NULL, NULL, NULL, '[]')"
)


@pytest.fixture
async def data(project: Project) -> AsyncGenerator[Desk]:
    def changed(*_told: object) -> None:
        return

    async with open_desk(project, lambda api, editors, _bus: TransferApi(Imports(editors, changed), Exports(editors)).add_to(api)) as made:
        bot = await made.bot()
        await bot.execute(TABLE)
        await bot.execute(ROWS)
        yield made


async def export(data: Desk, table: str = "things", **query: Any) -> bytes:
    answer = await data.ask("GET", data.path(table, "/export"), **query)
    assert answer.status == 200, answer.body
    return answer.body


async def test_csv_tells_null_from_empty_and_quotes_what_it_must(data: Desk) -> None:
    text = (await export(data)).decode()
    rows = list(csv.reader(io.StringIO(text, newline="")))
    assert rows[0] == ["id", "name", "n", "price", "ok", "day", "at", "ref", "extra"]
    assert rows[1][:7] == ["1", 'a,"b"\nc;\\', "2", "1.50", "true", "2026-01-31", "2026-01-31 08:00:00.5+00"]
    assert text.splitlines()[-2:] == ['2,"",,,false,,,,', "3,,0,0.00,,,,,[]"]


async def test_jsonl_has_an_object_per_row_with_the_values_of_the_api(data: Desk) -> None:
    rows = [orjson.loads(line) for line in (await export(data, format="jsonl")).splitlines()]
    assert rows[0] == {
        "id": "1", "name": 'a,"b"\nc;\\', "n": 2, "price": "1.50", "ok": True, "day": "2026-01-31", "at": "2026-01-31T08:00:00.5+00:00",
        "ref": "0198f0c2-0000-7000-8000-000000000001", "extra": {"k": '\x01\n"'},
    }  # fmt: skip
    assert [r["id"] for r in rows] == ["1", "2", "3"]


@pytest.mark.parametrize(("kind", "media"), [("csv", "text/csv"), ("jsonl", "application/x-ndjson")])
async def test_what_was_exported_can_be_imported_and_is_the_same(data: Desk, kind: str, media: str) -> None:
    bot = await data.bot()
    before = await bot.fetch("SELECT * FROM things ORDER BY id")
    file = await export(data, format=kind)
    await bot.execute("TRUNCATE things")
    answer = await data.ask("POST", "/tables/things/import", raw=file, kind=media)
    assert answer.json == {"inserted": 3, "bad": 0, "bad_lines": [], "stopped_at_line": None}
    assert await bot.fetch("SELECT * FROM things ORDER BY id") == before


@pytest.mark.parametrize(("kind", "media", "null"), [("csv", "text/csv", "null"), ("jsonl", "application/x-ndjson", None)])
async def test_a_null_of_json_stays_one_by_csv_and_becomes_one_of_sql_by_jsonl(data: Desk, kind: str, media: str, null: str | None) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE nulls (id integer, extra jsonb); INSERT INTO nulls VALUES (1, 'null'), (2, NULL)")
    file = await export(data, "nulls", format=kind)
    await bot.execute("TRUNCATE nulls")
    assert (await data.ask("POST", "/tables/nulls/import", raw=file, kind=media)).json["inserted"] == 2
    assert [r[0] for r in await bot.fetch("SELECT extra::text FROM nulls ORDER BY id")] == [null, None]


@pytest.mark.parametrize("table", ["contacts", "conversations", "messages"])
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
async def test_system_tables_and_views_are_exported_too(data: Desk, project: Project, table: str, kind: str) -> None:
    await (await Readers.of(project)).record(message("phone:+491", text='"\\ ☃', raw='{"t": "\\u0000"}'))
    await (await data.bot()).execute("CREATE VIEW v AS SELECT 1 AS one")
    assert len((await export(data, table, format=kind)).splitlines()) == (2 if kind == "csv" else 1)
    assert await export(data, "v", format=kind) == (b"one\n1\n" if kind == "csv" else b'{"one":1}\n')


async def test_a_spreadsheet_runs_nothing_of_a_file_that_was_made_for_it(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute('CREATE TABLE f ("=x" text, n integer)')
    await bot.execute("INSERT INTO f VALUES ('=1+1', -5), ('@SUM(1)', 1), ('-1', 1), ('+1', 1), (E'\\t=1', 1), ('a=1', 1), (NULL, 1)")
    rows = list(csv.reader(io.StringIO((await export(data, "f", for_spreadsheet="true")).decode(), newline="")))
    assert [r[0] for r in rows] == ["'=x", "'=1+1", "'@SUM(1)", "'-1", "'+1", "'\t=1", "a=1", ""]
    assert rows[1][1] == "-5"
    assert b"\n=1+1,-5\n" in await export(data, "f")


@pytest.mark.parametrize("name", ["=" + "é" * 31, "=" + "x" * 62, "-☃"])
async def test_a_header_for_a_spreadsheet_is_no_longer_than_a_name_may_be(data: Desk, name: str) -> None:
    await (await data.bot()).execute(f'CREATE TABLE f ("{name}" text, "{name[:9]}n" integer)')
    header = (await export(data, "f", for_spreadsheet="true")).decode().strip().split(",")
    assert header == [("'" + name).encode()[:63].decode(errors="ignore"), f"'{name[:9]}n"]


async def test_some_columns_and_another_delimiter(data: Desk) -> None:
    assert (await export(data, columns="n", delimiter="tab")) == b"n\n2\n\n0\n"
    assert (await export(data, columns="id", format="jsonl")).splitlines()[0] == b'{"id":"1"}'
    await data.bad("GET", "/tables/things/export", columns="none", status=422, code="unknown_column")
    await data.bad("GET", "/tables/none/export", status=404, code="not_found")
    await data.bad("GET", "/tables/things/export", format="xml", status=422, code="invalid_request")


async def test_an_empty_table_is_a_file_too(data: Desk) -> None:
    await (await data.bot()).execute("TRUNCATE things")
    assert await export(data, format="jsonl") == b""
    assert await export(data, columns="id") == b"id\n"


async def test_an_export_that_fails_before_its_first_piece_is_a_problem(data: Desk) -> None:
    await (await data.bot()).execute("CREATE VIEW broken AS SELECT 1 / 0 AS x")
    await data.bad("GET", "/tables/broken/export", format="jsonl", status=422, code="wrong_value")


async def test_an_export_that_fails_behind_its_first_piece_does_not_end_as_if_it_were_whole(data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE VIEW breaks AS SELECT repeat('x', 100) AS x, 1 / (50000 - n) AS y FROM generate_series(1, 60000) AS n"
    )
    with pytest.raises(aiohttp.ClientError):
        await data.ask("GET", "/tables/breaks/export")
    assert await export(data, columns="id")  # the connection it used is clean


async def test_a_reader_that_leaves_in_the_middle_holds_nothing(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE large AS SELECT repeat('x', 1000) AS x FROM generate_series(1, 100000)")
    async with data.http.get(f"{data.base}/tables/large/export") as response:
        assert await response.content.read(10_000)
        response.close()

    async def free() -> bool:
        try:
            await bot.execute("SET lock_timeout = '100ms'; DROP TABLE large")
        except asyncpg.LockNotAvailableError:
            return False
        return True

    await until(free, "the export lets go of its table")
