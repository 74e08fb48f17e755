"""What a dry run says of locks and rewrites is what PostgreSQL does; what would take long is refused."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
from loquat_schema_manager.domain.steps import Bounds

from tests.changing import Workshop, control, open_workshop
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

SMALL = Bounds(rewrite_rows=100, scan_rows=200)
SCHEMA = """
CREATE TABLE parents (id uuid PRIMARY KEY DEFAULT uuidv7(), n int UNIQUE, m bigint UNIQUE);
CREATE TABLE t (id int PRIMARY KEY, a int, b text, c varchar(10) NOT NULL DEFAULT 'x', d numeric(6,2), u uuid, j jsonb, s serial,
                p uuid CONSTRAINT to_parent REFERENCES parents, q bigint REFERENCES parents (m), CONSTRAINT positive CHECK (a > 0));
CREATE INDEX t_b ON t (b);
CREATE TABLE keyless (a int);
INSERT INTO t (id, a, b, d) SELECT g, g, g::text, g FROM generate_series(1, 150) AS g"""
HELD = """
SELECT c.relname AS name, l.mode FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
WHERE l.pid = $1 AND l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
  AND c.relkind = 'r' AND c.relnamespace = 'public'::regnamespace"""
FILES = "SELECT relname AS name, relfilenode AS file FROM pg_class WHERE relname = ANY ($1)"
MODES = [
    "AccessShareLock", "RowShareLock", "RowExclusiveLock", "ShareUpdateExclusiveLock", "ShareLock", "ShareRowExclusiveLock", "ExclusiveLock",
    "AccessExclusiveLock",
]  # fmt: skip

CHANGES: list[dict[str, Any]] = [
    {"change": "create_table", "name": "fresh", "columns": [{"name": "t", "type": "integer", "references": {"table": "t"}}]},
    {"change": "rename_table", "table": "t", "to": "tt"},
    {"change": "drop_table", "table": "t"},
    {"change": "clear_table", "table": "t", "restart_serials": True},
    {"change": "comment_table", "table": "t", "comment": "x"},
    {"change": "add_column", "table": "t", "column": {"name": "new", "type": "text", "nullable": False, "default": {"value": "x"}}},
    {"change": "add_column", "table": "t", "column": {"name": "new", "type": "uuid", "default": {"function": "uuidv4"}}},
    {"change": "add_column", "table": "t", "column": {"name": "new", "type": "timestamptz", "default": {"function": "now"}}},
    {"change": "add_column", "table": "t", "column": {"name": "new", "type": "serial"}},
    {"change": "rename_column", "table": "t", "column": "a", "to": "aa"},
    {"change": "alter_type", "table": "t", "column": "a", "type": "bigint"},
    {"change": "alter_type", "table": "t", "column": "c", "type": "varchar(20)"},
    {"change": "alter_type", "table": "t", "column": "c", "type": "text"},
    {"change": "alter_type", "table": "t", "column": "c", "type": "varchar(5)"},
    {"change": "alter_type", "table": "t", "column": "b", "type": "varchar(5)"},
    {"change": "alter_type", "table": "t", "column": "b", "type": "integer"},
    {"change": "alter_type", "table": "t", "column": "d", "type": "numeric(8,2)"},
    {"change": "alter_type", "table": "t", "column": "d", "type": "numeric(8,3)"},
    {"change": "alter_type", "table": "t", "column": "d", "type": "integer"},
    {"change": "drop_column", "table": "t", "column": "b"},
    {"change": "drop_column", "table": "t", "column": "p"},
    {"change": "alter_type", "table": "t", "column": "q", "type": "integer"},
    {"change": "alter_type", "table": "parents", "column": "m", "type": "integer"},
    {"change": "set_default", "table": "t", "column": "a", "default": {"value": 1}},
    {"change": "set_not_null", "table": "t", "column": "a"},
    {"change": "set_not_null", "table": "t", "column": "c", "not_null": False},
    {"change": "comment_column", "table": "t", "column": "a", "comment": "x"},
    {"change": "set_link", "table": "t", "column": "u", "link": "contact"},
    {"change": "set_primary_key", "table": "keyless", "columns": ["a"]},
    {"change": "add_unique", "table": "t", "columns": ["a", "b"]},
    {"change": "add_foreign_key", "table": "t", "columns": ["a"], "to_table": "parents", "to_columns": ["n"], "on_delete": "set_null"},
    {"change": "drop_constraint", "table": "t", "constraint": "to_parent"},
    {"change": "drop_constraint", "table": "t", "constraint": "positive"},
    {"change": "drop_constraint", "table": "t", "constraint": "t_pkey"},
    {"change": "create_index", "table": "t", "columns": ["j"], "method": "gin"},
    {"change": "drop_index", "table": "t", "index": "t_b"},
]


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform), bounds=SMALL) as made:
        yield made


async def test_each_statement_takes_the_lock_and_rewrites_what_the_dry_run_says(shop: Workshop, project: Project) -> None:
    bot, root = await shop.desk.bot(), await project.root()
    await bot.execute(SCHEMA)
    await bot.execute("INSERT INTO parents (n) SELECT a FROM t")
    pid = bot.get_server_pid()
    for change in CHANGES:
        tried = await shop.dry(change, force=True)
        assert tried["failures"] == [], change
        for n, statement in enumerate(tried["statements"]):
            transaction = bot.transaction()
            await transaction.start()
            for before in tried["statements"][:n]:
                await bot.execute(before["sql"])
            held = {(r["name"], r["mode"]) for r in await root.fetch(HELD, pid)}
            files = {r["name"]: r["file"] for r in await bot.fetch(FILES, statement["tables"])}
            await bot.execute(statement["sql"])
            taken = {(r["name"], r["mode"]) for r in await root.fetch(HELD, pid)} - held
            after = {r["name"]: r["file"] for r in await bot.fetch(FILES, statement["tables"])}
            await transaction.rollback()
            said = statement["lock"] and statement["lock"].title().replace(" ", "") + "Lock"
            strongest = max((MODES.index(m) for t, m in taken if t in statement["tables"]), default=None)
            if n == 0 and change["change"] != "create_table":
                assert strongest == MODES.index(said), (change, statement, taken)
            elsewhere = {t for t, m in taken if MODES.index(m) > MODES.index("RowShareLock")} - set(statement["tables"])
            assert elsewhere <= {"fresh", "pg_class"}, (change, statement, taken)
            if after.keys() == files.keys() and change["change"] != "clear_table":
                assert (after != files) is statement["rewrites"], (change, statement)


async def test_what_writes_or_reads_a_large_table_is_refused_unless_forced(shop: Workshop) -> None:
    await (await shop.desk.bot()).execute(SCHEMA)
    rewrite = {"change": "alter_type", "table": "t", "column": "a", "type": "bigint"}
    problem = await shop.refused(rewrite, status=409, code="long_rewrite")
    assert (problem["table"], problem["rows"]) == ("t", 150)
    assert "everything on it waits. `force` does it" in problem["detail"]
    index = {"change": "create_index", "table": "t", "columns": ["a"]}
    await shop.change(index)
    await (await shop.desk.bot()).execute("INSERT INTO t (id, a) SELECT g, g FROM generate_series(200, 300) AS g")
    await shop.refused(index, status=409, code="long_rewrite")
    tried = await shop.dry(rewrite, {**index, "columns": ["b"]}, {"change": "comment_table", "table": "t", "comment": "x"})
    assert [(f["change"], f["code"]) for f in tried["failures"]] == [(0, "long_rewrite"), (1, "long_rewrite")]
    await shop.change(rewrite, index, force=True)
    assert (await shop.column("t", "a"))["type"] == "bigint"


async def test_deleting_and_clearing_a_large_table_is_never_refused(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(SCHEMA)
    await bot.execute("INSERT INTO t (id) SELECT g FROM generate_series(200, 500) AS g")
    made = await shop.change({"change": "clear_table", "table": "t"}, {"change": "drop_table", "table": "t"})
    assert [s["rows"] for s in made["statements"]] == [451, 0]
