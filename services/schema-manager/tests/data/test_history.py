"""The history of rows: who changed what when, and back again; all of it with the tenant's own rights."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from loquat_common.http import Api
from loquat_common.problems import Problem
from loquat_schema_manager.adapters import expiry
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.handlers.expiries import Expiries
from loquat_schema_manager.http.history import Histories

from tests.desk import USER, Desk, open_desk
from tests.tenants import Project

_ORDERS = """
CREATE TABLE orders (shop text, number bigint, total numeric(12,2), paid boolean NOT NULL DEFAULT false, at timestamptz, note jsonb, tags text[],
  PRIMARY KEY (shop, number), doubled numeric GENERATED ALWAYS AS (total * 2) STORED, tripled numeric GENERATED ALWAYS AS (total * 3) VIRTUAL)"""


@pytest.fixture
async def data(project: Project) -> AsyncGenerator[Desk]:
    def add(api: Api, editors: Editors, _bus: object) -> None:
        Histories(History(editors, lambda _project, _table, _count, _actor: None)).add_to(api)

    async with open_desk(project, add) as made:
        yield made


async def switch(data: Desk, table: str, *, on: bool = True) -> None:
    await data.good("PUT", data.path(table, "/history"), {"enabled": on})


async def changes(data: Desk, table: str, **query: Any) -> list[dict[str, Any]]:
    return (await data.good("GET", data.path(table, "/history"), **query))["items"]


async def undo(data: Desk, table: str, change: str) -> dict[str, Any]:
    return await data.good("POST", data.path(table, f"/history/{change}/undo"))


async def cannot(data: Desk, table: str, change: str, code: str, status: int = 409) -> dict[str, Any]:
    return await data.bad("POST", data.path(table, f"/history/{change}/undo"), status=status, code=code)


async def test_who_changed_what_is_noted_with_types_kept(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(_ORDERS)
    await switch(data, "orders")
    note = {"n": 1 << 62, "deep": [[1.5]]}
    await bot.execute("INSERT INTO orders VALUES ('a', 9007199254740993, 1.10, true, '2026-01-02T03:04:05Z', $1, '{x,y}')", note)
    await bot.execute("UPDATE orders SET paid = false")
    await bot.execute("UPDATE orders SET paid = false")  # changes nothing
    await bot.execute("SET loquat.actor = 'somebody'; SET loquat.undoes = '7 '")
    await bot.execute("DELETE FROM orders")
    gone, updated, inserted = await changes(data, "orders")
    assert [c["operation"] for c in (gone, updated, inserted)] == ["delete", "update", "insert"]
    assert {(c["login"], c["claimed"], c["undoes"]) for c in (gone, updated, inserted)} == {("bot", None, None)}
    assert inserted["key"] == {"shop": "a", "number": "9007199254740993"}
    number, paid, at = ("9007199254740993", True, "2026-01-02T03:04:05+00:00")
    kept = {"shop": "a", "number": number, "total": "1.10", "paid": paid, "at": at, "note": note, "tags": ["x", "y"]}
    assert inserted["new"] == {**kept, "doubled": "2.20", "tripled": None}
    assert (inserted["old"], gone["new"]) == (None, None)
    assert (updated["old"]["paid"], updated["new"]["paid"]) == (True, False)
    assert len({c["transaction"] for c in (gone, updated, inserted)}) == 3


async def test_every_change_can_be_taken_back_and_that_again(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(_ORDERS)
    await switch(data, "orders")
    await bot.execute("INSERT INTO orders VALUES ('a', 1, 1.10, true, '2026-01-02T03:04:05Z', '{\"x\": [1]}', '{x,y}')")
    before = await bot.fetchrow("SELECT * FROM orders")
    await bot.execute("UPDATE orders SET number = 2, total = 7, note = NULL, tags = '{}'")
    updated = (await changes(data, "orders"))[0]
    made = await undo(data, "orders", updated["id"])
    assert await bot.fetchrow("SELECT * FROM orders") == before
    (back, *_) = await changes(data, "orders")
    assert (back["id"], back["undoes"], back["login"], back["claimed"]) == (made["change"], updated["id"], "editor", USER)
    await undo(data, "orders", back["id"])
    assert await bot.fetchval("SELECT (number, total) FROM orders") == (2, 7)
    await bot.execute("DELETE FROM orders")
    deleted = (await changes(data, "orders"))[0]
    await undo(data, "orders", deleted["id"])
    assert await bot.fetchval("SELECT doubled FROM orders") == 14
    added = (await changes(data, "orders"))[0]
    await undo(data, "orders", added["id"])
    assert await bot.fetchval("SELECT count(*) FROM orders") == 0


async def test_a_value_is_known_again_whatever_the_session_that_wrote_it_had_set(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(
        "CREATE TABLE t (id int PRIMARY KEY, at timestamptz, span interval, raw bytea, real float8, days tstzrange, day date, n int)"
    )
    await switch(data, "t")
    odd = (
        "TimeZone = 'Pacific/Kiritimati'",
        "DateStyle = 'SQL, DMY'",
        "IntervalStyle = 'iso_8601'",
        "bytea_output = 'escape'",
        "extra_float_digits = -15",
    )
    await bot.execute("".join(f"SET {setting};" for setting in odd))
    values = "'2026-02-01T03:04:05Z', '1 day 2 hours', '\\x005c', 0.1::float8 + 0.2, '[2026-02-01 00:00+00,)', '2026-02-01'"
    await bot.execute(f"INSERT INTO t VALUES (1, {values}, 1)")  # noqa: S608
    before = await bot.fetchrow("SELECT * FROM t")
    await bot.execute("UPDATE t SET at = now(), span = NULL, raw = '', real = 0, days = 'empty', day = now(), n = 2")
    await undo(data, "t", (await changes(data, "t"))[0]["id"])
    assert await bot.fetchrow("SELECT * FROM t") == before


async def test_a_row_that_changed_since_stays_as_it_is(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1, 'x', 'y')")
    await bot.execute("UPDATE t SET a = 'z'")
    await bot.execute("UPDATE t SET b = 'w'")
    later, first, added = await changes(data, "t")
    problem = await cannot(data, "t", first["id"], "row_changed")
    assert problem["columns"] == ["b"]
    assert (await cannot(data, "t", added["id"], "row_changed"))["columns"] == ["a", "b"]
    await undo(data, "t", later["id"])
    await undo(data, "t", first["id"])
    assert await bot.fetchval("SELECT (id, a, b) FROM t") == (1, "x", "y")
    await bot.execute("DELETE FROM t")
    deleted = (await changes(data, "t"))[0]
    await cannot(data, "t", first["id"], "row_changed")
    await bot.execute("INSERT INTO t VALUES (1)")
    await cannot(data, "t", deleted["id"], "row_changed")
    await cannot(data, "t", "999999", "not_found", 404)


async def test_a_page_goes_on_where_the_one_before_ended_and_one_row_can_be_followed(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id bigint PRIMARY KEY, a int)")
    await switch(data, "t")
    for n in range(7):
        await bot.execute("INSERT INTO t VALUES ($1, 0)", n)
    await bot.execute("UPDATE t SET a = 1 WHERE id = 3")
    seen, cursor = list[str](), None
    while True:
        page = await data.good("GET", data.path("t", "/history"), limit=3, **({"cursor": cursor} if cursor else {}))
        seen += [c["id"] for c in page["items"]]
        if (cursor := page["next_cursor"]) is None:
            break
    assert seen == [str(n) for n in range(8, 0, -1)]
    assert [c["operation"] for c in await changes(data, "t", key='{"id": "3"}')] == ["update", "insert"]
    for wrong in ("{}", "[]", "no", '{"a": 1}'):
        await data.bad("GET", data.path("t", "/history"), key=wrong, status=422, code="wrong_key")
    await data.bad("GET", data.path("t", "/history"), key='{"id": "x"}', status=422, code="wrong_type")


async def test_a_page_ends_with_its_bytes_and_a_huge_change_can_be_undone_unseen(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, a text)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t SELECT g, repeat('x', 1000000) FROM generate_series(1, 12) AS g")
    await bot.execute("INSERT INTO t VALUES (13, repeat('y', 3000000))")
    await bot.execute("DELETE FROM t WHERE id = 13")
    page = await data.good("GET", data.path("t", "/history"), limit=100)
    assert page["items"][0]["too_large"]
    assert (page["items"][0]["old"], len(page["items"]), page["next_cursor"]) == (None, 9, page["items"][-1]["id"])
    await undo(data, "t", page["items"][0]["id"])
    assert await bot.fetchval("SELECT length(a) FROM t WHERE id = 13") == 3_000_000
    rest = await data.good("GET", data.path("t", "/history"), limit=100, cursor=page["next_cursor"])
    assert (len(rest["items"]), rest["next_cursor"]) == (5, None)


async def test_history_follows_its_table_through_renames_and_columns_that_come_and_go(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, a text, b text, c text)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1, 'a', 'b', 'c')")
    await bot.execute("UPDATE t SET a = 'A', b = 'B'")
    await bot.execute("UPDATE t SET c = 'C'")
    await bot.execute("ALTER TABLE t RENAME TO u; ALTER TABLE u DROP COLUMN b, DROP COLUMN c, ADD COLUMN d int NOT NULL DEFAULT 4")
    last, both, _ = await changes(data, "u")
    assert "b are" not in str(await cannot(data, "u", last["id"], "cannot_undo"))
    assert (await undo(data, "u", both["id"]))["left_out"] == ["b"]
    await bot.execute("DELETE FROM u")
    deleted = (await changes(data, "u"))[0]
    await undo(data, "u", deleted["id"])
    assert await bot.fetchrow("SELECT * FROM u") == (1, "a", 4)
    await bot.execute("ALTER TABLE u RENAME COLUMN id TO ident")
    await cannot(data, "u", both["id"], "cannot_undo")
    await bot.execute("UPDATE u SET a = 'q'")
    assert (await changes(data, "u"))[0]["key"] == {"ident": 1}


async def test_a_truncate_is_noted_and_cannot_be_undone(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await switch(data, "t")
    await bot.execute("TRUNCATE t")
    (change,) = await changes(data, "t")
    assert (change["operation"], change["key"]) == ("truncate", None)
    await cannot(data, "t", change["id"], "cannot_undo")


async def test_off_means_off_on_again_goes_on_and_a_new_table_starts_anew(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await switch(data, "t", on=False)
    assert await data.good("GET", data.path("t", "/history")) == {"enabled": False, "keep_days": None, "items": [], "next_cursor": None}
    await switch(data, "t")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1)")
    await switch(data, "t", on=False)
    await bot.execute("INSERT INTO t VALUES (2)")
    page = await data.good("GET", data.path("t", "/history"))
    assert (page["enabled"], [c["key"] for c in page["items"]]) == (False, [{"id": 1}])
    assert (await undo(data, "t", page["items"][0]["id"]))["change"] is None
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (3)")
    assert [c["key"]["id"] for c in await changes(data, "t")] == [3, 1]
    await bot.execute("DROP TABLE t; CREATE TABLE t (id int PRIMARY KEY)")
    assert await changes(data, "t") == []
    await switch(data, "t")
    assert await bot.fetchval("SELECT count(*) FROM row_history") == 0


async def test_old_changes_are_forgotten_when_told(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY); CREATE TABLE u (id int PRIMARY KEY)")
    await switch(data, "t")
    await switch(data, "u")
    await bot.execute("INSERT INTO t VALUES (1); INSERT INTO u VALUES (1)")
    middle = await bot.fetchval("SELECT to_json(clock_timestamp()) #>> '{}'")
    await bot.execute("INSERT INTO t VALUES (2)")
    assert await data.good("DELETE", data.path("t", "/history"), before=middle) == {"count": 1}
    assert [c["key"]["id"] for t in ("t", "u") for c in await changes(data, t)] == [2, 1]


async def test_changes_are_kept_for_the_days_of_their_table_and_go_in_batches(data: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiry, "BATCH", 3)
    bot, put = await data.bot(), {"enabled": True, "keep_days": 30}
    for table in ("t", "u", "gone"):
        await bot.execute(f"CREATE TABLE {table} (id int PRIMARY KEY)")
        state = await data.good("PUT", data.path(table, "/history"), put if table == "t" else {"enabled": True})
        assert state == {"table": table, "enabled": True, "keep_days": 30 if table == "t" else 365}
        await bot.execute(f"INSERT INTO {table} SELECT generate_series(1, 10)")
    await bot.execute(
        "UPDATE row_history SET at = now() - CASE WHEN id % 10 < 3 THEN interval '400 days' ELSE interval '31 days' END WHERE id % 10 IN (1, 2, 3, 4, 5)"
    )
    await bot.execute("DROP TABLE gone")
    expire = expiry.Expiry(data.editors).of
    assert await Expiries(lambda: ["nobody", data.project.project_id], expire).once() == 5 + 2 + 10
    assert [len(await changes(data, t)) for t in ("t", "u")] == [5, 8]
    assert await expire(data.project.project_id) == 0


async def test_the_days_can_be_changed_without_losing_what_was_noted_and_follow_a_table_that_is_switched_off(data: Desk) -> None:
    bot, path = await data.bot(), data.path("t", "/history")
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY) PARTITION BY LIST (id); CREATE TABLE part PARTITION OF t DEFAULT")
    assert (await data.good("PUT", path, {"enabled": False}))["keep_days"] is None
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1)")
    assert (await data.good("PUT", path, {"enabled": False, "keep_days": 2}))["keep_days"] == 2
    await bot.execute("INSERT INTO t VALUES (2)")
    assert (await data.good("PUT", path, {"enabled": True}))["keep_days"] == 2
    await bot.execute("INSERT INTO t VALUES (3); UPDATE row_history SET at = at - interval '3 days' WHERE key->>'id' = '1'")
    assert [c["key"]["id"] for c in await changes(data, "t")] == [3, 1]
    assert await expiry.Expiry(data.editors).of(data.project.project_id) == 1
    assert (await data.good("GET", path))["keep_days"] == 2
    await data.bad("PUT", path, {"enabled": True, "keep_days": 0}, status=422, code="invalid_request")


async def test_a_history_whose_triggers_rage_or_that_is_no_table_keeps_no_other_projects_back(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1); UPDATE row_history SET at = '2000-01-01'")
    await bot.execute("CREATE FUNCTION rage() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = 'XX001'; END $$")
    await bot.execute("CREATE TRIGGER rage BEFORE DELETE ON row_history FOR EACH ROW EXECUTE FUNCTION rage()")
    told, expire = list[str](), expiry.Expiry(data.editors).of

    async def noted(project: str) -> int:
        told.append(project)
        return await expire(project)

    projects = [data.project.project_id, "nobody", data.project.project_id]
    assert (await Expiries(lambda: projects, noted).once(), told) == (0, projects)
    await bot.execute("DROP TABLE row_history; CREATE VIEW row_history AS SELECT 1 AS id")
    assert await expire(data.project.project_id) == 0


async def test_a_history_whose_triggers_dawdle_has_a_turn_and_no_more(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1); UPDATE row_history SET at = '2000-01-01'")
    await bot.execute("CREATE FUNCTION dawdle() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(9); RETURN OLD; END $$")
    await bot.execute("CREATE TRIGGER dawdle BEFORE DELETE ON row_history FOR EACH ROW EXECUTE FUNCTION dawdle()")
    with pytest.raises(Problem, match="database_away"):
        await expiry.Expiry(data.editors, turn=0.2).of(data.project.project_id)
    assert len(await changes(data, "t")) == 1


async def test_tables_that_can_have_no_history_say_why(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE plain (a int); CREATE TABLE t (id int PRIMARY KEY); CREATE VIEW v AS TABLE t")
    put = {"enabled": True}
    for table, status, code in (
        ("contacts", 403, "system_table"),
        ("plain", 409, "no_key"),
        ("v", 409, "not_a_table"),
        ("x\0", 422, "invalid_request"),
    ):
        await data.bad("PUT", data.path(table, "/history"), put, status=status, code=code)
    await bot.execute("CREATE TABLE row_history (id int PRIMARY KEY)")
    await data.bad("PUT", data.path("t", "/history"), put, status=409, code="already_there")
    await bot.execute("DROP TABLE row_history")
    await switch(data, "t")
    await data.bad("PUT", data.path("row_history", "/history"), put, status=409, code="is_history")
    await bot.execute("ALTER TABLE t DROP CONSTRAINT t_pkey; INSERT INTO t VALUES (1)")
    (change,) = await changes(data, "t")
    await cannot(data, "t", change["id"], "no_key")
    await bot.execute("DROP TABLE row_history; INSERT INTO t VALUES (2)")  # whoever drops it may go on
    await bot.execute("DROP FUNCTION row_history_note CASCADE; DROP FUNCTION row_history_image CASCADE; ALTER TABLE t ADD PRIMARY KEY (id)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (3)")
    assert [c["key"] for c in await changes(data, "t")] == [{"id": 3}]


async def test_partitions_have_one_history_and_names_may_be_hostile(data: Desk) -> None:
    bot = await data.bot()
    table = "a\"b%I$1'; DROP"
    quoted = '"a""b%I$1\'; DROP"'
    await bot.execute(f'CREATE TABLE {quoted} ("k\'""" int PRIMARY KEY, t int, "c%s" text) PARTITION BY RANGE ("k\'""")')
    await bot.execute(f"CREATE TABLE one PARTITION OF {quoted} FOR VALUES FROM (0) TO (10)")
    await bot.execute(f"CREATE TABLE two PARTITION OF {quoted} FOR VALUES FROM (10) TO (20)")
    await switch(data, table)
    await bot.execute(f"INSERT INTO {quoted} VALUES (1, 1, 'x'), (11, 1, 'x')")  # noqa: S608
    await bot.execute(f'UPDATE {quoted} SET "c%s" = \'y\', t = 2 WHERE "k\'""" = 11')  # noqa: S608
    change = (await changes(data, table))[0]
    assert change["key"] == {"k'\"": 11}
    await undo(data, table, change["id"])
    assert await bot.fetchrow("SELECT * FROM two") == (11, 1, "x")


