"""Questions: the handler runs again with each answer, and what it did is there once, at its end."""

from __future__ import annotations

from datetime import date, timedelta

import pytest
from loquat import AskAgain, Bot, Context, HandedBack, NoAnswer, replies
from loquat.context import Watching
from loquat.testing import BotTester

CHOICES = [("am", "Morning"), ("pm", "Afternoon")]


def day(text: str) -> date:
    try:
        return date.fromisoformat(text)
    except ValueError:
        raise AskAgain("Write it like 2026-12-31.") from None


def booking() -> Bot:
    bot = Bot()

    @bot.text("book")
    async def book(ctx: Context) -> None:
        ctx.reply_text("Let us book.")
        await ctx.memory.increment("bookings")
        name = await ctx.ask("Your name?", cancel=("stop",), no_answer="Never mind.")
        when = await ctx.ask(f"Which day, {name}?", key="day", validate=day, tries=2, timeout=3600, no_answer="Call us.")
        half = await ctx.ask("When?", choices=CHOICES)
        ctx.reply_text(f"{name} {when:%d.%m.} {half} {ctx.event.text}")

    @bot.fallback
    async def other(ctx: Context) -> None:
        ctx.reply_text("other")

    return bot


def said(given: tuple[replies.Reply, ...]) -> list[str | None]:
    return [r.text for r in given]


async def test_each_answer_goes_to_its_question_and_what_the_handler_wrote_is_there_once() -> None:
    tester = BotTester(booking())
    assert said(await tester.send("book")) == ["Let us book.", "Your name?"]
    assert said(await tester.send("Ada")) == ["Which day, Ada?"]
    assert said(await tester.send("soon")) == ["Write it like 2026-12-31."]
    assert said(await tester.send("2026-12-24")) == ["When?"]
    assert tester.memory.get("bookings") is None
    assert said(await tester.tap("pm")) == ["Ada 24.12. pm book"]
    assert tester.memory.get("bookings") == 1
    assert said(await tester.send("Ada")) == ["other"]


async def test_a_word_that_calls_it_off_and_one_try_too_many_end_it_with_nothing_written() -> None:
    tester = BotTester(booking())
    await tester.send("book")
    assert said(await tester.send(" Stop! ")) == ["Never mind."]
    assert said(await tester.send("x")) == ["other"]
    for text in ("book", "Ada", "soon"):
        await tester.send(text)
    assert said(await tester.send("later")) == ["Call us."]
    assert (tester.memory.get("bookings"), tester.held.ask) == (None, None)


async def test_a_picture_is_no_answer_and_a_title_that_is_typed_is_the_choice() -> None:
    tester = BotTester(booking())
    await tester.send("book")
    assert said(await tester.send_image()) == ["Your name?"]
    for text in ("Ada", "2026-12-24"):
        await tester.send(text)
    again = await tester.send("midnight")
    assert (again[0].text, [b.id for b in again[0].buttons]) == ("When?", ["am", "pm"])
    assert said(await tester.send("morning")) == ["Ada 24.12. am book"]


async def test_after_its_time_a_question_is_forgotten() -> None:
    tester = BotTester(booking())
    await tester.send("book")
    await tester.send("Ada")
    await tester.advance(hours=1)
    assert said(await tester.send("2026-12-24")) == ["other"]


