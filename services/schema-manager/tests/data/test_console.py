"""The SQL console: everything as the tenant, nothing longer, wider or larger than it was asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from loquat_common.http import Api
from loquat_schema_manager.adapters.console import Console
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.rows import Changed
from loquat_schema_manager.http.console import Sql

from tests.desk import USER, Desk, open_desk
from tests.tenants import Project

Told = list[tuple[object, ...]]

_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
_TABLE = "CREATE TABLE notes (id int PRIMARY KEY, text text)"
_INSERT = "INSERT INTO notes VALUES (1)"
_FOR_EVER = "LOOP BEGIN PERFORM pg_catalog.pg_sleep(3600); EXCEPTION WHEN query_canceled OR others THEN NULL; END; END LOOP"
_WITHOUT_END = f"DO $$ BEGIN {_FOR_EVER}; END $$"
_WITHOUT_LIMIT = "SET statement_timeout = 0; SET transaction_timeout = 0; SET client_connection_check_interval = 0; "


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def data(project: Project, told: Told) -> AsyncGenerator[Desk]:
    async def open_database(_cluster: str, database: str) -> Any:
        return await project.tenants.as_service("schema-manager")(database)

    def add(api: Api, editors: Editors, _bus: object) -> None:
        changed: Changed = lambda _project, table, count, actor: told.append((table, count, actor))  # noqa: E731
        Sql(Console(editors, open_database, changed, lambda _project, tables, actor: told.append((*tables, actor)))).add_to(api)

    async with open_desk(project, add) as made:
        yield made


async def run(data: Desk, sql: str, **more: Any) -> dict[str, Any]:
    return await data.good("POST", "/sql", {"sql": sql, **more})


async def refused(data: Desk, sql: str, status: int, code: str, **more: Any) -> dict[str, Any]:
    return await data.bad("POST", "/sql", {"sql": sql, **more}, status=status, code=code)


async def nobody_left(data: Desk, *, seconds: int = 10) -> bool:
    """Whether the editor's sessions are gone, all of them, before the time is over."""
    root = await data.project.root()
    await root.execute(f"SET statement_timeout = '{seconds}s'")
    sql = f"DO $$ BEGIN WHILE EXISTS (SELECT FROM pg_stat_activity WHERE usename = '{data.project.names.login('editor')}') LOOP PERFORM pg_sleep(0.02), pg_stat_clear_snapshot(); END LOOP; END $$"
    await root.execute(sql)
    return await root.fetchval(_SESSIONS, data.project.names.login("editor")) == 0


async def test_results_are_typed_columns_and_values_keep_their_type(data: Desk) -> None:
    made = await run(
        data,
        "SELECT 1 AS a, true AS b, 9007199254740993 AS c, 1.10::numeric(10,2) AS d, 'x' AS e, NULL::date AS f,"
        " '{\"n\": 1.10, \"deep\": [[4611686018427387904]]}'::jsonb AS g, '2026-01-02 03:04:05.5+00'::timestamptz AS h,"
        " ARRAY[1,2] AS i, '1 day'::interval AS j, 'infinity'::timestamptz AS k, 1e20::float8 AS l, ROW(1, 'a') AS m",
    )
    (result,) = made["results"]
    assert [c["type"] for c in result["columns"]] == [
        *("integer", "boolean", "bigint", "numeric(10,2)", "text", "date", "jsonb", "timestamp with time zone"),
        *("integer[]", "interval", "timestamp with time zone", "double precision", "record"),
    ]
    (row,) = result["rows"]
    assert row[:8] == [1, True, "9007199254740993", "1.10", "x", None, {"n": 1.10, "deep": [[1 << 62]]}, "2026-01-02T03:04:05.5+00:00"]
    assert row[8:] == ["{1,2}", "1 day", "infinity", "1e+20", "(1,a)"]
    assert (result["command"], result["row_count"], result["truncated"], made["transaction"]) == ("SELECT 1", 1, False, "rolled_back")


async def test_a_script_is_all_or_nothing(data: Desk) -> None:
    two = "INSERT INTO notes VALUES (1, 'a;b'), (2, $$c;d$$)"
    made = await run(data, f"{_TABLE}; {two}; -- done;\nTABLE notes;", read_only=False)
    assert [(r["command"], r["line"]) for r in made["results"]] == [("CREATE TABLE", 1), ("INSERT 0 2", 1), ("SELECT 2", 2)]
    assert made["results"][2]["rows"] == [[1, "a;b"], [2, "c;d"]]
    problem = await refused(data, "DELETE FROM notes;\n\nINSERT INTO notes\n  SELECT 1, missing", 422, "unknown_column", read_only=False)
    assert (problem["line"], problem["column_number"]) == (4, 13)
    assert (await run(data, "SELECT count(*)::int FROM notes"))["results"][0]["rows"] == [[2]]


