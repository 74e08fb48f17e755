"""What a project makes large is not loaded whole: PostgreSQL keeps a megabyte of one letter in twelve KB, this process does not."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
from loquat_common.db import Place
from loquat_schema_manager.adapters import catalog, execution, records
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.known import Known
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.relations import Column, Relation
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.handlers.announcements import Announcements
from loquat_schema_manager.http.changes import Changes
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.tables import Tables

from tests.changing import Workshop, control
from tests.desk import Desk, open_desk
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

BIG = 20_000_000


def unheard(_project: str, _table: str, _count: int, _actor: str) -> None:
    """Nobody listens."""


@pytest.fixture
async def shop(project: Project, platform: Platform) -> AsyncGenerator[Workshop]:
    """Tables, changes and rows."""
    pool, made = await control(platform), list[Any]()

    def add(api: Any, editors: Editors, bus: Any) -> None:
        store = Records(pool)
        announcements = Announcements(store, bus)
        made.extend((ChangeSets(editors, store), announcements))
        for part in (Tables(editors), Changes(made[0]), RowsApi(Rows(editors, unheard))):
            part.add_to(api)

    async with open_desk(project, add) as desk:
        yield Workshop(desk, pool, *made)


@pytest.fixture
async def data(shop: Workshop) -> Desk:
    return shop.desk


async def test_long_comments_and_expressions_are_shown_cut_and_no_change_is_made_from_half_of_one(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE c (id int PRIMARY KEY, x text DEFAULT 'a');"
        f"DO $$ BEGIN EXECUTE format('COMMENT ON TABLE c IS %L', repeat('x', {BIG})); EXECUTE format('COMMENT ON COLUMN c.x IS %L', repeat('y', {BIG}));"
        " EXECUTE format('ALTER TABLE c ALTER x SET DEFAULT %L', repeat('z', 3000)); END $$"
    )
    seen = next(t for t in (await shop.desk.good("GET", "/tables"))["items"] if t["name"] == "c")
    assert seen == await shop.table("c")
    x = seen["columns"][1]
    assert (len(seen["comment"]), len(x["comment"]), len(x["default"])) == (2000, 2000, 2000)
    await shop.refused({"change": "comment_table", "table": "c", "comment": "short"}, status=422, code="over_limit")
    await bot.execute("COMMENT ON TABLE c IS NULL")
    await shop.refused({"change": "comment_column", "table": "c", "column": "x", "comment": "short"}, status=422, code="over_limit")
    await bot.execute("COMMENT ON COLUMN c.x IS NULL")
    made = await shop.change({"change": "set_default", "table": "c", "column": "x", "default": {"value": "short"}})
    assert "z" * 3000 in made["reverse"][0]


async def test_a_page_of_tables_with_many_texts_ends_early_and_the_next_one_goes_on(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog, "_MOST_BYTES", 20_000)
    columns = ", ".join(f"c{n} int" for n in range(100))
    bot = await shop.desk.bot()
    await bot.execute("".join(f"CREATE TABLE t{n} ({columns}); COMMENT ON COLUMN t{n}.c0 IS '{'x' * 2500}';" for n in range(5)))
    names, after = list[str](), "t"
    while True:
        page = await shop.desk.good("GET", "/tables", after=after)
        names += [t["name"] for t in page["items"]]
        assert all(len(t["columns"]) == 100 for t in page["items"])
        if (after := page["next"]) is None:
            break
    assert names == [f"t{n}" for n in range(5)]


async def test_a_sort_value_that_is_too_long_stays_in_the_database(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(f"CREATE TABLE b (id int PRIMARY KEY, big text); INSERT INTO b VALUES (1, repeat('a', {BIG})), (2, 'z'), (3, NULL)")  # noqa: S608  (the test's own)
    ask: dict[str, Any] = {"columns": ["id"], "sort": [{"column": "big"}]}
    await data.bad("POST", "/tables/b/query", {**ask, "limit": 1}, status=422, code="sort_too_long")
    assert [r["values"]["id"] for r in (await data.good("POST", "/tables/b/query", ask))["items"]] == [1, 2, 3]
    first = await data.good("POST", "/tables/b/query", {**ask, "limit": 2})
    rest = await data.good("POST", "/tables/b/query", {**ask, "limit": 2, "cursor": first["next_cursor"]})
    assert [r["key"]["id"] for r in rest["items"]] == [3]


async def test_a_row_that_is_too_large_is_written_and_answered_with_its_key_alone(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(
        f"CREATE TABLE b (id int PRIMARY KEY, n int, big text DEFAULT repeat('y', {BIG})); CREATE TABLE k (id text PRIMARY KEY, n int)"
    )
    (made,) = (await data.good("POST", "/tables/b/rows", {"rows": [{"id": 1}]}))["items"]
    assert made == {"key": {"id": 1}, "version": made["version"], "values": {}, "too_large": True}
    (again,) = (await data.good("POST", "/tables/b/rows/upsert", {"rows": [{"id": 1, "n": 2}], "on": ["id"]}))["items"]
    assert (again["too_large"], again["version"] == made["version"]) == (True, False)
    change = {"key": {"id": 1}, "version": again["version"], "values": {"n": 3}}
    now = await data.good("PATCH", "/tables/b/rows", change)
    assert (now["key"], now["values"], now["too_large"]) == ({"id": 1}, {}, True)
    problem = await data.bad("PATCH", "/tables/b/rows", change, status=409, code="row_changed")
    assert problem["current"] == now
    await bot.execute(
        "CREATE FUNCTION long() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN NEW.id := repeat('k', 100000); RETURN NEW; END $$"
    )
    await bot.execute("CREATE TRIGGER long BEFORE INSERT ON k FOR EACH ROW EXECUTE FUNCTION long()")
    made = await data.good("POST", "/tables/k/rows", {"rows": [{"id": "a"}]})
    assert made["items"][0]["values"]["id"] == "k" * 100_000, "one row has room"
    assert await bot.fetchval("SELECT n FROM b") == 3


async def test_rows_of_one_request_share_the_room_of_its_answer(data: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loquat_schema_manager.adapters.rows._MOST_WRITTEN", 2_000)
    await (await data.bot()).execute("CREATE TABLE b (id int PRIMARY KEY, big text)")
    made = (await data.good("POST", "/tables/b/rows", {"rows": [{"id": 1, "big": "x"}, {"id": 2, "big": "x" * 1500}]}))["items"]
    assert [(r["key"]["id"], r.get("too_large", False)) for r in made] == [(1, False), (2, True)]


async def test_what_a_trigger_says_is_passed_on_cut(data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE TABLE b (id int); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " RAISE EXCEPTION '%', repeat('x', 1000000) USING HINT = repeat('h', 1000000), TABLE = repeat('t', 1000000), DETAIL = repeat('d', 1000000); END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON b FOR EACH ROW EXECUTE FUNCTION f()"
    )
    answer = await data.ask("POST", "/tables/b/rows", {"rows": [{"id": 1}]})
    assert (answer.status, answer.json["code"]) == (422, "raised")
    assert len(answer.body) < 10_000


async def test_a_page_of_large_change_sets_ends_early_and_the_next_one_goes_on(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(records, "_PAGE_BYTES", 5_000)
    await (await shop.desk.bot()).execute("CREATE TABLE c (id int)")
    made = [(await shop.change({"change": "comment_table", "table": "c", "comment": f"{n}" + "x" * 1000}))["id"] for n in range(6)]
    seen, query, pages = list[str](), dict[str, Any](), 0
    while True:
        page = await shop.desk.good("GET", "/changes", **query)
        seen += [c["id"] for c in page["items"]]
        pages += 1
        if (cursor := page["next_cursor"]) is None:
            break
        query = {"cursor": cursor}
    assert (seen, pages > 1) == (made[::-1], True)


async def test_a_change_set_that_is_too_large_is_refused_and_leaves_nothing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execution, "_LONGEST", 5_000)
    await (await shop.desk.bot()).execute("CREATE TABLE c (id int)")
    change = {"change": "comment_table", "table": "c", "comment": "x" * 2_000}
    for dry_run in (True, False):
        await shop.refused(*[change] * 2, status=422, code="over_limit", dry_run=dry_run)
    assert (await shop.table("c"))["comment"] is None
    assert (await shop.desk.good("GET", "/changes"))["items"] == []


async def test_the_oldest_change_sets_are_forgotten_once_they_are_announced_and_what_undid_them_stays(
    shop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await shop.desk.bot()).execute("CREATE TABLE c (id int)")
    first, second, third = [await shop.change({"change": "comment_table", "table": "c", "comment": f"{n}"}) for n in range(3)]
    monkeypatch.setattr(records, "KEPT", 3)
    undone = await shop.desk.good("POST", f"/changes/{first['id']}/revert", {"force": True})
    assert len((await shop.desk.good("GET", "/changes"))["items"]) == 4, "nothing goes before the bus knows"
    await shop.announcements.once()
    last = await shop.change({"change": "comment_table", "table": "c", "comment": "last"})
    kept = (await shop.desk.good("GET", "/changes"))["items"]
    assert [c["id"] for c in kept] == [last["id"], undone["id"], third["id"]]
    assert (kept[1]["reverts"], second["id"] in {c["id"] for c in kept}) == (None, False)


def relation(name: str, columns: int) -> Relation:
    made = tuple(Column(f"c{n}", "integer", "integer", True, False, False, False) for n in range(columns - 1))
    return Relation(1, name, "r", False, made, ())


def test_shapes_are_remembered_by_their_weight_and_no_project_crowds_out_another() -> None:
    a, b, c = (Place(p, "tenants", p, 0) for p in "abc")
    known = Known(most=25, share=10)
    for place in (a, b):
        for table in ("t", "u"):
            known.keep(place, relation(table, 5))
    assert known.get(a, "t") is not None
    known.keep(a, relation("v", 5))
    assert [known.get(a, t) is not None for t in "tuv"] == [True, False, True], "the least recently used of the project went"
    known.keep(c, relation("t", 10))
    assert [known.get(b, t) is not None for t in "tu"] == [False, True], "the project that rested longest made room"
    known.keep(c, relation("t", 11))
    assert known.get(c, "t") is None, "heavier than a whole share"
    known.keep(a, relation("t", 6))
    assert len(known) == 2