_SPY = """
CREATE TABLE spied (place text, who text, session text, wall text);
CREATE FUNCTION spy(place text) RETURNS void LANGUAGE plpgsql AS $f$
DECLARE wall text := 'open';
BEGIN
  BEGIN
    SET LOCAL ROLE loquat_system;
    UPDATE public.contacts SET name = 'owned';
  EXCEPTION WHEN insufficient_privilege OR invalid_parameter_value THEN wall := 'shut'; END;
  INSERT INTO public.spied VALUES (place, current_user, session_user, wall);
END $f$;
CREATE TYPE evil AS ENUM ('a', 'b');
CREATE FUNCTION evil_json(evil) RETURNS json LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spy('cast'); RETURN pg_catalog.to_json($1::text); END $f$;
CREATE CAST (evil AS json) WITH FUNCTION evil_json(evil);
CREATE FUNCTION evil_check(int) RETURNS bool LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spy('domain'); RETURN true; END $f$;
CREATE DOMAIN sly AS int CHECK (evil_check(VALUE));
CREATE FUNCTION evil_trigger() RETURNS trigger LANGUAGE plpgsql AS $f$ BEGIN PERFORM public.spy('trigger'); RETURN NEW; END $f$;
CREATE TABLE t (id sly PRIMARY KEY, e evil, s sly, n int);
CREATE TRIGGER evil BEFORE INSERT OR UPDATE ON t FOR EACH ROW EXECUTE FUNCTION evil_trigger()"""


