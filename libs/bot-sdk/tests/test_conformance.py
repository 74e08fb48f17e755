"""The tester against the real thing: one bot, one talk, through a worker and a project's database, and in memory. Both must see the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Awaitable, Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from loquat.testing import BotTester
from loquat_bot_runner.errors import CallFailed
from loquat_embedded.postgres import Cluster
from loquat_sandbox import Sandbox

from tests.bots import login_of, started
from tests.tenants import Desk, Tenants, message

BOT = """
from loquat import Bot, Context

bot = Bot()


async def note(ctx: Context) -> None:
    await ctx.db.execute("CREATE TABLE IF NOT EXISTS notes (n int GENERATED ALWAYS AS IDENTITY, text text)")
    await ctx.db.execute("INSERT INTO notes (text) VALUES ($1)", f"{ctx.state}: {ctx.event.text}")
    await ctx.memory.increment("notes")
    await ctx.contact.memory.set("last", ctx.event.text)
    await ctx.contact.set(name=f"Ada {ctx.event.text}", language="de", attributes={ctx.state: 1, ctx.event.text: None})


@bot.tool
async def known(ctx: Context) -> str:
    contact, there = ctx.contact, await ctx.memory.get("notes")
    return f"{contact.name} {contact.language} {sorted(contact.attributes)} {there} {await contact.memory.get('last')}"


@bot.state("unstructured")
async def start(ctx: Context) -> None:
    ctx.reply_text(f"hello {await ctx.tools.call('known', '')}")
    await note(ctx)
    ctx.goto("talk")


@bot.state("talk")
async def talk(ctx: Context) -> None:
    ctx.reply_buttons("?", [("a", "A")])
    ctx.reply_list("?", "Open", [("r", "R"), ("s", "S", "D")])
    ctx.reply_image("https://example.org/a.png", "caption")


@bot.text("next")
async def go(ctx: Context) -> None:
    ctx.goto("other")
    await note(ctx)


@bot.on_enter("other")
async def enter(ctx: Context) -> None:
    ctx.reply_text("in other")


@bot.text("ask")
async def asks(ctx: Context) -> None:
    await note(ctx)
    await ctx.reply_now("two questions")
    name = await ctx.ask("name?", validate=str.title, cancel=["stop"], no_answer="stopped")
    await ctx.reply_now(f"one more, {name}")
    age = await ctx.ask("age?", key="age", validate=int, tries=2, no_answer="too often")
    ctx.reply_text(f"{name} {age} {ctx.event.text}")


@bot.text("bye")
async def bye(ctx: Context) -> None:
    ctx.goto("gone")
    ctx.end()


@bot.text("fail", "apologise")
async def fail(ctx: Context) -> None:
    await note(ctx)
    await ctx.reply_now("oh")
    ctx.goto("never")
    raise RuntimeError


@bot.error
async def sorry(ctx: Context, error: Exception) -> None:
    if ctx.event.text == "fail":
        raise error
    await note(ctx)
    await ctx.reply_now("at once")
    ctx.reply_text(f"sorry in {ctx.state} {await known(ctx)}")
    ctx.goto("sorry")


@bot.unknown_state
async def lost(ctx: Context) -> None:
    ctx.reply_text(f"lost in {ctx.state} {await known(ctx)}")
"""
TALK = [
    "hi",
    "so",
    "ask",
    "ada",
    "many",
    "36",
    "ask",
    "Stop",
    "ask",
    "ada",
    "x",
    "y",
    "fail",
    "next",
    "apologise",
    "hm",
    "bye",
    "again",
    "fail",
    "bye",
    "bye",
]
NOTES = "SELECT text FROM notes ORDER BY n"


Talk = Callable[[], Awaitable[tuple[list[dict[str, Any]], list[str]]]]


@pytest.fixture
def folder(bundles: Path) -> Path:
    (bundles / "bot.py").write_text(BOT)
    return bundles


async def in_memory(folder: Path, database: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The talk through the tester."""
    seen: list[dict[str, Any]] = []
    with BotTester.load(folder, database=database) as tester:
        before: set[object] = set()
        for text in TALK:
            state, version = ("unstructured", 0) if tester.closed else (tester.state, tester.version)
            try:
                replies = [r.wire() for r in await tester.send(text)]
            except RuntimeError:
                replies = None
            seen.append({"state": state, "version": version, "replies": replies, "opens": tester.conversation.id not in before})
            before.add(tester.conversation.id)
        return seen, [r["text"] for r in await tester.fetch(NOTES)]


class AtOnce:
    """What is said before the end of a call, made true by the platform's function."""

    def __init__(self, desk: Desk, event: str, version: int) -> None:
        self._desk, self._event, self._version = desk, UUID(event), version
        self.said, self.replies = 0, list[dict[str, Any]]()

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        query = "SELECT outbox FROM loquat.say_now($1, $2, $3, $4, $5) WHERE status = 'said'"
        rows: list[dict[str, Any]] = await self._desk.runner.fetchval(query, self._event, answered, self._version, place, reply) or []
        await self._desk.runner.execute("SELECT loquat.clear_said($1)", [UUID(r["message_id"]) for r in rows])
        self.replies += [{k: v for k, v in r["body"].items() if v is not None} for r in rows]
        self.said += 1

    async def typing(self) -> None:
        return


@pytest.fixture
async def platform_talk(sandbox: Sandbox, folder: Path, tenants: Tenants) -> AsyncGenerator[Talk]:
    """The talk through a worker and the platform's functions."""
    project = await tenants.project()
    lines: list[str] = []
    worker = await started(sandbox, folder, lambda _, level, text: lines.append(f"{level} {text}"), login_of(tenants, project))

    async def talk() -> tuple[list[dict[str, Any]], list[str]]:
        desk, seen, before = await Desk.of(project), list[dict[str, Any]](), set[object]()
        for text in TALK:
            event = message("wa_id:49151", text=text, name="Ada")
            begun = await desk.begin(event)
            state, version, conversation = begun["state"], begun["version"], begun["conversation_id"]
            where = {"id": str(conversation), "number_id": "1"}
            said = {"id": event["id"], "type": "text", "text": text, "content": {"body": text}}
            context = await desk.runner.fetchval("SELECT loquat.context_of($1)", begun["contact_id"])
            who = {"id": str(begun["contact_id"]), **context["contact"]}
            ask = await desk.runner.fetchval("SELECT loquat.ask_of($1)", conversation)
            voice = AtOnce(desk, event["id"], version)
            try:
                handled = await worker.handled(
                    10, voice, event=said, contact=who, conversation=where, state=state, version=version, ask=ask
                )
                assert (await desk.commit(event, version, handled.result))["status"] == "committed"
                replies = [*voice.replies, *handled.result["replies"]]
            except CallFailed:
                replies = None
            seen.append({"state": state, "version": version, "replies": replies, "opens": conversation not in before})
            before.add(conversation)
        return seen, [r["text"] for r in await (await project.login("bot")).fetch(NOTES)]

    yield talk
    await worker.kill()
    await tenants.drop(project)


async def test_a_talk_with_the_tester_is_the_talk_that_the_platform_has(
    platform_talk: Talk, folder: Path, platform_cluster: Cluster
) -> None:
    real, notes = await platform_talk()
    played, noted = await in_memory(folder, platform_cluster.dsn())
    assert played == real
    assert noted == notes
    assert sum(s["opens"] for s in real) == 3, "the talk is worth comparing"
    assert [s["replies"] for s in real].count(None) == 2
