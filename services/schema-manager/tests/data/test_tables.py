"""Tables as the API shows them."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest

from tests.changing import Workshop, control, open_workshop
from tests.desk import Desk
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform)) as made:
        yield made


@pytest.fixture
async def data(shop: Workshop) -> Desk:
    return shop.desk


async def test_tables_of_the_system_the_bot_and_the_person_stand_in_one_list(shop: Workshop, data: Desk) -> None:
    await (await data.bot()).execute("CREATE TABLE bookings (id uuid PRIMARY KEY)")
    await shop.change({"change": "create_table", "name": "orders"})
    items = (await data.good("GET", "/tables"))["items"]
    assert [(t["name"], t["system"]) for t in items] == [
        ("bookings", False), ("contacts", True), ("conversations", True), ("messages", True), ("orders", False),
    ]  # fmt: skip


async def test_the_list_comes_in_pages_by_name(data: Desk) -> None:
    await (await data.bot()).execute('CREATE TABLE a (); CREATE TABLE "B" (); CREATE TABLE "z\'" ()')
    names, after = list[str](), None
    while True:
        page = await data.good("GET", "/tables", limit=2, **({"after": after} if after else {}))
        names += [t["name"] for t in page["items"]]
        assert len(page["items"]) <= 2
        if (after := page["next"]) is None:
            break
    assert names == ["B", "a", "contacts", "conversations", "messages", "z'"]


async def test_a_table_of_the_bots_own_sql_is_described_to_the_last_detail(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE rooms (a int, b int, PRIMARY KEY (b, a));"
        "CREATE TABLE bookings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, x int, y int, name varchar(20) NOT NULL DEFAULT 'x' UNIQUE,"
        " feeling mood, upper text GENERATED ALWAYS AS (upper(name)) STORED, price numeric, UNIQUE (x, y),"
        " CONSTRAINT room FOREIGN KEY (y, x) REFERENCES rooms ON DELETE CASCADE);"
        "CREATE INDEX lowered ON bookings (lower(name), x DESC) WHERE x > 0; COMMENT ON TABLE bookings IS 'who comes when';"
        "COMMENT ON COLUMN bookings.name IS 'theirs'; INSERT INTO bookings (name) VALUES ('a'); ANALYZE bookings"
    )
    seen = await data.good("GET", "/tables/bookings")
    columns: dict[str, dict[str, Any]] = {c["name"]: c for c in seen["columns"]}
    assert {n: (c["type"], c["settable"], c["nullable"], c["generated"]) for n, c in columns.items()} == {
        "id": ("bigint", True, False, True),
        "x": ("integer", True, True, False),
        "y": ("integer", True, True, False),
        "name": ("varchar(20)", True, False, False),
        "feeling": ("mood", False, True, False),
        "upper": ("text", True, True, True),
        "price": ("numeric", False, True, False),
    }
    assert (columns["name"]["default"], columns["name"]["comment"], columns["name"]["unique"]) == ("'x'::character varying", "theirs", True)
    assert (columns["id"]["primary_key"], columns["x"]["unique"]) == (True, False)
    assert (seen["primary_key"], seen["comment"], seen["rows"], seen["kind"]) == (["id"], "who comes when", 1, "table")
    assert seen["size_bytes"] > 8192
    assert {(u["name"], tuple(u["columns"])) for u in seen["unique"]} == {
        ("bookings_name_key", ("name",)),
        ("bookings_x_y_key", ("x", "y")),
    }
    assert seen["foreign_keys"] == [
        {"name": "room", "columns": ["y", "x"], "to_table": "rooms", "to_columns": ["b", "a"], "on_delete": "cascade"}
    ]
    lowered = next(i for i in seen["indexes"] if i["name"] == "lowered")
    assert (lowered["columns"], lowered["method"], lowered["constraint"]) == (["lower(name::text)", "x"], "btree", None)
    assert (await data.good("GET", "/tables/rooms"))["referenced_by"] == ["bookings"]


async def test_a_table_of_the_bots_own_sql_is_as_good_as_one_made_here(shop: Workshop, data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE t (a smallint, m mood DEFAULT 'good', n numeric); INSERT INTO t VALUES (1)"
    )
    made = await shop.change(
        {"change": "alter_type", "table": "t", "column": "m", "type": "text"},
        {"change": "alter_type", "table": "t", "column": "a", "type": "integer"},
        {"change": "alter_type", "table": "t", "column": "n", "type": "numeric(9,3)"},
        {"change": "set_primary_key", "table": "t", "columns": ["a"]},
        {"change": "add_column", "table": "t", "column": {"name": "d", "type": "date", "default": {"function": "today"}}},
    )
    assert made["irreversible"] is not None
    assert [c["type"] for c in (await shop.table("t"))["columns"]] == ["integer", "text", "numeric(9,3)", "date"]
    assert await bot.fetchval("SELECT m FROM t") == "good"


async def test_what_one_may_do_with_a_table_is_said(data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE TABLE keyless (a int); CREATE VIEW seen AS SELECT 1 AS a; CREATE TABLE keyed (a int PRIMARY KEY)"
    )
    allowed = {
        t["name"]: (t["kind"], t["allowed"].partition(":")[0].partition(";")[0]) for t in (await data.good("GET", "/tables"))["items"]
    }
    assert allowed["contacts"] == ("table", "It can be listed, described, read and exported")
    assert allowed["keyless"] == ("table", "Everything but changing and deleting single rows")
    assert allowed["keyed"] == ("table", "Everything")
    assert allowed["seen"] == ("view", "It can be listed, described, read and exported, and dropped or changed by SQL")


SYSTEM: list[dict[str, Any]] = [
    {"change": "rename_table", "table": "contacts", "to": "x"},
    {"change": "drop_table", "table": "messages"},
    {"change": "clear_table", "table": "messages"},
    {"change": "comment_table", "table": "contacts", "comment": "x"},
    {"change": "add_column", "table": "contacts", "column": {"name": "x", "type": "text"}},
    {"change": "drop_column", "table": "contacts", "column": "name"},
    {"change": "rename_column", "table": "contacts", "column": "name", "to": "x"},
    {"change": "alter_type", "table": "contacts", "column": "name", "type": "text"},
    {"change": "set_default", "table": "contacts", "column": "name", "default": None},
    {"change": "set_not_null", "table": "contacts", "column": "name"},
    {"change": "comment_column", "table": "contacts", "column": "name", "comment": "x"},
    {"change": "set_link", "table": "messages", "column": "conversation_id", "link": "conversation"},
    {"change": "set_primary_key", "table": "contacts", "columns": ["name"]},
    {"change": "add_unique", "table": "contacts", "columns": ["name"]},
    {"change": "drop_constraint", "table": "contacts", "constraint": "contacts_pkey__lq"},
    {"change": "create_index", "table": "contacts", "columns": ["name"]},
    {"change": "drop_index", "table": "messages", "index": "messages_wamid_in__lq"},
    {"change": "add_foreign_key", "table": "contacts", "columns": ["merged_into"], "to_table": "mine"},
    {"change": "add_foreign_key", "table": "mine", "columns": ["id"], "to_table": "contacts"},
    {"change": "clear_table", "table": "mine", "also": ["contacts"]},
]


async def test_no_change_touches_a_system_table_and_the_problem_names_what_is_allowed(shop: Workshop) -> None:
    await shop.change({"change": "create_table", "name": "mine"})
    for change in SYSTEM:
        problem = await shop.refused(change, status=403, code="system_table", force=True)
        assert "It can be listed, described, read" in problem["detail"] or "link column" in problem["detail"], change
    await shop.refused({"change": "create_table", "name": "contacts"}, status=409, code="already_there")


async def test_a_view_is_no_table_and_a_table_that_is_not_there_is_not_found(shop: Workshop, data: Desk) -> None:
    await (await data.bot()).execute("CREATE VIEW seen AS SELECT 1 AS a")
    await shop.refused({"change": "add_column", "table": "seen", "column": {"name": "b", "type": "text"}}, status=409, code="not_a_table")
    problem = await shop.refused({"change": "drop_table", "table": "pg_class"}, status=404, code="not_found")
    assert problem["table"] == "pg_class"
    for name in ("nope", "pg_class", "identity", 'a"b', "loquat.identity"):
        await data.bad("GET", data.path(name), status=404, code="not_found")
    await data.bad("GET", data.path("x" * 64), status=422, code="invalid_request")


async def test_what_depends_on_a_table_keeps_it_and_is_named(shop: Workshop, data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE TABLE a (id int PRIMARY KEY, n text); CREATE TABLE b (a int REFERENCES a); CREATE VIEW seen AS SELECT n FROM a; INSERT INTO a VALUES (1)"
    )
    problem = await shop.refused({"change": "drop_table", "table": "a"}, status=409, code="still_needed")
    assert "view seen depends on table a" in problem["detail"]
    await shop.refused({"change": "drop_column", "table": "a", "column": "n"}, status=409, code="still_needed")
    await shop.refused({"change": "drop_index", "table": "a", "index": "a_pkey"}, status=409, code="still_needed")
    problem = await shop.refused({"change": "clear_table", "table": "a"}, status=409, code="still_needed")
    assert problem["referenced_by"] == ["b"]
    await shop.change({"change": "clear_table", "table": "a", "also": ["b"]})


async def test_a_foreign_key_says_which_rows_refer_to_nothing(shop: Workshop, data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int, t text); INSERT INTO b VALUES (7), (8), (NULL)"
    )
    key = {"change": "add_foreign_key", "table": "b", "columns": ["a"], "to_table": "a"}
    problem = await shop.refused(key, status=409, code="foreign_key")
    assert (problem["rows"], problem["sample"], problem["column"]) == (2, ["7", "8"], "a")
    await shop.refused({**key, "columns": ["a", "t"]}, status=422, code="wrong_columns")
    await shop.refused({**key, "columns": ["a", "a"]}, status=422, code="wrong_columns")
    await shop.refused({**key, "to_table": "b"}, status=409, code="no_key")
    await (await data.bot()).execute("DELETE FROM b; CREATE INDEX mine ON b (a, t)")
    made = await shop.change({**key, "on_delete": "set_null"})
    assert len(made["statements"]) == 1  # the bot's own index serves


async def test_single_resources_are_change_sets_of_one(shop: Workshop, data: Desk) -> None:
    await data.good(
        "POST", "/tables", {"name": "t", "columns": [{"name": "a", "type": "integer"}, {"name": "j", "type": "jsonb"}], "id": "none"}
    )
    tried = await data.good("PATCH", "/tables/t", {"name": "u", "comment": "x"}, dry_run="true")
    assert (tried["state"], len(tried["statements"])) == ("dry_run", 2)
    await data.good("PUT", "/tables/t/primary-key", {"columns": ["a"]})
    await data.good("POST", "/tables/t/columns", {"name": "b", "type": "text"})
    await data.good("POST", "/tables/t/unique", {"columns": ["a", "b"], "name": "both"})
    await data.good("POST", "/tables/t/indexes", {"columns": ["j"], "method": "gin"})
    await data.bad("POST", "/tables/t/indexes", {"columns": ["j"]}, status=422, code="not_indexable")
    await data.bad("POST", "/tables/t/indexes", {"columns": ["a"], "method": "gin"}, status=422, code="not_indexable")
    await data.good("POST", "/tables/t/foreign-keys", {"columns": ["a"], "to_table": "t"})
    seen = await shop.table("t")
    assert {i["name"] for i in seen["indexes"]} == {"t_pkey", "both", "t_j_idx"}
    await data.good("DELETE", "/tables/t/indexes/t_j_idx")
    await data.good("DELETE", "/tables/t/constraints/both")
    await data.bad("DELETE", "/tables/t/constraints/both", status=404, code="not_found")
    await data.good("POST", "/tables/t/clear", {})
    await data.good("DELETE", "/tables/t")
    history = (await data.good("GET", "/changes"))["items"]
    assert len(history) == 10
    assert {len({s["change"] for s in c["statements"]}) for c in history} == {1}


async def test_rows_are_estimated_without_an_analyze_and_a_partitioned_table_has_those_of_its_parts(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(
        "CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE t1 PARTITION OF t FOR VALUES IN (1); CREATE TABLE t2 PARTITION OF t DEFAULT"
    )
    await bot.execute(
        "INSERT INTO t SELECT g % 3 FROM generate_series(1, 300) AS g; CREATE VIEW v AS TABLE t; SELECT pg_stat_force_next_flush()"
    )
    rows = {t["name"]: t["rows"] for t in (await data.good("GET", "/tables"))["items"]}
    assert [rows[n] for n in ("t", "t1", "t2", "v")] == [300, 100, 200, None]