@pytest.mark.parametrize(
    "sql",
    [
        "INSERT INTO notes VALUES (1)",
        "SET TRANSACTION READ WRITE; INSERT INTO notes VALUES (1)",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; INSERT INTO notes VALUES (1)",
        "SET transaction_read_only = off; INSERT INTO notes VALUES (1)",
        "SELECT set_config('transaction_read_only', 'off', false); INSERT INTO notes VALUES (1)",
        "DO $$ BEGIN PERFORM set_config('transaction_read_only', 'off', true); INSERT INTO notes VALUES (1); END $$",
        "SAVEPOINT a; SET LOCAL transaction_read_only = off; INSERT INTO notes VALUES (1)",
        "DO $$ BEGIN COMMIT; INSERT INTO notes VALUES (1); END $$",
        "CREATE TABLE other ()",
    ],
)
async def test_what_is_to_read_only_writes_nothing_whatever_it_sets(data: Desk, sql: str) -> None:
    await run(data, _TABLE, read_only=False)
    answer = await data.ask("POST", "/sql", {"sql": sql})
    assert answer.status in {403, 422}, answer.body
    assert (await run(data, "SELECT count(*)::int FROM notes"))["results"][0]["rows"] == [[0]]


@pytest.mark.parametrize(
    "sql",
    [
        "COMMIT",
        "/* a /* b */ */ rollback",
        "SELECT 1; END",
        "BEGIN",
        "START TRANSACTION",
        "ABORT",
        "COMMIT AND CHAIN",
        "PREPARE TRANSACTION 'x'",
    ],
)
async def test_the_transaction_is_the_consoles_own(data: Desk, sql: str) -> None:
    problem = await refused(data, sql, 422, "transaction_control", read_only=False)
    assert problem["line"] == 1


async def test_savepoints_are_the_scripts(data: Desk) -> None:
    sql = f"{_TABLE}; SAVEPOINT a; {_INSERT}; ROLLBACK TO a; RELEASE SAVEPOINT a; ROLLBACK TO SAVEPOINT a"
    await refused(data, sql, 422, "sql_error", read_only=False)  # it is released
    made = await run(data, f"{_TABLE}; SAVEPOINT a; {_INSERT}; ROLLBACK WORK TO a; TABLE notes", read_only=False)
    assert (made["results"][-1]["rows"], made["transaction"]) == ([], "committed")


async def test_rows_are_cut_at_the_limit_and_a_change_is_whole_all_the_same(data: Desk) -> None:
    (result,) = (await run(data, "SELECT generate_series(1, 1000000000)", limit=3))["results"]
    assert (result["rows"], result["truncated"], result["command"], result["row_count"]) == ([[1], [2], [3]], True, None, None)
    await run(data, _TABLE, read_only=False)
    made = await run(data, "INSERT INTO notes SELECT g FROM generate_series(1, 10) AS g RETURNING id", read_only=False, limit=3)
    assert made["results"][0]["truncated"]
    assert (await run(data, "SELECT count(*)::int FROM notes"))["results"][0]["rows"] == [[10]]


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT repeat('x', 100000000)",
        "SELECT repeat('x', 1000000) FROM generate_series(1, 10)",
        "DO $$ BEGIN FOR n IN 1..100 LOOP RAISE NOTICE '%', repeat('x', 100000); END LOOP; END $$",
        "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT",
    ],
)
async def test_no_answer_is_larger_than_its_limit(data: Desk, sql: str) -> None:
    await refused(data, sql, 422, "too_large")
    assert await nobody_left(data)


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT pg_sleep(3600)",
        "SET statement_timeout = 0; SELECT pg_sleep(3600)",
        "SET statement_timeout = 0; SET transaction_timeout = 0; SELECT pg_sleep(3600)",
        _WITHOUT_END,
        _WITHOUT_LIMIT + _WITHOUT_END,
    ],
)
async def test_a_script_ends_with_its_time_whatever_it_sets_or_catches(data: Desk, sql: str) -> None:
    await refused(data, sql, 422, "too_slow", timeout_ms=200)
    assert await nobody_left(data)