async def test_hostile_casts_checks_and_triggers_run_as_the_tenant_alone(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute(_SPY)
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1, 'a', 1, 0); UPDATE t SET s = 2, n = 1; TRUNCATE spied")
    change = (await changes(data, "t"))[0]
    await undo(data, "t", change["id"])
    assert await bot.fetchrow("SELECT id, s, n FROM t") == (1, 1, 0)
    spied = await bot.fetch("SELECT DISTINCT place, who, session, wall FROM spied ORDER BY place")
    owner, editor = data.project.names.owner, data.project.names.login("editor")
    assert [tuple(s) for s in spied] == [(place, owner, editor, "shut") for place in ("cast", "domain", "trigger")]


async def test_a_trigger_that_keeps_a_row_keeps_it_from_the_undo_too(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, a int)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1, 1); UPDATE t SET a = 2")
    keep = "CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'"
    await bot.execute(f"{keep}; CREATE TRIGGER keep BEFORE UPDATE ON t FOR EACH ROW EXECUTE FUNCTION keep()")
    await cannot(data, "t", (await changes(data, "t"))[0]["id"], "raised", 422)


async def test_an_undo_that_a_constraint_forbids_says_which(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, a int UNIQUE)")
    await switch(data, "t")
    await bot.execute("INSERT INTO t VALUES (1, 1); UPDATE t SET a = 2; INSERT INTO t VALUES (2, 1)")
    problem = await cannot(data, "t", (await changes(data, "t"))[1]["id"], "not_unique")
    assert problem["constraint"] == "t_a_key"
    assert await bot.fetchval("SELECT a FROM t WHERE id = 1") == 2
