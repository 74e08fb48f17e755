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
from loquat_common.sql import Ident
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.relations import find
from loquat_schema_manager.domain.values import shown
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


_KINDS = """
  a text, "b""\\ '" varchar(80), "c\x01\x02\x7f☃\t\n,}" char(5), d smallint, e integer, f bigint, g numeric, h real, i double precision, j boolean, k date, l timestamptz,
  m timestamp, n time, o interval, p uuid, q json, r jsonb, s bytea, t inet, u int[], v mood, w pair, x rough, y oid, z text"""
_HOSTILE = """
INSERT INTO odd SELECT n.t, n.t, 'null', n.i, n.i, n.b, n.g, n.h, n.h, n.i > 0, n.at, n.at, n.at, '24:00', '-1 mons +2 days', '0198f0c2-0000-7000-8000-000000000001',
  '{"k" :
"\\u0001"}', n.j, '\\x01025c22', '::1', '{1,NULL}', 'n"u\\l', ROW(n.i, n.t)::pair, n.t, 7, 'null' FROM (VALUES
  (E'a"\\\\b\\n\\r\\t\\x01\\x02\\x0b\\x7f☃\\U0001F600,}', 1, 9223372036854775807, 'NaN'::numeric, 'Infinity'::float8, 'infinity'::timestamptz, 'null'::jsonb),
  ('null', -32768, -9223372036854775808, '-Infinity', '-0', '-infinity', '"null"'), ('', 0, 0, 1e-20, 1e38, '4713-01-01 BC', '{"a": {"b": [1.10, 1e400, null, "\\u001f\\\\\\""]}}'),
  ('\\.', 5, 5, 12345678901234567890.1200, 'NaN', '2026-01-31 10:00:00.000001+02', '[]')) AS n(t, i, b, g, h, at, j)"""
_PLAINLY = "SELECT pg_catalog.row_to_json(r.*)::pg_catalog.text FROM (SELECT {columns} FROM {table} AS t) AS r"


async def test_jsonl_is_byte_for_byte_what_postgres_own_function_for_rows_writes(data: Desk) -> None:
    bot, editor = await data.bot(), await data.project.login("editor")
    await bot.execute("CREATE TYPE mood AS ENUM ('n\"u\\l'); CREATE TYPE pair AS (a int, b text); CREATE DOMAIN rough AS text")
    await bot.execute(f"CREATE TABLE odd ({_KINDS}); CREATE TABLE nothing (); INSERT INTO nothing DEFAULT VALUES")
    await bot.execute(_HOSTILE)
    await bot.execute("INSERT INTO odd DEFAULT VALUES")
    await bot.execute(f"CREATE TABLE wide ({', '.join(f'c{n} boolean' for n in range(900))})")
    await bot.execute("INSERT INTO wide (c7) VALUES (true)")
    async with data.editors.session(data.project.project_id) as connection:
        relations = [await find(connection, table) for table in ("odd", "wide", "nothing")]
    await editor.execute("SET TimeZone = 'UTC'; SET IntervalStyle = 'iso_8601'")
    for relation in relations:
        columns = ", ".join(f"{shown(c, 't')} AS {Ident(c.name)}" for c in relation.columns)
        rows = await editor.fetch(_PLAINLY.format(columns=columns, table=relation.ident))
        assert await export(data, relation.name, format="jsonl") == "".join(f"{r[0]}\n" for r in rows).encode()


async def test_an_operator_or_cast_of_the_tenants_changes_no_byte_of_a_file(data: Desk) -> None:
    bot, before = await data.bot(), await export(data, format="jsonl")
    lies = "LANGUAGE sql IMMUTABLE RETURN 'lie'::text"
    await bot.execute(f"CREATE FUNCTION lie(text, text) RETURNS text {lies}; CREATE FUNCTION lie(text, jsonb) RETURNS text {lies}")
    await bot.execute(
        "CREATE OPERATOR || (LEFTARG = text, RIGHTARG = text, FUNCTION = lie); CREATE OPERATOR || (LEFTARG = text, RIGHTARG = jsonb, FUNCTION = lie)"
    )
    await bot.execute(f'CREATE FUNCTION "json_scalar"(text) RETURNS text {lies}; CREATE FUNCTION "text"(bigint) RETURNS text {lies}')
    assert await export(data, format="jsonl") == before


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


HARD = ["it's", 'say "no"', "back\\slash", "$1", "E'x'", "%_", "☃", "", "'; DROP TABLE things; --", "\\'; DROP TABLE things; --"]


@pytest.mark.parametrize(
    ("filter", "found"),
    [
        ({"column": "id", "op": "in", "value": ["1", "3"]}, "13"),
        ({"column": "id", "op": "in", "value": []}, ""),
        ({"column": "name", "op": "is_null"}, "3"),
        ({"and": [{"column": "price", "op": "gte", "value": "1"}, {"not": {"column": "n", "op": "eq", "value": 0}}]}, "1"),
        ({"column": "extra", "path": ["k"], "op": "not_null"}, "1"),
        ({"column": "extra", "op": "eq", "value": []}, "3"),
        ({"column": "at", "op": "lt", "value": "2026-01-31T08:00:01Z"}, "1"),
    ],
)
async def test_what_a_filter_finds_is_exported(data: Desk, filter: dict[str, Any], found: str) -> None:
    answer = await data.ask("POST", "/tables/things/export", {"filter": filter, "columns": ["id"], "format": "jsonl"})
    assert [orjson.loads(line)["id"] for line in answer.body.splitlines()] == list(found)
    answer = await data.ask("POST", "/tables/things/export", {"filter": filter, "columns": ["id"]})
    assert answer.body.split() == [b"id", *(c.encode() for c in found)]


@pytest.mark.parametrize("op", ["eq", "in", "like", "search"])
async def test_a_text_of_a_filter_is_that_text_whatever_it_says(data: Desk, op: str) -> None:
    bot = await data.bot()
    await bot.execute("""CREATE TABLE hard ("a$1'" text)""")
    await bot.executemany("INSERT INTO hard VALUES ($1)", [(t,) for t in HARD])
    for text in HARD:
        value: Any = [text] if op == "in" else text.replace("\\", "\\\\").replace("%_", "\\%\\_") if op == "like" else text
        wish = {"search": text or "x"} if op == "search" else {"filter": {"column": "a$1'", "op": op, "value": value}}
        answer = await data.ask("POST", "/tables/hard/export", {**wish, "format": "jsonl"})
        lines = [orjson.loads(line)["a$1'"] for line in answer.body.splitlines()]
        assert (answer.status, lines) == (200, [text]) or op == "search", (text, answer.body)
        assert answer.status == 200
    assert await bot.fetchval("SELECT count(*) FROM things") == 3


@pytest.mark.parametrize(
    ("wish", "code"),
    [
        ({"filter": {"column": "none", "op": "is_null"}}, "unknown_column"),
        ({"filter": {"column": "n", "op": "eq", "value": "x"}}, "wrong_type"),
        ({"filter": {"column": "day", "op": "eq", "value": "yesterdayish"}}, "wrong_type"),
        ({"filters": []}, "invalid_request"),
        ({"search": "\0"}, "invalid_request"),
    ],
)
async def test_a_filter_that_cannot_be_is_a_problem_and_no_file(data: Desk, wish: dict[str, Any], code: str) -> None:
    await data.bad("POST", "/tables/things/export", wish, status=422, code=code)


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
