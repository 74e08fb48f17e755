"""Whatever a project does to its own requests is an answer: never a fault of the platform's, and never a wrong word about what was changed."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import asyncpg
import pytest
from asyncpg.transaction import Transaction
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.refusals import refusal
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.http.history import Histories
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.transfer import TransferApi

from tests.desk import Desk, open_desk
from tests.tenants import Project

Told = list[int]
SERVERS = ("XX000", "XX001", "08006", "58030", "57P03")
"""Codes of the server's own troubles. A tenant may raise them, too."""


@pytest.fixture
def told() -> Told:
    return []


@pytest.fixture
async def data(project: Project, told: Told) -> AsyncGenerator[Desk]:
    def changed(_project: str, _table: str, count: int, _actor: str) -> None:
        told.append(count)

    def add(api: object, editors: object, _bus: object) -> None:
        parts = Rows(editors, changed), Imports(editors, changed), Exports(editors), History(editors, changed)  # pyright: ignore[reportArgumentType]
        for part in (RowsApi(parts[0]), TransferApi(parts[1], parts[2]), Histories(parts[3])):
            part.add_to(api)  # pyright: ignore[reportArgumentType]

    async with open_desk(project, add) as made:
        yield made


@pytest.mark.parametrize(
    "raises",
    ["CASE NEW.id WHEN 0 THEN NULL; END CASE", *(f"RAISE 'no' USING ERRCODE = '{c}'" for c in ("ZZ999", "57P01", "53300", *SERVERS))],
)
async def test_whatever_a_trigger_raises_is_its_own_no(data: Desk, raises: str) -> None:
    await (await data.bot()).execute(
        f"CREATE TABLE e (id int PRIMARY KEY); CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {raises}; RETURN NEW; END $$;"
        "CREATE TRIGGER t BEFORE INSERT ON e FOR EACH ROW EXECUTE FUNCTION f()"
    )
    await data.bad("POST", "/tables/e/rows", {"rows": [{"id": 1}]}, status=422, code="raised")
    answer = await data.ask("POST", "/tables/e/import", raw=b"id\n1\n", kind="text/csv")
    assert answer.status < 500, answer.body


@pytest.mark.parametrize("code", SERVERS)
async def test_what_a_trigger_puts_off_to_the_commit_and_raises_with_a_code_of_the_servers_is_its_own_no(
    data: Desk, told: Told, code: str
) -> None:
    bot = await data.bot()
    await bot.execute(f"CREATE FUNCTION f() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '{code}'; END $$")
    await bot.execute(
        "CREATE TABLE e (id int PRIMARY KEY); INSERT INTO e VALUES (1);"
        "CREATE CONSTRAINT TRIGGER t AFTER INSERT OR UPDATE OR DELETE ON e DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION f()"
    )
    for answer in (
        await data.ask("POST", "/tables/e/rows", {"rows": [{"id": 2}]}),
        await data.ask("DELETE", "/tables/e/rows", {"key": {"id": 1}}),
        await data.ask("POST", "/tables/e/import", raw=b"id\n3\n", kind="text/csv"),
    ):
        assert (answer.status, answer.json["code"]) == (422, "raised"), answer.body
    assert [r["id"] for r in await bot.fetch("SELECT id FROM e")] == [1]
    assert told == []


def test_a_trouble_of_the_servers_own_is_no_answer_to_the_tenant() -> None:
    told = {"S": "ERROR", "V": "ERROR", "M": "could not read blocks"}
    for code in ("58030", "XX001", "XX002"):
        assert refusal(asyncpg.PostgresError.new({**told, "C": code, "R": "mdreadv"})) is None
        assert refusal(asyncpg.PostgresError.new({**told, "C": code, "R": "exec_stmt_raise"})) is not None
        assert refusal(asyncpg.PostgresError.new({**told, "V": "FATAL", "C": code, "R": "exec_stmt_raise"})) is None


async def test_a_view_that_raises_a_lost_connection_while_it_is_read_is_its_own_no(data: Desk) -> None:
    await (await data.bot()).execute(
        "CREATE FUNCTION f() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE 'no' USING ERRCODE = '08006'; END $$; CREATE VIEW v AS SELECT f() AS n"
    )
    await data.bad("POST", "/tables/v/query", {}, status=422, code="raised")
    await data.bad("GET", "/tables/v/export", status=422, code="raised", format="csv")


async def test_a_stale_change_is_told_whatever_numbers_were_given_and_however_deep_the_row_is(data: Desk) -> None:
    bot = await data.bot()
    await bot.execute("CREATE TABLE n (id int PRIMARY KEY, v numeric, j jsonb); INSERT INTO n VALUES (1)")
    raw = b'{"key":{"id":1},"version":"1","values":{"v":1234567890123456789012345}}'
    answer = await data.ask("PATCH", "/tables/n/rows", raw=raw)
    assert (answer.status, answer.headers["Content-Type"]) == (409, "application/problem+json")
    assert b'"v":1234567890123456789012345' in answer.body
    await bot.execute("UPDATE n SET j = (repeat('[', 2000) || repeat(']', 2000))::jsonb")
    answer = await data.ask("PATCH", "/tables/n/rows", {"key": {"id": 1}, "version": "1", "values": {"v": 1}})
    assert (answer.status, b'"code":"row_changed"' in answer.body, b"[" * 2000 in answer.body) == (409, True, True)


@pytest.mark.parametrize("when", ["before", "after"])
async def test_a_lost_answer_to_a_commit_is_not_called_a_database_that_is_away(
    data: Desk, project: Project, told: Told, monkeypatch: pytest.MonkeyPatch, when: str
) -> None:
    bot, root = await data.bot(), await project.root()
    await bot.execute("CREATE TABLE t (id int PRIMARY KEY, n int)")
    await data.good("PUT", "/tables/t/history", {"enabled": True})
    row = (await data.good("POST", "/tables/t/rows", {"rows": [{"id": 1}, {"id": 2}, {"id": 3}]}))["items"][0]
    noted = (await data.good("GET", "/tables/t/history"))["items"][0]
    commit = Transaction.commit

    async def cut(self: Transaction) -> None:
        if when == "after":
            await commit(self)
        await root.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", project.names.login("editor"))
        if when == "after":
            raise ConnectionResetError
        await commit(self)

    monkeypatch.setattr(Transaction, "commit", cut)
    told.clear()
    change = {"key": {"id": 1}, "version": row["version"], "values": {"n": 1}}
    for method, path, body in (
        ("PATCH", "/tables/t/rows", change),
        ("POST", "/tables/t/rows", {"rows": [{"id": 4}]}),
        ("DELETE", "/tables/t/rows", {"key": {"id": 2}}),
        ("POST", f"/tables/t/history/{noted['id']}/undo", None),
    ):
        answer = await data.ask(method, path, body)
        assert (answer.status, answer.json["code"], "Retry-After" in answer.headers) == (503, "outcome_unknown", False), answer.body
    assert {r["id"] for r in await bot.fetch("SELECT id FROM t")} == ({1, 4} if when == "after" else {1, 2, 3})
    assert told == []


async def test_a_connection_lost_before_the_commit_is_a_database_that_is_away(
    data: Desk, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = await project.root()
    await (await data.bot()).execute("CREATE TABLE t (id int PRIMARY KEY)")
    start = Transaction.start

    async def cut(self: Transaction) -> None:
        await start(self)
        await root.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", project.names.login("editor"))

    monkeypatch.setattr(Transaction, "start", cut)
    await data.bad("POST", "/tables/t/rows", {"rows": [{"id": 2}]}, status=503, code="database_away")
