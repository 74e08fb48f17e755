"""Change sets that are broken off: the record says what is true, at the latest at the next look; what took effect is announced once."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import pytest
from loquat_common.bus.port import BusUnavailable
from loquat_events.catalog import PROJECTS
from loquat_events.ids import fact_id
from loquat_schema_manager.adapters.execution import Outcome
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.store import Store

from tests.changing import Workshop, control, open_workshop
from tests.desk import USER
from tests.tenants import Project

if TYPE_CHECKING:
    from conftest import Platform

CREATE: dict[str, Any] = {"change": "create_table", "name": "orders", "columns": []}
OLD = "UPDATE change_sets SET created_at = created_at - interval '1 hour'"
DIES = """
import asyncio, sys
from pathlib import Path
from importlib.resources import files
import asyncpg
from loquat_common.db import ProjectPools, open_pool
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_rest.changes import CreateTable
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.records import Records
from tests.desk import Listing
from tests.tenants import Names, Project

async def main(control, project_id, database, host, port, user, password, points):
    listing = Listing()
    listing.list(Project(None, Names(database), project_id))
    async def dial(place):
        return await asyncpg.connect(host=host, port=int(port), database=place.database, user=user, password=password, statement_cache_size=0)
    async def no_size(_project):
        return None
    editors = Editors(Directory(listing), ProjectPools(dial), no_size)
    pool = await open_pool(control, search_path="schema_manager, pg_catalog")
    await ChangeSets(editors, Records(pool), failpoints=Failpoints(Path(points))).apply(project_id, [CreateTable(name="orders")], actor="key_of_anna")

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def shop(project: Project, platform: Platform, tmp_path: Path) -> AsyncGenerator[Workshop]:
    async with open_workshop(project, await control(platform), points=tmp_path) as made:
        yield made


async def states(shop: Workshop) -> list[str]:
    return [c["state"] for c in (await shop.desk.good("GET", "/changes"))["items"]]


async def there(shop: Workshop) -> bool:
    return (await shop.desk.ask("GET", "/tables/orders")).status == 200


@pytest.mark.parametrize(("point", "took_effect"), [("changes.done", False), ("changes.sealed", False), ("changes.committed", True)])
async def test_the_record_of_a_process_that_was_killed_says_what_the_database_says(
    shop: Workshop, project: Project, platform: Platform, tmp_path: Path, point: str, took_effect: bool
) -> None:
    (tmp_path / point).touch()
    cluster, names = project.tenants.cluster, project.names
    place = (project.project_id, names.database, cluster.host, str(cluster.port), names.login("editor"), "a-password-of-tests")
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", DIES, platform.dsn("schema-manager"), *place, str(tmp_path), env={**os.environ, "PYTHONPATH": str(Path.cwd())}
    )
    async with asyncio.timeout(30):
        assert await process.wait() == -signal.SIGKILL
    assert await states(shop) == ["applying"]
    await shop.pool.execute(OLD)
    async with asyncio.timeout(20):
        while await states(shop) == ["applying"]:
            await shop.changes.settle()  # "in progress" until the server has seen that its client is gone
    assert await states(shop) == ["applied" if took_effect else "failed"]
    assert await there(shop) is took_effect
    assert await shop.announcements.once() == int(took_effect)


