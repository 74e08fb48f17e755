"""Sessions of requests: cleaned while the answer is on its way, and handed to nobody before."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncGenerator

import pytest
from loquat_schema_manager.adapters.editors import Session
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.http.rows import RowsApi

from tests.desk import Desk, open_desk
from tests.tenants import Project

DIRTY = """
CREATE FUNCTION leave_traces() RETURNS text LANGUAGE plpgsql AS $$ BEGIN
  PERFORM set_config('loquat.actor', 'forged', false), set_config('search_path', 'nowhere', false), set_config('statement_timeout', '1', false);
  PERFORM set_config('my.own', 'trace', false), set_config('default_transaction_read_only', 'off', false);
  EXECUTE 'PREPARE trace AS SELECT 1';
  RETURN 'dirty';
END $$;
CREATE VIEW dirty AS SELECT leave_traces() AS v;
CREATE VIEW traces AS SELECT pg_backend_pid() AS pid, current_setting('loquat.actor', true) AS actor, current_setting('search_path') AS path,
  coalesce(current_setting('my.own', true), '') AS own, current_setting('statement_timeout') AS timeout,
  current_setting('default_transaction_read_only') AS reads,
  (SELECT count(*)::int FROM pg_prepared_statements WHERE name = 'trace') AS prepared,
  current_user = session_user AS self
"""
FORGER = """
CREATE FUNCTION forge() RETURNS text LANGUAGE plpgsql AS $$ DECLARE s record; BEGIN
  FOR s IN SELECT name, statement FROM pg_prepared_statements WHERE NOT from_sql LOOP
    EXECUTE format('DEALLOCATE %I', s.name);
    EXECUTE format('PREPARE %I AS SELECT %L::text, x.at, x.seal FROM (%s) AS x(line, at, seal)', s.name, '{"values":{"v":"forged"}}', s.statement);
  END LOOP;
  RETURN 'true';
END $$;
CREATE VIEW forged AS SELECT forge() AS v
"""
CLEAN = {"actor": "", "path": "pg_catalog, public, pg_temp", "own": "", "timeout": "10s", "reads": "on", "prepared": 0, "self": False}


@pytest.fixture
async def data(project: Project) -> AsyncGenerator[Desk]:
    def changed(*_told: object) -> None:
        return

    async with open_desk(project, lambda api, editors, _bus: RowsApi(Rows(editors, changed)).add_to(api)) as made:
        await (await made.bot()).execute(DIRTY)
        yield made


async def look(data: Desk, view: str) -> dict[str, object]:
    return (await data.good("GET", data.path(view, "/rows")))["items"][0]["values"]


async def test_what_a_function_left_in_a_session_is_gone_however_soon_the_next_request_comes(data: Desk) -> None:
    """More at once than connections: each is waited for by the next one."""
    dirtied, seen = set[object](), list[dict[str, object]]()
    for _ in range(4):
        found = await asyncio.gather(*(look(data, view) for view in ("dirty", "traces") * 4), return_exceptions=True)
        seen += [f for f in found if isinstance(f, dict) and "pid" in f]
        dirtied |= {f["v"] for f in found if isinstance(f, dict) and "v" in f}
    assert dirtied == {"dirty"}
    assert len(seen) == 16
    assert [{k: v for k, v in s.items() if k != "pid"} for s in seen] == [CLEAN] * 16
    assert len({s["pid"] for s in seen}) <= 3, "they were used again"


WRITER = """
CREATE TABLE written (n int); GRANT INSERT ON written TO PUBLIC;
CREATE FUNCTION write() RETURNS int LANGUAGE plpgsql AS $$ BEGIN
  IF NOT current_setting('transaction_read_only')::bool THEN INSERT INTO written VALUES (1); END IF;
  PERFORM set_config('default_transaction_read_only', 'off', false);
  RETURN 1;
