"""Columns: their types exactly, values that cast and values that do not, links, defaults."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import pytest
from loquat_common.sql import Ident
from loquat_schema_manager.domain.casts import cast_of
from loquat_schema_manager.domain.columns import parse

from tests.changing import Workshop, control, open_workshop
from tests.tenants import Desk as Readers
from tests.tenants import Project, message

if TYPE_CHECKING:
    from conftest import Platform

TYPES = [
    "text",
    "varchar(4)",
    "varchar(40)",
    "integer",
    "bigint",
    "numeric(6,2)",
    "numeric(20,0)",
    "boolean",
    "date",
    "timestamptz",
    "uuid",
    "jsonb",
]
VALUES: dict[str, list[str]] = {
    "text": ["", "7", "07", "a", "1.5", "1.50", "99999999999", "true", "2026-01-31", "2026-01-31 12:00:00+00", str(uuid4()), '{"a": 1}', "\u00e9" * 5, "NaN", "1e3"],
    "varchar": ["", "7", "abcd", "1.25", "true"],
    "integer": ["0", "-1", "1", "2147483647", "20260131"],
    "bigint": ["0", "7", "9223372036854775807", "-2147483649"],
    "numeric": ["0", "7", "1234", "-5", "NaN"],
    "boolean": ["true", "false"],
    "date": ["2026-01-31", "0001-01-01", "infinity"],
    "timestamptz": ["2026-01-31 00:00:00+00", "2026-01-31 12:34:56.789+02", "infinity"],
    "uuid": [str(uuid4())],
    "jsonb": ["1", "1.5", '"x"', "null", '{"a": [1]}', "true"],
}  # fmt: skip

WRONG_TYPES = [
    "", "int", "varchar", "varchar(0)", "varchar(10485761)", "numeric", "numeric(5)", "numeric(0,0)", "numeric(1001,0)", "numeric(5,6)", "text(5)",
    "json", "point", "contacts", "text; DROP TABLE x", "text[]", "uuid DEFAULT now()", "\u0456nteger", "numeric(-1,0)", "serial(1)", "bigserial",
]  # fmt: skip
WRONG_DEFAULTS: list[tuple[str, Any]] = [
    ("integer", 2**31), ("integer", "x"), ("integer", True), ("integer", 1.5), ("bigint", 2**63), ("numeric(4,2)", 100), ("numeric(4,2)", "0.001"),
    ("numeric(4,2)", "NaN"), ("boolean", "yes"), ("date", "yesterday"), ("date", "2026-02-30"), ("timestamptz", "2026-01-01T00:00:00"), ("uuid", "7"),
    ("varchar(3)", "abcd"), ("text", 7), ("serial", 1),
]  # fmt: skip
DEFAULTS: list[tuple[str, Any, str | None]] = [
    ("integer", -7, "-7"), ("bigint", "9223372036854775807", "9223372036854775807"), ("numeric(6,2)", "1.50", "1.50"), ("boolean", False, "false"),
    ("date", "2026-01-31", "2026-01-31"), ("uuid", "{00000000-0000-0000-0000-000000000007}", "00000000-0000-0000-0000-000000000007"),
    ("timestamptz", "2026-01-31T12:00:00+02:00", "2026-01-31 10:00:00+00"), ("text", "o'clock \\ {n}", "o'clock \\ {n}"), ("jsonb", None, "null"),
    ("jsonb", [1, {"a": "b"}], '[1, {"a": "b"}]'), ("text", None, None),
    ("jsonb", "é", '"é"'),
]  # fmt: skip


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform)) as made:
        yield made


async def test_every_type_is_made_and_described_in_the_same_words(shop: Workshop) -> None:
    wanted = [*TYPES, "serial", "numeric(1000,1000)", "varchar(10485760)"]
    columns = [{"name": f"c{n}", "type": t} for n, t in enumerate(wanted)]
    await shop.change({"change": "create_table", "name": "t", "id": "none", "columns": columns})
    seen = (await shop.table("t"))["columns"]
    assert [c["type"] for c in seen] == wanted
    assert all(c["settable"] for c in seen)


async def test_what_is_no_type_of_the_list_is_refused_and_the_place_named(shop: Workshop) -> None:
    for wrong in WRONG_TYPES:
        change = {"change": "create_table", "name": "t", "columns": [{"name": "c", "type": wrong}]}
        problem = await shop.refused(change, status=422, code="unknown_type")
        assert (problem["field"], problem["change"]) == ("columns.0.type", 0), wrong


@pytest.mark.parametrize("old", TYPES)
async def test_a_type_changes_where_all_values_cast_and_keeps_them_else_the_bad_ones_are_counted(shop: Workshop, old: str) -> None:
    """Against the server itself: what `fits` says of each value is what happens to it, and nothing is ever cut or rounded unasked."""
    bot = await shop.desk.bot()
    values = VALUES[old.partition("(")[0]]
    for new in TYPES:
        await bot.execute(f"DROP TABLE IF EXISTS t; CREATE TABLE t (n int, c {old})")
        for n, value in enumerate(v for v in values if old != "varchar(4)" or len(v) <= 4):
            await bot.execute(f"INSERT INTO t VALUES ({n}, $1::text::{old})", value)  # noqa: S608  (the test's own)
        cast = cast_of(Ident("c"), parse(old), parse(new), lossy=False)
        fitting = await bot.fetch(f"SELECT n, c::text AS before, ({cast.using})::text AS after FROM t WHERE {cast.fits}")  # noqa: S608  (the test's own)
        unfit = await bot.fetchval(f"SELECT count(*) FROM t WHERE NOT ({cast.fits})")  # noqa: S608  (the test's own)
        change = {"change": "alter_type", "table": "t", "column": "c", "type": new}
        if unfit:
            problem = await shop.refused(change, status=409, code="does_not_cast")
            assert (problem["rows"], problem["column"], len(problem["sample"])) == (unfit, "c", min(unfit, 3)), (old, new)
            await bot.execute(f"DELETE FROM t WHERE NOT ({cast.fits})")  # noqa: S608  (the test's own)
        made = await shop.change(change)
        assert {r["n"]: r["c"] for r in await bot.fetch("SELECT n, c::text FROM t")} == {r["n"]: r["after"] for r in fitting}, (old, new)
        if made["reverse"] is not None:
            await shop.desk.good("POST", f"/changes/{made['id']}/revert", {})
            assert {r["n"]: r["c"] for r in await bot.fetch("SELECT n, c::text FROM t")} == {r["n"]: r["before"] for r in fitting}, (
                old,
                new,
            )


async def test_digits_and_text_are_lost_only_when_that_is_wanted(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE t (a numeric, b text, c timestamptz); INSERT INTO t VALUES (1.6, 'abcdef', '2026-01-31 12:00Z'), (7, 'abc', NULL)"
    )
    for column, kind, sample in (
        ("a", "integer", "1.6"),
        ("a", "numeric(3,0)", "1.6"),
        ("b", "varchar(3)", "abcdef"),
        ("c", "date", "2026-01-31 12:00:00+00"),
    ):
        problem = await shop.refused(
            {"change": "alter_type", "table": "t", "column": column, "type": kind}, status=409, code="does_not_cast"
        )
        assert (problem["rows"], problem["sample"]) == (1, [sample])
    lossy = [
        {"change": "alter_type", "table": "t", "column": c, "type": t, "lossy": True}
        for c, t in (("a", "integer"), ("b", "varchar(3)"), ("c", "date"))
    ]
    made = await shop.change(*lossy)
    assert made["reverse"] is None
    assert [tuple(map(str, r)) for r in await bot.fetch("SELECT * FROM t")] == [("2", "abc", "2026-01-31"), ("7", "abc", "None")]


async def test_a_default_is_cast_with_its_column_and_comes_back_with_it(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute("CREATE TABLE t (a int DEFAULT 7, b boolean DEFAULT true, c text DEFAULT 'x')")
    made = await shop.change(
        {"change": "alter_type", "table": "t", "column": "a", "type": "text"},
        {"change": "alter_type", "table": "t", "column": "b", "type": "integer"},
        {"change": "alter_type", "table": "t", "column": "c", "type": "varchar(9)"},
    )
    problem = await shop.dry({"change": "alter_type", "table": "t", "column": "c", "type": "uuid"})
    assert [f["code"] for f in problem["failures"]] == ["does_not_cast"]
    row = await bot.fetchrow("INSERT INTO t DEFAULT VALUES RETURNING a, b, c")
    assert row is not None
    assert tuple(row) == ("7", 1, "x")
    await shop.desk.good("POST", f"/changes/{made['id']}/revert", {})
    assert [c["default"] for c in (await shop.table("t"))["columns"]] == ["7", "true", "'x'::text"]


async def test_a_default_that_is_none_of_its_type_is_refused_with_what_is_wrong_with_it(shop: Workshop) -> None:
    for kind, value in WRONG_DEFAULTS:
        change = {"change": "create_table", "name": "t", "columns": [{"name": "c", "type": kind, "default": {"value": value}}]}
        (failure,) = (await shop.dry(change))["failures"]
        assert failure["code"] in {"wrong_type", "wrong_value", "sql_error"}, (kind, value)
        assert failure["detail"], (kind, value)


async def test_a_default_with_a_nul_character_is_refused_with_its_place(shop: Workshop) -> None:
    for kind, value, place in (("text", "a\0b", ""), ("jsonb", {"a": "\0"}, ".a")):
        change = {"change": "create_table", "name": "t", "columns": [{"name": "c", "type": kind, "default": {"value": value}}]}
        problem = await shop.refused(change, status=422, code="invalid_request")
        assert problem["detail"] == f"body.changes.0.columns.0.default.value{place} has a NUL character"


async def test_a_default_of_json_may_be_a_number_of_any_size(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute("CREATE TABLE t (id int)")
    change = b'{"change":"add_column","table":"t","column":{"name":"c","type":"jsonb","default":{"value":[123456789012345678901234]}}}'
    answer = await shop.desk.ask("POST", "/changes", raw=b'{"changes":[' + change + b"]}")
    assert answer.status == 200, answer.body
    assert await bot.fetchval("INSERT INTO t DEFAULT VALUES RETURNING c::text") == "[123456789012345678901234]"
    assert await shop.pool.fetchval("SELECT changes #>> '{0,column,default,value,0}' FROM change_sets") == "123456789012345678901234"


async def test_a_default_is_the_value_that_was_given(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    for kind, value, stored in DEFAULTS:
        await shop.change({"change": "create_table", "name": "t", "columns": [{"name": "c", "type": kind, "default": {"value": value}}]})
        assert await bot.fetchval("INSERT INTO t DEFAULT VALUES RETURNING c::text") == stored, (kind, value)
        await bot.execute("DROP TABLE t")


async def test_a_link_column_is_shown_checked_when_marked_and_keeps_its_comment(shop: Workshop, project: Project) -> None:
    readers = await Readers.of(project)
    await readers.record(message("phone:+49"))
    bot = await shop.desk.bot()
    contact = await bot.fetchval("SELECT id FROM contacts")
    await bot.execute("CREATE TABLE notes (who uuid, what text); COMMENT ON COLUMN notes.who IS 'about whom'")
    await bot.execute("INSERT INTO notes (who) SELECT unnest($1::uuid[])", [contact, stray := uuid4(), None])
    mark = {"change": "set_link", "table": "notes", "column": "who", "link": "contact"}
    problem = await shop.refused(mark, status=409, code="foreign_key")
    assert (problem["rows"], problem["sample"]) == (1, [str(stray)])
    await bot.execute("DELETE FROM notes WHERE who = $1", stray)
    made = await shop.change(mark, {"change": "rename_column", "table": "notes", "column": "who", "to": "contact"})
    seen = await shop.column("notes", "contact")
    assert (seen["link"], seen["comment"]) == ("contact", "about whom")
    await shop.change({"change": "comment_column", "table": "notes", "column": "contact", "comment": None})
    assert (await shop.column("notes", "contact"))["link"] == "contact"
    assert [i["columns"] for i in (await shop.table("notes"))["indexes"]] == [["contact"]]
    await shop.refused({**mark, "column": "what"}, status=422, code="wrong_type")
    assert made["reverse"] is not None


async def test_a_link_that_the_bots_own_sql_marks_is_one(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE notes (m uuid, n text); COMMENT ON COLUMN notes.m IS 'loquat:link=message'; COMMENT ON COLUMN notes.n IS 'loquat:link=message'"
    )
    assert [c["link"] for c in (await shop.table("notes"))["columns"]] == ["message", None]
    await shop.refused(
        {"change": "comment_column", "table": "notes", "column": "n", "comment": "loquat:link=contact"}, status=422, code="reserved"
    )


async def test_a_column_is_patched_in_one_set(shop: Workshop) -> None:
    await shop.change({"change": "create_table", "name": "t", "columns": [{"name": "a", "type": "text"}]})
    patch = {"type": "varchar(9)", "default": {"value": "x"}, "nullable": False, "unique": True, "comment": "one", "name": "b"}
    made = await shop.desk.good("PATCH", shop.desk.path("t", "/columns/a"), patch)
    assert len(made["statements"]) == 6
    seen = await shop.column("t", "b")
    assert {k: seen[k] for k in ("type", "default", "nullable", "unique", "comment")} == {
        "type": "varchar(9)", "default": "'x'::character varying(9)", "nullable": False, "unique": True, "comment": "one",
    }  # fmt: skip
    await shop.desk.bad("PATCH", shop.desk.path("t", "/columns/b"), {}, status=422, code="invalid_request")
    await shop.desk.good("DELETE", shop.desk.path("t", "/columns/b"))
    await shop.desk.bad("DELETE", shop.desk.path("t", "/columns/b"), status=404, code="unknown_column")