async def test_what_waits_for_the_end_of_the_transaction_is_refused_there(data: Desk) -> None:
    lines = "CREATE TABLE lines (note int REFERENCES notes DEFERRABLE INITIALLY DEFERRED); INSERT INTO lines VALUES (1)"
    problem = await refused(data, f"{_TABLE}; {lines}", 409, "foreign_key", read_only=False)
    assert problem["table"] == "lines"
    await refused(data, "TABLE notes", 404, "not_found")


async def test_of_a_script_that_does_not_end_its_commit_is_said_that_nobody_knows(data: Desk) -> None:
    waits = f"CREATE FUNCTION wait() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {_FOR_EVER}; END $$"
    trigger = "CREATE CONSTRAINT TRIGGER wait AFTER INSERT ON notes INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION wait()"
    await run(data, f"{_TABLE}; {waits}; {trigger}", read_only=False)
    problem = await refused(data, _WITHOUT_LIMIT + _INSERT, 422, "too_slow", read_only=False, timeout_ms=200)
    assert "It was being committed" in problem["detail"]
    assert await nobody_left(data)


async def test_a_copy_in_the_midst_is_refused_and_takes_nothing_with_it(data: Desk) -> None:
    await refused(data, f"{_TABLE}; COPY notes FROM STDIN", 422, "copy", read_only=False)
    await refused(data, "COPY (SELECT 1) TO STDOUT", 422, "copy")
    await refused(data, "COPY (SELECT 1) TO PROGRAM 'id'", 403, "forbidden")
    await refused(data, "COPY (SELECT 1) TO '/tmp/x'", 403, "forbidden")


async def test_a_plan_is_given_and_what_was_analyzed_is_taken_back(data: Desk) -> None:
    await run(data, _TABLE, read_only=False)
    made = await run(data, _INSERT, read_only=False, explain="analyze")
    ((plan,),) = made["results"][0]["rows"]
    assert plan[0]["Plan"]["Actual Rows"] == 0
    assert made["transaction"] == "rolled_back"
    assert (await run(data, "TABLE notes", explain="plan"))["results"][0]["rows"][0][0][0]["Plan"]["Node Type"] == "Seq Scan"
    assert (await run(data, "TABLE notes"))["results"][0]["rows"] == []
    problem = await refused(data, "SELECT missing", 422, "unknown_column", explain="plan")
    assert problem["column_number"] == 8
    await refused(data, "SELECT 1; SELECT 2", 422, "invalid_request", explain="plan")


async def test_notices_are_shown(data: Desk) -> None:
    made = await run(data, "DO $$ BEGIN RAISE NOTICE 'a %', 1; RAISE WARNING 'b'; END $$")
    assert made["notices"] == [{"severity": "NOTICE", "message": "a 1"}, {"severity": "WARNING", "message": "b"}]


@pytest.mark.parametrize(
    "sql",
    [
        "UPDATE contacts SET name = 'x'",
        "TABLE loquat.outbox",
        "SET ROLE loquat_system",
        "SET SESSION AUTHORIZATION loquat_schema_manager",
        "TABLE pg_stat_activity",
        "SELECT pg_terminate_backend(1)",
        "SELECT pg_read_file('/etc/passwd')",
        "CREATE TEMP TABLE contacts ()",
        "LOCK TABLE messages",
    ],
)
async def test_postgres_itself_refuses_what_the_role_may_not_do(data: Desk, sql: str) -> None:
    assert (await refused(data, sql, 403, "forbidden", read_only=False))["sqlstate"] == "42501"


async def test_nothing_of_a_script_is_left_to_the_next_one(data: Desk) -> None:
    await run(data, "SET search_path = public; SET loquat.x = 'y'; RESET ROLE; SET DateStyle = 'German'", read_only=False)
    made = await run(data, "SELECT current_user::text LIKE '%_owner', coalesce(current_setting('loquat.x', true), '')")
    assert made["results"][0]["rows"] == [[True, ""]]


async def test_a_fake_catalogue_on_the_scripts_own_search_path_fools_nobody(data: Desk) -> None:
    fake = "CREATE VIEW pg_type AS SELECT 'x' AS oid; CREATE TYPE mood AS ENUM ('a'); CREATE TABLE t (m mood)"
    await run(data, fake, read_only=False)
    sql = "SET search_path = public, pg_catalog; INSERT INTO t VALUES ('a'); SELECT m, ARRAY[m] AS n, t AS r FROM t"
    made = await run(data, sql, read_only=False)
    assert made["results"][2]["rows"] == [["a", "{a}", "(a)"]]
    assert [c["type"] for c in made["results"][2]["columns"]] == ["mood", "mood[]", "t"]


