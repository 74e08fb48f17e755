"""An uploaded dump: the owner's own objects come into a new project, as its owner, all or nothing; the system's rows do not."""

from __future__ import annotations

import asyncio
from typing import Any
from unittest.mock import ANY

import orjson
import pytest
from loquat_provisioner.http.pace import Pace

from services.provisioner.tests.counter import Counter, open_counter
from services.provisioner.tests.workshop import Workshop
from tests.system.world import until
from tests.tenants import Desk, message
from tests.tenants import Project as Tenant

SHOP = (
    "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE TABLE orders (id serial PRIMARY KEY, mood mood, contact uuid, CHECK (id > 0));"
    " CREATE TABLE lines (id int PRIMARY KEY, of int REFERENCES orders); CREATE INDEX ON lines (of);"
    " CREATE VIEW named AS SELECT o.id, c.name FROM orders AS o LEFT JOIN contacts AS c ON c.id = o.contact;"
    " CREATE FUNCTION keep() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NEW; END $$;"
    " CREATE TRIGGER keeps BEFORE INSERT ON orders FOR EACH ROW EXECUTE FUNCTION keep(); COMMENT ON TABLE orders IS 'what was ordered';"
    " INSERT INTO orders (mood) SELECT 'good' FROM generate_series(1, 500); INSERT INTO lines SELECT n, n FROM generate_series(1, 500) AS n"
)


async def upload(counter: Counter, dump: bytes) -> tuple[int, Any]:
    headers = {"Content-Type": "application/octet-stream"}
    async with counter.http.post(counter.base + "/restore", data=dump, headers=headers) as response:
        return response.status, orjson.loads(await response.read())


async def dumped(shop: Workshop, sql: str = SHOP) -> bytes:
    """Of a project with this in it and a message of the past."""
    async with open_counter(shop) as source:
        editor = await shop.enter(source.project, "editor")
        await editor.execute(sql)
        await editor.close()
        tenant = Tenant(shop.tenants, source.names, source.project.project_id)
        await (await Desk.of(tenant)).record(message("phone:491700000001", text="of the past"))
        await tenant.close()
        return await source.file("/dump")


async def empty(counter: Counter) -> bool:
    root = await counter.shop.tenants.cluster.connect(counter.project.database or "")
    query = "SELECT count(*) = 0 FROM pg_class WHERE relowner = to_regrole($1)"
    found: bool = await root.fetchval(query, counter.names.owner)
    visitors = "SELECT count(*) = 0 FROM pg_roles WHERE rolname ~ ('^' || $1 || '_restore_')"
    found = found and await root.fetchval(visitors, counter.project.database)
    await root.close()
    return found


async def test_a_dump_comes_back_in_a_new_project_with_its_owner_and_without_the_systems_rows(shop: Workshop) -> None:
    dump = await dumped(shop)
    async with open_counter(shop) as counter:
        status, answer = await upload(counter, dump)
        assert (status, answer["tables"]) == (200, 2), answer
        assert answer["left_out"] > 10
        editor = await shop.enter(counter.project, "editor")
        assert await editor.fetchval("SELECT count(*) FROM orders JOIN lines ON lines.of = orders.id") == 500
        assert await editor.fetchval("INSERT INTO orders (mood) VALUES ('bad') RETURNING id") == 501, "the sequence goes on"
        assert await editor.fetchval("SELECT count(*) FROM named") == 501
        assert await editor.fetchval("SELECT obj_description('orders'::regclass)") == "what was ordered"
        assert await editor.fetchval("SELECT count(*) FROM messages") == 0
        owners = await editor.fetch("SELECT DISTINCT tableowner FROM pg_tables WHERE tablename IN ('orders', 'lines')")
        assert [r["tableowner"] for r in owners] == [counter.names.owner]
        await editor.close()
        assert (await upload(counter, dump))[1]["code"] == "not_empty"