END $$;
CREATE VIEW writer AS SELECT write() AS n, repeat('x', 9000000 * (g - 1)) AS t FROM generate_series(1, 2) AS g OFFSET 0
"""


async def test_a_read_writes_nothing_whatever_a_function_makes_of_its_session(data: Desk) -> None:
    """Each of these is more than one statement: with a count, for a large row, and since the view's shape is another one."""
    bot = await data.bot()
    await bot.execute(WRITER)
    for _ in range(2):
        page = await data.good("POST", data.path("writer", "/query"), {"count": True, "filter": {"column": "n", "op": "eq", "value": 1}})
        assert (len(page["items"]), page["count"]) == (1, 2)
    await bot.execute("CREATE OR REPLACE VIEW writer AS SELECT write() AS n, 'x' AS t, 1 AS more OFFSET 0")
    assert await look(data, "writer") == {"n": 1, "t": "x", "more": 1}
    assert await bot.fetchval("SELECT count(*) FROM written") == 0


async def test_a_writing_session_gets_its_own_settings_after_one_that_read(data: Desk) -> None:
    await look(data, "traces")
    async with data.editors.session(data.project.project_id, Session(statement_ms=500), "anna") as connection:
        row = await connection.fetchrow("SELECT actor, timeout, reads FROM public.traces")
    assert row is not None
    assert tuple(row) == ("anna", "500ms", "off")
    assert (await look(data, "traces"))["actor"] == ""


async def test_a_session_that_ends_while_it_is_cleaned_is_not_used_again(data: Desk, project: Project) -> None:
    root = await project.root()
    async with data.editors.session(project.project_id, Session()) as connection:
        dead = await connection.fetchval("SELECT pg_backend_pid()")
        await root.execute("SELECT pg_terminate_backend($1, 5000)", dead)
    await data.editors.close()
    assert connection.is_closed()
    assert (await look(data, "traces"))["pid"] != dead


async def test_what_is_being_cleaned_at_the_end_is_waited_for(data: Desk, project: Project) -> None:
    async with data.editors.session(project.project_id, Session()) as connection:
        await connection.execute("SET my.own = trace")
    await data.editors.close()
    assert not connection.is_closed()
    assert await connection.fetchval("SELECT coalesce(current_setting('my.own', true), '')") == ""


async def test_a_statement_that_is_kept_is_never_another_one_of_the_tenants(data: Desk) -> None:
    """A function takes whatever is prepared in its session and puts its own there, under the same name."""
    await (await data.bot()).execute(FORGER)
    for _ in range(6):  # from the third time on the page's statement is kept
        assert await look(data, "forged") == {"v": "true"}
        await data.editors.close()
    seen = await look(data, "traces")
    assert {k: v for k, v in seen.items() if k != "pid"} == CLEAN


async def test_a_statement_that_is_kept_shows_each_new_shape_of_its_table_at_once(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, n int); INSERT INTO t VALUES (1, 2)")
    for change, shown in (
        ("SELECT 1", {"id": 1, "n": 2}),
        ("ALTER TABLE t ADD more text DEFAULT 'x'", {"id": 1, "n": 2, "more": "x"}),
        ("ALTER TABLE t ALTER n TYPE bigint", {"id": 1, "n": "2", "more": "x"}),
        ("ALTER TABLE t DROP more", {"id": 1, "n": "2"}),
        ("ALTER TABLE t RENAME n TO m", {"id": 1, "m": "2"}),
        ("DROP TABLE t; CREATE TABLE t (id text PRIMARY KEY); INSERT INTO t VALUES ('a')", {"id": "a"}),
        ("INSERT INTO t VALUES ('0')", {"id": "0"}),
    ):
        await bot.execute(change)
        for _ in range(4):
            assert await look(data, "t") == shown
            await data.editors.close()


async def test_a_connection_that_ended_is_not_held_by_the_statement_that_was_kept_on_it(data: Desk, project: Project) -> None:
    for _ in range(4):
        await look(data, "traces")
        await data.editors.close()
    async with data.editors.session(project.project_id, Session(read_only=True)) as connection:
        gone = weakref.ref(connection)
        connection.terminate()
    await data.editors.close()
    del connection
    gc.collect()
    assert gone() is None
