"""A real worker process on a real project database: what an error handler does is the event's result, what its handler did is not there."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from itertools import count
from pathlib import Path
from typing import Any

import asyncpg
import msgspec
import pytest
from loquat import protocol
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.errors import BotError, Superseded
from loquat_sandbox import Sandbox

from tests.bots import login_of, started
from tests.tenants import Desk, Project, Tenants, message

BOT = """
from loquat import Bot, Context

bot = Bot()
TABLE = "CREATE TABLE IF NOT EXISTS notes (text text UNIQUE DEFERRABLE INITIALLY DEFERRED)"


@bot.fallback
async def write(ctx: Context) -> None:
    await ctx.db.execute(TABLE)
    await ctx.db.execute("INSERT INTO notes VALUES ('handler')")
    ctx.reply_text("never said")
    if ctx.event.text == "twice":
        await ctx.db.execute("INSERT INTO notes VALUES ('handler')")
    else:
        raise KeyError("half \\ud83d")


@bot.command("read")
async def read(ctx: Context) -> None:
    ctx.reply_text(", ".join(k for row in await ctx.db.fetch("SELECT * FROM things") for k in row.keys()))


@bot.command("forget")
async def forget(ctx: Context) -> None:
    await ctx.pool.execute("DEALLOCATE ALL")


@bot.error
async def sorry(ctx: Context, error: Exception) -> None:
    await ctx.db.execute(TABLE)
    await ctx.db.execute("INSERT INTO notes VALUES ($1)", type(error).__name__)
    if ctx.event.text == "again":
        raise error
    ctx.reply_text(f"Sorry: {type(error).__name__}")
    ctx.goto("sorry")
"""
Lines = list[tuple[str, str]]


@pytest.fixture
async def project(tenants: Tenants) -> AsyncGenerator[Project]:
    made = await tenants.project()
    yield made
    await tenants.drop(made)


@pytest.fixture
def lines() -> Lines:
    return []


@pytest.fixture
async def worker(sandbox: Sandbox, bundles: Path, project: Project, tenants: Tenants, lines: Lines) -> AsyncGenerator[Worker]:
    (bundles / "bot.py").write_text(BOT)
    made = await started(sandbox, bundles, lambda _, level, text: lines.append((level, text)), login_of(tenants, project))
    yield made
    await made.kill()


async def handled(worker: Worker, desk: Desk, text: str, who: str = "wa_id:49151") -> tuple[dict[str, Any], asyncpg.Record]:
    """The result of a message, and what `begin_run` answers after it."""
    event = message(who, text=text)
    begun = await desk.begin(event)
    result = await worker.call(
        10,
        event={"id": event["id"], "type": "text", "text": text, "content": {"body": text}},
        contact={"id": str(begun["contact_id"])},
        conversation={"id": str(begun["conversation_id"]), "number_id": "1"},
        state=begun["state"],
        version=begun["version"],
    )
    return result, await desk.begin(event)


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("text", "error"), [("fail", "KeyError"), ("twice", "UniqueViolationError")], ids=["in the handler", "at its commit"]
)
async def test_after_an_error_its_handlers_rows_and_result_are_there_and_nothing_of_the_one_that_failed(
    worker: Worker, project: Project, lines: Lines, text: str, error: str
) -> None:
    result, after = await handled(worker, await Desk.of(project), text)
    assert result == {"replies": [{"type": "text", "text": f"Sorry: {error}"}], "state": "sorry"}
    assert after["todo"] == "recorded", "the result stands in the database, with what the error handler wrote"
    assert [r["text"] for r in await (await project.login("bot")).fetch("SELECT text FROM notes")] == [error]
    (level, told) = lines[-1]
    assert level == "error", "the owner learns of the error though the event is over"
    assert error in told


async def test_an_error_handler_that_raises_leaves_the_event_to_the_platforms_own_tries(worker: Worker, project: Project) -> None:
    desk = await Desk.of(project)
    with pytest.raises(BotError, match="KeyError") as failed:
        await handled(worker, desk, "again")
    assert "in write" in failed.value.trace
    with pytest.raises(asyncpg.UndefinedTableError):
        await (await project.login("bot")).fetch("SELECT text FROM notes")


async def test_a_statement_that_is_prepared_no_more_begins_the_run_anew_and_the_next_finds_it_well(
    worker: Worker, project: Project
) -> None:
    owner, desk = await project.login("bot"), await Desk.of(project)
    await owner.execute("CREATE TABLE things AS SELECT 1 AS a")

    contacts = (f"wa_id:{n}" for n in count(49_152))

    async def read() -> str:
        return (await handled(worker, desk, "/read", next(contacts)))[0]["replies"][0]["text"]

    assert [await read(), await read()] == ["a", "a"]
    await owner.execute("ALTER TABLE things ADD b int")
    with pytest.raises(Superseded, match="InvalidCachedStatement"):
        await read()
    assert await read() == "a, b"
    await handled(worker, desk, "/forget", next(contacts))
    with pytest.raises(Superseded, match="InvalidSQLStatementName"):
        await read()
    assert await read() == "a, b"


class ReadyOfBefore(msgspec.Struct, tag="ready", frozen=True):
    states: list[str]


def test_a_runner_of_before_reads_what_a_worker_of_now_says_and_the_other_way_round() -> None:
    declared = [protocol.Declared("anything else", "s", "start", "bot.py, line 1")]
    now = protocol.pack(protocol.Ready(["s"], declared))[protocol.HEADER.size :]
    assert msgspec.msgpack.decode(now, type=ReadyOfBefore) == ReadyOfBefore(["s"])
    assert protocol.WORKER_FRAMES.decode(msgspec.msgpack.encode(ReadyOfBefore(["s"]))) == protocol.Ready(["s"], [])