async def test_a_dump_that_fails_in_the_middle_leaves_nothing_and_says_what_postgres_said(shop: Workshop) -> None:
    """An index on a function of the tenant's that does not like the other database. Another table came before it."""
    dump = await dumped(
        shop,
        "CREATE FUNCTION picky(n int) RETURNS int LANGUAGE plpgsql IMMUTABLE AS $$ BEGIN IF session_user ~ '_restore_' THEN"
        " RAISE 'not here'; END IF; RETURN n; END $$; CREATE TABLE first (id int); CREATE TABLE second (id int);"
        " INSERT INTO second VALUES (1); CREATE INDEX ON second (picky(id))",
    )
    async with open_counter(shop) as counter:
        status, answer = await upload(counter, dump)
        assert (status, answer["code"], answer["detail"]) == (422, "restore_failed", "not here")
        assert await empty(counter)
        assert (await upload(counter, dump[: len(dump) // 2]))[0] == 422
        assert await empty(counter)


@pytest.mark.promise("P4")
async def test_what_a_hostile_dump_evaluates_runs_as_its_tenant_and_can_do_no_more(shop: Workshop) -> None:
    """A check is evaluated by the COPY of the restore itself, with nothing between it and the session."""
    dump = await dumped(
        shop,
        "CREATE TABLE witness (who text); CREATE FUNCTION tell(n int) RETURNS int LANGUAGE plpgsql AS $$ DECLARE stolen text; BEGIN"
        " INSERT INTO public.witness VALUES (session_user || ' ' || current_user);"
        " FOREACH stolen IN ARRAY ARRAY['loquat_system', 'loquat_provisioner', 'loquat_dump', 'postgres'] LOOP"
        "  BEGIN RESET ROLE; EXECUTE 'SET ROLE ' || stolen; EXCEPTION WHEN OTHERS THEN CONTINUE; END;"
        "  INSERT INTO public.witness VALUES ('became ' || stolen); END LOOP; RETURN n; END $$;"
        " CREATE TABLE bait (id int CHECK (tell(id) > 0)); INSERT INTO bait VALUES (1); DELETE FROM witness",
    )
    async with open_counter(shop) as counter:
        status, answer = await upload(counter, dump)
        assert status == 200, answer
        editor = await shop.enter(counter.project, "editor")
        (told,) = [r["who"] for r in await editor.fetch("SELECT who FROM witness")]
        await editor.close()
        session, _, current = told.partition(" ")
        assert session.startswith(f"{counter.project.database}_restore_")
        assert current == counter.names.owner


@pytest.mark.parametrize(
    "body",
    [b"", b"SELECT 1;\n", b"PGDMP", b"PGDMP\x01\x10\x00" + b"\xff" * 5000, b"\x1f\x8b" + b"x" * 100],
    ids=["empty", "sql", "short", "junk", "gzip"],
)
async def test_what_is_no_dump_is_refused_with_what_is_taken(counter: Counter, body: bytes) -> None:
    status, answer = await upload(counter, body)
    assert (status, answer["code"]) == (422, "not_a_dump")
    assert "--format=custom" in answer["detail"]
    assert await empty(counter)


async def test_a_dump_larger_than_the_project_may_become_is_refused_on_the_way(counter: Counter) -> None:
    await counter.good("PATCH", "/limits", {"size_bytes": 16 << 20})

    async def endless() -> Any:
        yield b"PGDMP"
        while True:
            yield b"x" * 100_000
            await asyncio.sleep(0)

    headers = {"Content-Type": "application/octet-stream"}
    async with counter.http.post(counter.base + "/restore", data=endless(), headers=headers) as response:
        assert (response.status, (await response.json(content_type=None))["code"]) == (413, "too_large")


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("pace", "every"), [(Pace(silence=0.3), 60.0), (Pace(grace=0.5, rate=1 << 20), 0.05), (Pace(longest=0.5), 0.05)],
    ids=["says nothing more", "trickles", "has no end"],
)  # fmt: skip
async def test_an_upload_that_does_not_come_holds_no_turn_and_is_given_up(shop: Workshop, pace: Pace, every: float) -> None:
    begun = asyncio.Event()

    async def slow() -> Any:
        yield b"PGDMP"
        begun.set()
        while True:
            await asyncio.sleep(every)
            yield b"x"

    async with open_counter(shop, at_once=1, pace=pace) as counter:
        headers = {"Content-Type": "application/octet-stream"}
        silent = asyncio.create_task(counter.http.post(counter.base + "/restore", data=slow(), headers=headers))
        await begun.wait()
        assert (await counter.file("/dump")).startswith(b"PGDMP"), "the turn is free"
        response = await silent
        assert (response.status, (await response.json(content_type=None))["code"]) == (408, "too_slow")
        assert await empty(counter)


async def test_one_upload_of_a_project_is_received_at_a_time(counter: Counter) -> None:
    begun, over = asyncio.Event(), asyncio.Event()

    async def slow() -> Any:
        yield b"PGDMP"
        begun.set()
        await over.wait()

    def begin() -> asyncio.Task[Any]:
        return asyncio.create_task(counter.http.post(counter.base + "/restore", data=slow(), headers=headers))

    headers = {"Content-Type": "application/octet-stream"}
    first = begin()
    await begun.wait()

    async def refused() -> bool:
        nonlocal first
        if first.done():  # the second one was there before it, and it was refused itself
            first = begin()
        return (await upload(counter, b"PGDMP"))[1]["code"] == "busy"

    await until(refused, "the second is refused")
    over.set()
    assert (await first).status == 422
    assert (await upload(counter, b"PGDMP"))[1]["code"] == "not_a_dump"


async def test_an_upload_that_has_come_waits_a_while_for_its_turn(shop: Workshop) -> None:
    dump = await dumped(shop)
    async with open_counter(shop, at_once=1) as counter:
        async with counter.turns.turn("prj_other", "org_other"):
            waiting = asyncio.create_task(upload(counter, dump))
            await until(counter.turns.wanted, "it waits", 10)
        assert (await waiting)[0] == 200
    async with open_counter(shop, at_once=1, pace=Pace(patience=0.2)) as counter, counter.turns.turn("prj_other", "org_other"):
        assert await upload(counter, dump) == (429, ANY)