async def test_a_connection_that_is_lost_at_the_commit_says_that_the_outcome_is_unknown_and_the_record_finds_it_out(
    shop: Workshop, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = await project.root()

    async def cut(self: Records, change_set: UUID, xid: str, outcome: Outcome) -> None:
        await seal(self, change_set, xid, outcome)
        await root.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", project.names.login("editor"))

    seal = Records.seal
    monkeypatch.setattr(Records, "seal", cut)
    problem = await shop.refused(CREATE, status=503, code="outcome_unknown")
    assert (await shop.desk.good("GET", f"/changes/{problem['change_set']}"))["state"] == "failed"
    assert not await there(shop)


async def test_a_change_that_takes_too_long_is_broken_off_and_leaves_nothing(shop: Workshop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loquat_schema_manager.adapters.changesets.LIMIT", 0.3)
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE c (n int); CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN PERFORM pg_sleep(20); RETURN NULL; END $$;"
        "CREATE TRIGGER slow AFTER TRUNCATE ON c EXECUTE FUNCTION slow()"
    )
    await shop.refused(CREATE, {"change": "clear_table", "table": "c"}, status=422, code="too_slow")
    assert (await states(shop), await there(shop)) == ([], False)


async def test_an_open_record_is_looked_into_when_somebody_looks_at_it(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "changes.committed").write_text("raise")
    assert (await shop.desk.ask("POST", "/changes", {"changes": [CREATE]})).status == 500
    change_set = (await shop.desk.good("GET", "/changes"))["items"][0]["id"]
    seen = await shop.desk.good("GET", f"/changes/{change_set}")
    assert (seen["state"], seen["tables"], seen["reverse"]) == ("applied", ["orders"], ['DROP TABLE "public"."orders"'])
    await shop.desk.good("POST", f"/changes/{change_set}/revert", {})
    assert not await there(shop)


async def test_an_intent_that_was_given_up_meanwhile_never_takes_effect(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute("CREATE TABLE slow (a int)")
    lock = bot.transaction()
    await lock.start()
    await bot.execute("LOCK TABLE slow")
    waiting = asyncio.create_task(
        shop.desk.ask("POST", "/changes", {"changes": [CREATE, {"change": "comment_table", "table": "slow", "comment": "x"}]})
    )
    async with asyncio.timeout(5):
        while not await shop.pool.fetchval("SELECT count(*) FROM change_sets"):  # noqa: ASYNC110  (another connection)
            await asyncio.sleep(0)
    await shop.pool.execute(OLD)
    await shop.changes.settle()
    await lock.commit()
    answer = await waiting
    assert (answer.status, answer.json["code"]) == (409, "locked")
    assert not await there(shop)
    assert await states(shop) == ["failed"]


async def test_a_record_of_a_database_that_was_replaced_is_unknown_and_undoes_nothing(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "changes.committed").write_text("raise")
    await shop.desk.ask("POST", "/changes", {"changes": [CREATE]})
    await shop.pool.execute(f"{OLD}, epoch = 0")
    await shop.changes.settle()
    assert await states(shop) == ["unknown"]
    applied = await shop.change({"change": "comment_table", "table": "orders", "comment": "x"})
    await shop.pool.execute("UPDATE change_sets SET epoch = 0")
    await shop.desk.bad("POST", f"/changes/{applied['id']}/revert", {}, status=409, code="irreversible")


async def test_a_transaction_number_of_another_time_is_unknown(shop: Workshop, tmp_path: Path) -> None:
    (tmp_path / "changes.committed").write_text("raise")
    await shop.desk.ask("POST", "/changes", {"changes": [CREATE]})
    await shop.pool.execute(f"{OLD}, xid = '9000000000'")
    await shop.changes.settle()
    assert await states(shop) == ["unknown"]


async def test_a_change_that_the_bus_did_not_take_is_announced_later_and_once(shop: Workshop) -> None:
    shop.desk.bus.broker.down = True
    made = await shop.change(CREATE)
    with pytest.raises(BusUnavailable):
        await shop.announcements.once()
    shop.desk.bus.broker.down = False
    assert (await shop.announcements.once(), await shop.announcements.once()) == (1, 0)
    (said,) = shop.announced()
    assert (str(said.change_set), said.tables, said.actor) == (made["id"], ("orders",), USER)


async def test_a_second_announcement_of_the_same_change_is_the_same_event(shop: Workshop) -> None:
    made = await shop.change(CREATE)
    await shop.announcements.once()
    await shop.pool.execute("UPDATE change_sets SET announced_at = NULL")  # as after a kill between the publish and the mark
    await shop.announcements.once()
    ids = [e.id for e in shop.desk.bus.broker.events(PROJECTS)]
    assert ids == [fact_id("schema", shop.desk.project.project_id, made["id"])] * 2


async def test_the_loop_announces_what_it_is_woken_for(shop: Workshop) -> None:
    loop = asyncio.create_task(shop.announcements.run(shop.changes))
    try:
        await shop.change(CREATE)
        async with asyncio.timeout(5):
            while not shop.announced():  # noqa: ASYNC110  (the loop under test)
                await asyncio.sleep(0)
    finally:
        loop.cancel()


async def test_what_a_trigger_of_the_projects_puts_off_to_the_commit_fails_the_change_before_it(shop: Workshop) -> None:
    bot = await shop.desk.bot()
    await bot.execute(
        "CREATE TABLE a (id int PRIMARY KEY); CREATE TABLE b (a int REFERENCES a DEFERRABLE INITIALLY DEFERRED); CREATE TABLE c (n int);"
        "CREATE FUNCTION stray() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN INSERT INTO b VALUES (7); RETURN NULL; END $$;"
        "CREATE TRIGGER stray AFTER TRUNCATE ON c EXECUTE FUNCTION stray(); INSERT INTO c VALUES (1)"
    )
    clear = {"change": "clear_table", "table": "c"}
    tried = await shop.dry(clear)
    assert [(f["change"], f["code"]) for f in tried["failures"]] == [(0, "foreign_key")]
    problem = await shop.refused(clear, status=409, code="foreign_key")
    assert "Key (a)=(7) is not present" in problem["detail"]
    assert await bot.fetchval("SELECT count(*) FROM c") == 1
    assert await states(shop) == []


async def test_deleting_a_project_deletes_its_records(shop: Workshop) -> None:
    await shop.change(CREATE)
    await Store(shop.pool, lambda: 0.0).forget([shop.desk.project.project_id])
    assert await shop.pool.fetchval("SELECT count(*) FROM change_sets") == 0