async def test_scripts_that_are_none_are_refused_with_the_field(data: Desk) -> None:
    for sql, code in (("  -- nothing\n;;", "invalid_request"), ("SELECT '\0'", "invalid_request"), ("SELECT 1;" * 101, "over_limit")):
        await refused(data, sql, 422, code)
    for more in ({"limit": 0}, {"limit": 10_001}, {"timeout_ms": 30_001}, {"explain": "yes"}):
        await refused(data, "SELECT 1", 422, "invalid_request", **more)


async def test_what_a_script_changed_is_told_once_it_stands_by_table_and_count(data: Desk, told: Told) -> None:
    await run(
        data, f"{_TABLE}; CREATE TABLE other (a int) PARTITION BY LIST (a); CREATE TABLE part PARTITION OF other DEFAULT", read_only=False
    )
    assert told == [("notes", "other", "part", USER)]
    told.clear()
    await run(
        data,
        "INSERT INTO notes SELECT generate_series(1, 5); UPDATE notes SET text = 'x' WHERE id < 3; DELETE FROM notes WHERE id = 1",
        read_only=False,
    )
    await run(data, "INSERT INTO other SELECT generate_series(1, 2); DO $$ BEGIN DELETE FROM notes WHERE id = 2; END $$", read_only=False)
    assert told == [("notes", 8, USER), ("other", 2, USER), ("notes", 1, USER)]
    told.clear()
    await run(data, "TABLE notes; SELECT pg_catalog.pg_current_xact_id()", read_only=False)
    assert told == []


@pytest.mark.parametrize(
    ("sql", "tables"),
    [
        ("ALTER TABLE notes ADD COLUMN b int", ("notes",)),
        ("ALTER TABLE notes ALTER COLUMN text SET DEFAULT 'x'", ("notes",)),
        ("ALTER TABLE notes RENAME COLUMN text TO words", ("notes",)),
        ("ALTER TABLE notes RENAME TO papers", ("papers",)),
        ("CREATE INDEX ON notes (text)", ("notes",)),
        ("DO $$ BEGIN BEGIN ALTER TABLE notes ADD CHECK (id > 0); EXCEPTION WHEN others THEN NULL; END; END $$", ("notes",)),
        ("COMMENT ON COLUMN notes.text IS 'x'", ("notes",)),
        ("CREATE VIEW seen AS TABLE notes", ("seen",)),
        ("TRUNCATE notes", ("notes",)),
        ("SELECT age('1'::xid); DROP TABLE notes", ()),
    ],
)
async def test_a_script_that_changes_a_shape_tells_of_which_tables(data: Desk, told: Told, sql: str, tables: tuple[str, ...]) -> None:
    await run(data, _TABLE, read_only=False)
    told.clear()
    await run(data, sql, read_only=False)
    assert told == [(*tables, USER)]


async def test_of_what_did_not_stay_nothing_is_told(data: Desk, told: Told) -> None:
    await run(data, _TABLE, read_only=False)
    told.clear()
    await refused(data, f"{_INSERT}; DROP TABLE notes; SELECT 1/0", 422, "wrong_value", read_only=False)
    await refused(
        data,
        f"{_INSERT}; CREATE TABLE b (x int REFERENCES notes DEFERRABLE INITIALLY DEFERRED); {_INSERT.replace('notes VALUES (1)', 'b VALUES (7)')}",
        409,
        "foreign_key",
        read_only=False,
    )
    await run(data, _INSERT, read_only=False, explain="analyze")
    await run(data, _INSERT, read_only=False)
    assert told == [("notes", 1, USER)]


async def test_a_search_path_full_of_lies_does_not_hide_what_a_script_changed(data: Desk, told: Told) -> None:
    no = "LANGUAGE sql RETURN false"
    lies = f'CREATE FUNCTION no(oid, oid) RETURNS boolean {no}; CREATE FUNCTION no(bigint, integer) RETURNS boolean {no}; CREATE FUNCTION no("char", "char") RETURNS boolean {no};'
    lies += "CREATE OPERATOR = (LEFTARG = oid, RIGHTARG = oid, FUNCTION = no); CREATE OPERATOR > (LEFTARG = bigint, RIGHTARG = integer, FUNCTION = no);"
    await run(
        data,
        f"{_TABLE}; {lies} CREATE VIEW pg_class AS SELECT 1 AS oid; CREATE FUNCTION age(xid) RETURNS integer LANGUAGE sql RETURN 7",
        read_only=False,
    )
    told.clear()
    await run(data, f"SET search_path = public, pg_catalog; {_INSERT}; ALTER TABLE notes ADD COLUMN c int", read_only=False)
    assert told == [("notes", 1, USER), ("notes", USER)]