def timed() -> Bot:
    bot = booking()

    @bot.text("quick")
    async def quick(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.memory.increment("begun")
        name = await ctx.ask("Your name?", timeout=3600, timeout_text="Never mind, then.")
        mail = await ctx.ask(f"Your mail, {name}?", timeout=60, timeout_text="No mail.")
        await ctx.ask(f"{mail}: right?")

    @bot.text("move")
    async def move(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.timers.set("away", after=timedelta(minutes=5))

    @bot.on_timer("away")
    async def away(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.goto("away")

    return bot


async def test_when_its_time_is_over_a_question_is_forgotten_and_that_is_said() -> None:
    tester = BotTester(timed())
    await tester.send("quick")
    assert said(await tester.advance(minutes=59)) == []
    assert said(await tester.send("Ada")) == ["Your mail, Ada?"], "an answer in time calls off what would be said"
    assert said(await tester.advance(hours=2)) == ["No mail."]
    assert (tester.held.ask, tester.timers, tester.memory.get("begun")) == (None, {}, None)
    assert said(await tester.send("a@b")) == ["other"]
    for text in ("quick", "Ada", "a@b"):
        await tester.send(text)
    assert said(await tester.advance(days=30)) == [], "the last question has no time"
    assert tester.held.ask is not None


async def test_of_a_question_that_is_gone_nothing_is_said_when_its_time_is_over() -> None:
    tester = BotTester(timed())
    await tester.send("quick")
    tester.take_over()
    await tester.advance(minutes=5)
    tester.hand_back()
    assert said(await tester.advance(hours=1)) == []
    await tester.send("move")
    await tester.send("quick")
    assert said(await tester.advance(hours=2)) == [], "the conversation has gone on to another state"
    assert tester.state == "away"


async def test_what_is_said_at_the_end_of_a_questions_time_is_checked_when_it_is_asked() -> None:
    bot = Bot()

    @bot.text("too long")
    async def too_long(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.ask("?", timeout=1, timeout_text="x" * 4097)

    @bot.fallback
    async def no_time(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.ask("?", timeout_text="x")

    for text, why in (("too long", "text has 4097 characters"), ("x", "give both")):
        with pytest.raises(ValueError, match=why):
            await BotTester(bot).send(text)


async def test_answers_survive_a_deployment_that_changes_the_order_of_questions() -> None:
    tester = BotTester(booking())
    await tester.send("book")
    await tester.send("Ada")
    bot = Bot()

    @bot.text("book")
    async def book(ctx: Context) -> None:
        when = await ctx.ask("Day?", key="day", validate=day)
        mail = await ctx.ask("Your mail?", key="mail")
        ctx.reply_text(f"{when} {mail}")

    tester.bot = bot
    assert said(await tester.send("2026-12-24")) == ["Your mail?"]
    assert said(await tester.send("a@b")) == ["2026-12-24 a@b"]


@pytest.mark.parametrize("unknown", [True, False])
async def test_an_answer_whose_handler_is_gone_goes_to_the_one_for_unknown_states(unknown: bool) -> None:
    tester = BotTester(booking())
    await tester.send("book")
    bot = Bot()

    @bot.fallback
    async def other(ctx: Context) -> None:
        ctx.reply_text(f"other {ctx.event.text}")

    if unknown:

        @bot.unknown_state
        async def lost(ctx: Context) -> None:
            ctx.reply_text(f"lost {ctx.event.text}")

    tester.bot = bot
    assert said(await tester.send("Ada")) == ["lost Ada" if unknown else "other Ada"]
    assert said(await tester.send("Ada")) == ["other Ada"]


async def test_a_handler_may_catch_that_there_is_no_answer_and_ask_in_a_loop() -> None:
    bot = Bot()

    @bot.fallback
    async def many(ctx: Context) -> None:
        found = list[int]()
        try:
            while len(found) < 3:
                found.append(await ctx.ask("A number?", key="number", validate=int, cancel=["enough"]))
        except NoAnswer as ended:
            ctx.reply_text(f"{ended.reason}: {sum(found)}")
        else:
            ctx.reply_text(str(sum(found)))

    tester = BotTester(bot)
    assert [said(await tester.send(t))[-1] for t in ("go", "1", "x", "2", "3")] == ["A number?"] * 4 + ["6"]
    assert [said(await tester.send(t))[-1] for t in ("go", "4", "enough")][-1] == "cancelled: 4"


async def test_an_error_handler_and_an_observer_ask_nothing_and_the_latter_says_nothing() -> None:
    bot, told = Bot(), list[str]()

    @bot.fallback
    async def fails(_ctx: Context) -> None:
        raise ArithmeticError

    @bot.error
    async def error(ctx: Context, _error: Exception) -> None:
        with pytest.raises(RuntimeError, match="not here"):
            await ctx.ask("?")

    @bot.observe
    async def watch(ctx: Context) -> None:
        told.append(ctx.event.text or "")
        await ctx.memory.increment("seen")
        for act in (lambda: ctx.reply_text("x"), ctx.end, lambda: ctx.goto("x")):
            with pytest.raises(Watching):
                act()
        with pytest.raises(Watching):
            await ctx.handoff()

    tester = BotTester(bot)
    await tester.send("one")
    tester.take_over()
    assert await tester.send("two") == ()
    tester.hand_back()
    assert (told, tester.memory.get("seen"), tester.said) == (["two"], 1, [])


async def test_a_handoff_is_peoples_until_its_time_is_over() -> None:
    bot = Bot()

    @bot.text("help")
    async def helps(ctx: Context) -> None:
        await ctx.handoff(timeout=600, note="wants help")
        ctx.reply_text("Somebody will write to you.")

    @bot.fallback
    async def other(ctx: Context) -> None:
        ctx.reply_text("other")

    tester = BotTester(bot)
    assert said(await tester.send("help")) == ["Somebody will write to you."]
    assert (tester.held.holder, tester.held.note) == ("people", "wants help")
    assert await tester.send("hello?") == ()
    await tester.advance(minutes=10)
    assert said(await tester.send("hello?")) == ["other"]


@pytest.mark.parametrize("lapsed", [True, False])
async def test_the_bot_is_called_when_a_conversation_is_its_own_again(lapsed: bool) -> None:
    bot = Bot()

    @bot.text("help")
    async def helps(ctx: Context) -> None:
        await ctx.handoff(timeout=600)

    @bot.on_handback
    async def back(ctx: Context) -> None:
        assert isinstance(ctx.event, HandedBack)
        ctx.reply_text(f"{ctx.event.held_by} {ctx.event.lapsed}")
        if await ctx.ask("Was that all?") == "yes":
            ctx.end()

    tester = BotTester(bot)
    await tester.send("help")
    assert said(await tester.advance(minutes=9)) == []
    assert said(await (tester.advance(minutes=1) if lapsed else tester.hand_back())) == [f"people {lapsed}", "Was that all?"]
    await tester.send("yes")
    assert (tester.closed, tester.held.holder) == (True, "bot")
    await tester.send("hello")
    tester.take_over()
    tester.hand_back()
    assert said(await tester.send("yes")) == [], "it is asked before the message, which answers"
    assert [r.text for r in tester.said[-2:]] == ["person False", "Was that all?"]


async def test_texts_that_follow_each_other_are_one_as_long_as_they_fit() -> None:
    texts = [replies.text(t) for t in ("a", "b", "c" * 4090, "d" * 6, "e")]
    mixed = [*texts[:2], replies.buttons("?", [("1", "x")]), texts[4]]
    assert [r.text for r in replies.joined(texts)] == ["a\nb\n" + "c" * 4090, "d" * 6 + "\ne"]
    assert [r.text for r in replies.joined(mixed)] == ["a\nb", "?", "e"]
    bot = Bot()

    @bot.fallback
    async def two(ctx: Context) -> None:
        ctx.reply_text("a")
        ctx.reply_text("b")

    tester = BotTester(bot, join_texts=True)
    assert said(await tester.send("x")) == ["a\nb"]
