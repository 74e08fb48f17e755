"""What a handler says before it ends, and that it is writing: in a test, and on the wire."""

from __future__ import annotations

import asyncio
from uuid import uuid4

import pytest
from loquat import Bot, Context, NotSaid, ReplyRefused, protocol, replies
from loquat.context import Watching
from loquat.database import DatabaseAway, Superseded
from loquat.testing import BotTester
from loquat.voice import MOST_NOW, Voice, Wire


def told(given: tuple[replies.Reply, ...]) -> list[str | None]:
    return [r.text for r in given]


async def test_what_is_said_now_comes_before_the_replies_and_stays_when_the_handler_fails() -> None:
    bot = Bot()

    @bot.fallback
    async def slow(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("at the end")
        await ctx.typing()
        await ctx.reply_now("one moment")
        await ctx.reply_now(replies.buttons("or not?", [("no", "No")]))
        if ctx.event.text == "fail":
            raise KeyError("drawer")

    tester = BotTester(bot)
    assert told(await tester.send("hi")) == ["one moment", "or not?", "at the end"]
    assert tester.typings == 1
    with pytest.raises(KeyError):
        await tester.send("fail")
    assert told(tester.replies) == ["one moment", "or not?"]
    assert len(tester.said) == 5


async def test_a_handler_that_asks_says_it_once_and_each_of_two_handlers_has_places_of_its_own() -> None:
    bot = Bot()

    @bot.text("ask")
    async def ask(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.reply_now("looking")
        name = await ctx.ask("Who?")
        await ctx.reply_now(f"found {name}")
        raise KeyError("drawer")

    @bot.error
    async def sorry(ctx: Context, error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.reply_now(f"sorry: {type(error).__name__}")

    tester = BotTester(bot)
    assert told(await tester.send("ask")) == ["looking", "Who?"]
    assert told(await tester.send("Ada")) == ["found Ada", "sorry: KeyError"]


async def test_an_observer_says_nothing_now_and_ten_are_enough() -> None:
    bot = Bot()

    @bot.observe
    async def watch(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await (ctx.typing() if ctx.event.text == "typing" else ctx.reply_now("psst"))

    @bot.fallback
    async def chatty(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        for n in range(MOST_NOW + 1):
            await ctx.reply_now(f"{n}")

    tester = BotTester(bot)
    with pytest.raises(ReplyRefused, match="at most 10 replies at once"):
        await tester.send("hi")
    assert len(tester.replies) == MOST_NOW
    tester.take_over()
    for text in ("hi", "typing"):
        with pytest.raises(Watching):
            await tester.send(text)


async def test_each_thing_said_waits_for_its_own_answer_and_a_refusal_says_why() -> None:
    sent: list[protocol.FromWorker] = []
    wire = Wire(7, sent.append)
    voice, event, said = Voice(wire), uuid4(), replies.text("hi")
    waiting = [asyncio.ensure_future(voice.say(event, said)) for _ in range(4)]
    await asyncio.sleep(0)
    assert sent == [protocol.Say(7, place, str(event), {"type": "text", "text": "hi"}) for place in (1, 2, 3, 4)]
    for place, kind in ((4, "refused"), (3, "database"), (2, "superseded"), (1, "said"), (9, "said")):
        wire.heard(protocol.Said(7, place, kind, "people hold it"))
    ended = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(e) for e in ended] == [type(None), Superseded, DatabaseAway, NotSaid]
    assert str(ended[3]) == "people hold it"
    with pytest.raises(NotSaid, match="nobody is there"):
        await Voice().say(event, said)


def test_a_phone_that_shows_it_is_not_told_again_until_a_message_takes_it_away() -> None:
    sent: list[protocol.FromWorker] = []
    now = [0.0]
    voice = Voice(Wire(7, sent.append), lambda: now[0])
    for at in (0.0, 1.0, 4.0, 5.0, 6.0):
        now[0] = at
        voice.typing()
    assert len(sent) == 2
    Voice().typing()
