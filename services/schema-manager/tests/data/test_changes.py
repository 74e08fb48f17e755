"""Change sets: all or nothing, tried first, recorded, undone."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest

from tests.changing import Workshop, control, open_workshop
from tests.desk import USER
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform)) as made:
        yield made


def table(name: str = "orders", *columns: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"change": "create_table", "name": name, "columns": list(columns), **more}


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"changes": []}, "body.changes"),
    ({"changes": [{"change": "drop_everything", "table": "a"}]}, "body.changes.0"),
    ({"changes": [{"change": "drop_table", "table": "x" * 64}]}, "body.changes.0.drop_table.table"),
    ({"changes": [{"change": "drop_table", "table": "a", "cascade": True}]}, "body.changes.0.drop_table.cascade"),
    ({"changes": [table("a\u200bb")]}, "body.changes.0.create_table.name"),
    ({"changes": [table("a\0b")]}, "body.changes.0.create_table.name"),
    ({"changes": [table("evil__lq")]}, "body.changes.0.create_table.name"),
    ({"changes": [table("cafe\u0301")]}, "body.changes.0.create_table.name"),
    ({"changes": [table()] * 101}, "body.changes"),
    ({"changes": [{"change": "set_default", "table": "a", "column": "b", "default": {}}]}, "body.changes.0.set_default.default"),
]


async def test_a_new_table_has_an_id_of_its_own_and_what_its_columns_ask_for(shop: Workshop) -> None:
    customers = table("customers", {"name": "email", "type": "text", "nullable": False, "unique": True}, comment="who buys")
    orders = table(
        "orders",
        {"name": "customer", "type": "uuid", "references": {"table": "customers", "on_delete": "cascade"}},
        {"name": "contact", "type": "uuid", "link": "contact", "comment": "who asked"},
        {"name": "number", "type": "serial"},
        {"name": "total", "type": "numeric(10,2)", "nullable": False, "default": {"value": "0.50"}},
        {"name": "at", "type": "timestamptz", "default": {"function": "now"}},
        {"name": "data", "type": "jsonb", "default": {"value": {"it's": "\\x"}}},
    )
    made = await shop.change(customers, orders, message="the shop opens")
    assert (made["actor"], made["message"], made["tables"]) == (USER, "the shop opens", ["customers", "orders"])
    seen = await shop.table("orders")
    assert seen["primary_key"] == ["id"]
    types = {c["name"]: c["type"] for c in seen["columns"]}
    assert types == {
        "id": "uuid", "customer": "uuid", "contact": "uuid", "number": "serial", "total": "numeric(10,2)", "at": "timestamptz", "data": "jsonb",
    }  # fmt: skip
    assert seen["foreign_keys"] == [
        {"name": "orders_customer_fkey", "columns": ["customer"], "to_table": "customers", "to_columns": ["id"], "on_delete": "cascade"}
    ]
    assert {"orders_customer_idx", "orders_contact_idx"} <= {i["name"] for i in seen["indexes"]}
    contact = await shop.column("orders", "contact")
    assert (contact["link"], contact["comment"]) == ("contact", "who asked")
    bot = await shop.desk.bot()
    await bot.execute("INSERT INTO customers (email) VALUES ('a@x')")
    row = await bot.fetchrow("INSERT INTO orders (customer) SELECT id FROM customers RETURNING *")
    assert row is not None
    assert (row["number"], str(row["total"]), row["data"], row["id"].version) == (1, "0.50", {"it's": "\\x"}, 7)


async def test_all_changes_of_a_set_take_effect_or_none_and_the_problem_names_the_one_in_the_way(shop: Workshop) -> None:
    problem = await shop.refused(
        table("first"),
        table("second"),
        {"change": "rename_column", "table": "second", "column": "nope", "to": "x"},
        status=404,
        code="unknown_column",
    )
    assert (problem["change"], problem["columns"]) == (2, ["id"])
    names = [t["name"] for t in (await shop.desk.good("GET", "/tables"))["items"]]
    assert names == ["contacts", "conversations", "messages"]
    assert (await shop.desk.good("GET", "/changes"))["items"] == []


async def test_a_dry_run_says_sql_locks_and_rows_and_leaves_everything_as_it_was(shop: Workshop) -> None:
    await shop.change(table("orders", {"name": "n", "type": "integer"}))
    await (await shop.desk.bot()).execute("INSERT INTO orders (n) SELECT g FROM generate_series(1, 7) AS g")
    before = await shop.table("orders")
    tried = await shop.dry(
        {"change": "alter_type", "table": "orders", "column": "n", "type": "bigint"},
        {"change": "create_index", "table": "orders", "columns": ["n"]},
        {"change": "rename_table", "table": "orders", "to": "sales"},
    )
    assert (tried["id"], tried["state"], tried["failures"], tried["tables"]) == (None, "dry_run", [], ["sales"])
    shown = [(s["change"], s["lock"], s["blocks"], s["rewrites"], s["rows"]) for s in tried["statements"]]
    assert shown == [
        (0, "ACCESS EXCLUSIVE", "everything", True, 7),
        (1, "SHARE", "writes", False, 7),
        (2, "ACCESS EXCLUSIVE", "everything", False, None),
    ]
    assert tried["statements"][0]["sql"] == 'ALTER TABLE "public"."orders" ALTER COLUMN "n" TYPE bigint USING "n"::bigint'
    assert tried["reverse"][0] == 'ALTER TABLE "public"."sales" RENAME TO "orders"'
    assert await shop.table("orders") == before
    assert len((await shop.desk.good("GET", "/changes"))["items"]) == 1


async def test_a_dry_run_counts_what_is_in_the_way_of_each_change(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE people (name text, age text); INSERT INTO people VALUES (NULL, '7'), (NULL, 'old'), ('a', 'x'), ('a', '8')"
    )
    tried = await shop.dry(
        {"change": "set_not_null", "table": "people", "column": "name"},
        {"change": "alter_type", "table": "people", "column": "age", "type": "integer"},
        {"change": "add_unique", "table": "people", "columns": ["name"]},
        {"change": "add_column", "table": "people", "column": {"name": "must", "type": "text", "nullable": False}},
        {"change": "set_primary_key", "table": "people", "columns": ["age"]},
        {"change": "drop_table", "table": "contacts"},
    )
    told = {f["change"]: (f["code"], f.get("rows"), f.get("sample")) for f in tried["failures"]}
    assert told == {
        0: ("not_null", 2, None),
        1: ("does_not_cast", 2, ["old", "x"]),
        2: ("not_unique", 1, ["a"]),
        3: ("not_null", 4, None),
        5: ("system_table", None, None),
    }
    assert "2 rows of people have no value in name" in tried["failures"][0]["title"]
    assert tried["failures"][-1]["detail"].startswith("It can be listed, described, read and exported")


async def test_a_set_is_recorded_shown_and_undone_once(shop: Workshop) -> None:
    first = await shop.change(table("orders", {"name": "n", "type": "integer"}))
    second = await shop.change(
        {"change": "rename_column", "table": "orders", "column": "n", "to": "count"},
        {"change": "set_default", "table": "orders", "column": "count", "default": {"value": 3}},
        {"change": "set_not_null", "table": "orders", "column": "count"},
        {"change": "comment_table", "table": "orders", "comment": "mine"},
        {"change": "create_index", "table": "orders", "columns": ["count"], "descending": ["count"], "unique": True},
        {"change": "rename_table", "table": "orders", "to": "sales"},
    )
    history = await shop.desk.good("GET", "/changes", limit=1)
    assert [c["id"] for c in history["items"]] == [second["id"]]
    assert [c["id"] for c in (await shop.desk.good("GET", "/changes", cursor=history["next_cursor"]))["items"]] == [first["id"]]
    undone = await shop.desk.good("POST", f"/changes/{second['id']}/revert", {})
    assert (undone["reverts"], undone["tables"], undone["reverse"]) == (second["id"], ["orders"], None)
    seen = await shop.table("orders")
    column = seen["columns"][1]
    assert (column["name"], column["default"], column["nullable"], seen["comment"]) == ("n", None, True, None)
    assert [i["name"] for i in seen["indexes"]] == ["orders_pkey"]
    assert (await shop.desk.good("GET", f"/changes/{second['id']}"))["reverted_by"] == undone["id"]
    await shop.desk.bad("POST", f"/changes/{second['id']}/revert", {}, status=409, code="already_reverted")
    await shop.desk.bad("POST", f"/changes/{undone['id']}/revert", {}, status=409, code="irreversible")


async def test_undoing_what_would_lose_rows_or_values_asks_for_force(shop: Workshop) -> None:
    made = await shop.change(table("orders", {"name": "n", "type": "integer"}))
    await (await shop.desk.bot()).execute("INSERT INTO orders (n) VALUES (1), (2)")
    where = f"/changes/{made['id']}/revert"
    problem = await shop.desk.bad("POST", where, {}, status=409, code="would_lose_data")
    assert (problem["rows"], problem["table"]) == (2, "orders")
    tried = await shop.desk.good("POST", where, {"dry_run": True})
    assert [f["code"] for f in tried["failures"]] == ["would_lose_data"]
    await shop.desk.good("POST", where, {"force": True})
    await shop.desk.bad("GET", "/tables/orders", status=404, code="not_found")


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"change": "drop_table", "table": "t"}, "rows are gone"),
        ({"change": "clear_table", "table": "t"}, "rows are gone"),
        ({"change": "drop_column", "table": "t", "column": "b"}, "values are gone"),
        ({"change": "alter_type", "table": "t", "column": "b", "type": "integer"}, "may not come back"),
    ],
)
async def test_what_cannot_be_undone_says_why(shop: Workshop, change: dict[str, Any], why: str) -> None:
    await (await shop.desk.bot()).execute("CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, '007')")
    made = await shop.change(change)
    assert made["reverse"] is None
    assert why in made["irreversible"]
    await shop.desk.bad("POST", f"/changes/{made['id']}/revert", {}, status=409, code="irreversible")


async def test_a_table_that_somebody_holds_is_locked_and_not_waited_for_long(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute("CREATE TABLE held (a int)")
    async with bot.transaction():
        await bot.execute("LOCK TABLE held IN ACCESS SHARE MODE")
        problem = await shop.refused({"change": "drop_table", "table": "held"}, status=409, code="locked")
    assert (problem["table"], problem["change"]) == ("held", 0)
    await shop.change({"change": "drop_table", "table": "held"})


async def test_names_of_the_automatic_kind_never_collide(shop: Workshop) -> None:
    long = "x" * 60
    reference = {"name": "y" * 50, "type": "uuid", "references": {"table": "orders"}}
    await shop.change(table("orders"), table(long, reference), {"change": "rename_table", "table": long, "to": "old"})
    await shop.change(table(long, reference))
    names = [i["name"] for t in ("old", long) for i in (await shop.table(t))["indexes"]]
    assert len(names) == len(set(names)) == 4
    assert all(len(n.encode()) <= 63 for n in names)


async def test_a_request_that_is_wrong_is_told_where(shop: Workshop) -> None:
    for body, field in WRONG:
        problem = await shop.desk.bad("POST", "/changes", body, status=422, code="invalid_request")
        assert problem["errors"][0]["field"] == field


async def test_a_name_of_sixty_three_bytes_full_of_quotes_is_a_name_like_any_other(shop: Workshop) -> None:
    for name in ('"; DROP TABLE x; --', "a'b\\c{0}{n}%s", "select", "\N{SNOWMAN}" * 21, "sp ace", "UPPER", "a/b", "100%41", "?#&="):
        column = {"name": name, "type": "varchar(5)", "unique": True, "default": {"value": name[:5]}, "comment": name}
        await shop.change(table(name, column, comment=name))
        seen = await shop.table(name)
        assert (seen["name"], seen["comment"], seen["columns"][1]["name"], seen["columns"][1]["comment"]) == (name,) * 4
        await shop.change({"change": "drop_table", "table": name})
