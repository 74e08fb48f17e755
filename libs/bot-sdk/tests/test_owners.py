"""What the owner gives a bot: configuration, secrets; what the bot notes of a contact; work outside of its transaction."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import uuid4

import asyncpg
import msgspec
import pytest
from loquat import Bot, ContactRefused, Context, ReplyRefused, protocol
from loquat.contact import Contact
from loquat.database import Database, DatabaseAway
from loquat.outside import AllButOne, Outside
from loquat.testing import BotTester
from loquat_embedded.postgres import Cluster

bot = Bot()
bot.config("greeting", default="Hello", help="how people are greeted")
bot.config("limit", type=int)
bot.config("hours", default=[9, 17])
bot.config("closed", default=None, type=str)


@bot.text("who")
async def who(ctx: Context) -> None:
    name = (ctx.contact.name or "stranger").upper()
    await ctx.contact.set(name=name, language="de", attributes={"vip": True, "visits": ctx.contact.attributes.get("visits", 0) + 1})
    ctx.reply_text(f"{ctx.contact.name} {ctx.contact.language} {ctx.contact.attributes['visits']}")


@bot.text("forget")
async def forget(ctx: Context) -> None:
    await ctx.contact.set(attributes={"vip": None})


@bot.text("too much")
async def too_much(ctx: Context) -> None:
    await ctx.contact.set(attributes={"a": "x" * 60_000})
    for _ in range(47):
        ctx.reply_text("x" * 4000)


@bot.fallback
async def greet(ctx: Context) -> None:
    ctx.config["hours"].append(18)  # of a copy
    ctx.reply_text(f"{ctx.config['greeting']} {ctx.config.get('limit')} {ctx.config['closed']} {len(ctx.config['hours'])}")


async def test_a_change_of_the_configuration_holds_from_the_next_message_on_and_defaults_until_then() -> None:
    tester = BotTester(bot)
    assert (await tester.send("hi"))[0].text == "Hello None None 2"
    tester.config |= {"greeting": "Hi", "limit": 3, "closed": "Mondays"}
    assert (await tester.send("hi"))[0].text == "Hi 3 Mondays 2"
    del tester.config["greeting"]
    assert (await tester.send("hi"))[0].text == "Hello 3 Mondays 2"


async def test_a_key_that_is_not_set_not_declared_or_of_another_type_is_named() -> None:
    seen: list[Mapping[str, Any]] = []
    odd = Bot()
    odd.config("limit", type=int)

    @odd.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        seen.append(ctx.config)

    await BotTester(odd, config={"limit": "3"}).send("hi")
    await BotTester(odd).send("hi")
    with pytest.raises(TypeError, match="'limit' is no int"):
        _ = seen[0]["limit"]
    with pytest.raises(KeyError, match="'limit' is not set"):
        _ = seen[1]["limit"]
    with pytest.raises(KeyError, match="declare it with bot"):
        _ = seen[1]["limti"]
    assert ("limit" in seen[0], "limit" in seen[1], list(seen[0]), len(seen[1])) == (True, False, ["limit"], 0)


@pytest.mark.parametrize(
    ("declared", "told"),
    [
        ({"key": "a b", "default": 1}, "letters, digits"),
        ({"key": "k"}, "needs a default or a type"),
        ({"key": "k", "default": None}, "needs a default or a type"),
        ({"key": "k", "default": {1}}, "not set"),
        ({"key": "k", "default": "x", "type": int}, "is no int"),
        ({"key": "k", "default": True, "type": int}, "is no int"),
        ({"key": "k", "default": "x" * 20_000}, "16,384 are the limit"),
    ],
)
def test_a_declaration_that_could_not_hold_is_refused_when_the_bot_loads(declared: dict[str, Any], told: str) -> None:
    with pytest.raises((TypeError, ValueError), match=told):
        Bot().config(declared.pop("key"), **declared)


async def test_what_is_noted_of_a_contact_is_there_at_the_next_message_and_a_none_takes_it_away() -> None:
    tester = BotTester(bot)
    assert (await tester.send("who"))[0].text == "ADA de 1"
    assert (await tester.send("who"))[0].text == "ADA de 2"
    assert dict(tester.contact.attributes) == {"vip": True, "visits": 2}
    await tester.send("forget")
    assert dict(tester.contact.attributes) == {"visits": 2}


@pytest.mark.parametrize(
    ("given", "told"),
    [
        ({"name": ""}, "1 to 200 are possible"),
        ({"name": "x" * 201}, "has 201 characters"),
        ({"name": 3}, "is a text"),
        ({"language": "german please"}, "a tag such as 'de'"),
        ({"attributes": {"a": "x" * 65_536}}, "65,536 are the limit"),
        ({"attributes": {"a": object()}}, "cannot be kept as JSON"),
        ({"attributes": {"new": "x" * 40_000}}, "together"),
    ],
)
async def test_what_a_contact_cannot_have_is_refused_and_nothing_of_it_is_noted(given: dict[str, Any], told: str) -> None:
    contact = Contact(uuid4(), "Ada", attributes={"old": "x" * 40_000})
    with pytest.raises(ContactRefused, match=told):
        await contact.set(**given)
    assert (contact.changes, contact.name, list(contact.attributes)) == ({}, "Ada", ["old"])


async def test_replies_and_what_is_noted_are_bounded_together() -> None:
    with pytest.raises(ReplyRefused, match="together"):
        await BotTester(bot).send("too much")


async def test_where_the_database_is_not_brought_forward_yet_noting_waits_for_it() -> None:
    with pytest.raises(DatabaseAway):
        await Contact(uuid4(), attributes=None).set(name="Ada")


@pytest.mark.promise("P8")
async def test_secrets_are_shown_by_their_names_only() -> None:
    told: list[str] = []
    keeper = Bot()

    @keeper.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        assert ctx.secrets["api_key"] == "s3cr3t-value"
        told.append(f"{ctx.secrets!r} {ctx.secrets} {list(ctx.secrets)} {ctx.config!r}")
        with pytest.raises(KeyError, match="there is no secret 'other'"):
            _ = ctx.secrets["other"]

    await BotTester(keeper, secrets={"api_key": "s3cr3t-value"}, config={"greeting": "c0nfig"}).send("hi")
    call = protocol.Call(1, {"id": "e"}, {}, {}, "s", 0, {"greeting": "c0nfig"}, {"api_key": "s3cr3t-value"})
    told += [repr(call), str([call]), repr(protocol.Start("/bot", "postgresql://u:s3cr3t-value@h/d"))]
    assert "api_key" in told[0]
    assert not [t for t in told if "s3cr3t" in t or "c0nfig" in t]


class CallOfBefore(msgspec.Struct, tag="call", frozen=True):
    id: int
    event: dict[str, Any]
    contact: dict[str, Any]
    conversation: dict[str, Any]
    state: str
    version: int


def test_a_worker_of_now_reads_the_call_of_a_runner_of_before_and_the_other_way_round() -> None:
    before = CallOfBefore(1, {}, {}, {}, "s", 0)
    assert protocol.RUNNER_FRAMES.decode(msgspec.msgpack.encode(before)) == protocol.Call(1, {}, {}, {}, "s", 0)
    now = protocol.Call(1, {}, {}, {}, "s", 0, {"a": 1}, {"b": "c"})
    assert msgspec.msgpack.decode(protocol.pack(now)[protocol.HEADER.size :], type=CallOfBefore) == before


pooled = Bot()


@pooled.fallback
async def write(ctx: Context) -> None:
    await ctx.pool.execute("CREATE TABLE IF NOT EXISTS tries (text text)")
    await ctx.pool.execute("INSERT INTO tries VALUES ($1)", ctx.event.text)
    await ctx.db.execute("INSERT INTO tries VALUES ('undone')")
    assert [await d.fetchval("SELECT count(*) FROM tries") for d in (ctx.db, ctx.pool)] == [2, 1]
    async with ctx.pool.acquire() as connection, connection.transaction():
        await connection.execute("INSERT INTO tries VALUES ('together')")
    raise RuntimeError


async def test_what_is_done_outside_of_the_transaction_stays_when_the_handler_fails(platform_cluster: Cluster) -> None:
    with BotTester(pooled, database=platform_cluster.dsn()) as tester:
        with pytest.raises(RuntimeError):
            await tester.send("first")
        assert [r["text"] for r in await tester.fetch("SELECT text FROM tries")] == ["first", "together"]


async def test_handlers_that_all_hold_a_transaction_and_want_the_pool_do_not_wait_for_each_other(platform_cluster: Cluster) -> None:
    async with asyncpg.create_pool(platform_cluster.dsn(), min_size=0, max_size=3) as pool:
        share, outside = AllButOne(pool, 3), Outside(pool)
        held = asyncio.Semaphore(0)

        async def handler() -> int:
            database = Database(share)
            try:
                await database.execute("SELECT 1")
                held.release()
                return await outside.fetchval("SELECT 1")
            finally:
                await database.close()

        async with asyncio.timeout(20):
            assert await asyncio.gather(*(handler() for _ in range(9))) == [1] * 9


async def test_the_systems_tables_can_be_read_in_a_test_and_not_written(platform_cluster: Cluster) -> None:
    reader = Bot()

    @reader.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        rows = await ctx.db.fetch(
            "SELECT c.name, c.attributes, m.direction, m.text FROM contacts AS c JOIN conversations AS v ON v.contact_id = c.id"
            " JOIN messages AS m ON m.conversation_id = v.id WHERE c.id = $1 ORDER BY m.sent_at",
            ctx.contact.id,
        )
        await ctx.contact.set(attributes={"seen": len(rows)})
        ctx.reply_text("; ".join(f"{r['name']} {r['attributes']} {r['direction']} {r['text']}" for r in rows))

    @reader.text("write")
    async def spoil(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute("UPDATE contacts SET name = 'spoilt'")

    with BotTester(reader, database=platform_cluster.dsn()) as tester:
        assert (await tester.send("hi"))[0].text == "Ada {} in hi"
        first = "Ada {'seen': 1} in hi; Ada {'seen': 1} out Ada {} in hi"
        assert (await tester.send("ho"))[0].text == f"{first}; Ada {{'seen': 1}} in ho"
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await tester.send("write")
