"""Timers and schedules as a bot's author meets them: declared, set, cancelled, refused, and fired by a tester's clock."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
from loquat import Bot, Context, ReplyRefused, ScheduleContext, Timer, TimerRefused
from loquat.database import DatabaseAway
from loquat.testing import BotTester, NotOffered
from loquat.timers import Timers

NOW = datetime(2026, 1, 5, 9, tzinfo=UTC)
TWO_HOURS = timedelta(hours=2)


@pytest.fixture
def bot() -> Bot:
    made = Bot()

    @made.fallback
    async def ask(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        match ctx.event.text:
            case "stop":
                await ctx.timers.cancel("no-answer")
            case "end":
                await ctx.timers.set("no-answer", after=TWO_HOURS)
                ctx.end()
            case "fail":
                await ctx.timers.set("failed", after=TWO_HOURS)
                raise RuntimeError
            case _:
                await ctx.timers.set("no-answer", after=TWO_HOURS, data={"asked": ctx.event.text}, until_answer=True)
        await ctx.timers.set("day", at=ctx.now + timedelta(days=1))

    @made.on_timer("no-answer")
    async def remind(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        assert isinstance(ctx.event, Timer)
        ctx.reply_text(f"{ctx.event.data['asked']} at {ctx.now:%H:%M}")
        await ctx.timers.set("no-answer", after=TWO_HOURS, data={"asked": "again"})

    @made.schedule("0 9 * * 1-5", tz="Europe/Berlin")
    async def morning(ctx: ScheduleContext) -> None:  # pyright: ignore[reportUnusedFunction]
        for contact in (tester_of[0].contact.id, uuid4()):
            await ctx.send(contact, f"{ctx.event.name} {await ctx.memory.increment('mornings')}")

    return made


tester_of: list[BotTester] = []


async def test_a_timer_fires_at_its_time_and_may_set_itself_again(bot: Bot) -> None:
    tester = BotTester(bot)
    await tester.send("hi")
    assert await tester.advance(hours=1) == ()
    assert [r.text for r in await tester.advance(hours=4)] == ["hi at 11:00", "again at 13:00"]
    assert (tester.now, sorted(tester.timers)) == (NOW + timedelta(hours=5), ["day", "no-answer"])
    await tester.advance(days=1)
    assert "nobody takes the timer 'day': add @bot.on_timer('day')" in [line.text for line in tester.log]


async def test_the_contacts_next_message_cancels_what_waits_for_an_answer_and_only_that(bot: Bot) -> None:
    tester = BotTester(bot)
    await tester.send("hi")
    await tester.send("stop")
    assert sorted(tester.timers) == ["day"]
    await tester.send("hi")
    tester.advance(hours=3)
    await tester.send("late")
    assert [r.text for r in tester.said] == ["hi at 12:00"]


async def test_a_conversation_that_ends_and_a_handler_that_fails_leave_no_timer(bot: Bot) -> None:
    tester = BotTester(bot)
    with pytest.raises(RuntimeError):
        await tester.send("fail")
    assert tester.timers == {}
    await tester.send("hi")
    await tester.send("end")
    assert tester.timers == {}


async def test_a_schedule_says_something_to_contacts_and_has_no_conversation(bot: Bot) -> None:
    tester = BotTester(bot)
    tester_of[:] = [tester]
    assert [r.text for r in await tester.run_schedule("morning")] == ["morning 1"]
    assert ([r.text for _, r in tester.sent], dict(tester.memory)) == (["morning 2"], {"mornings": 2})
    with pytest.raises(NotOffered, match="no schedule with the id 'evening'; there are: 'morning'"):
        await tester.run_schedule("evening")


ANY: Any = None
REFUSED: list[tuple[Callable[[Timers], Awaitable[Any]], str]] = [
    (lambda t: t.set("", after=TWO_HOURS), "1 to 60 characters"),
    (lambda t: t.set("\0", after=TWO_HOURS), "1 to 60 characters"),
    (lambda t: t.set("a"), "give after=timedelta"),
    (lambda t: t.set("a", after=TWO_HOURS, at=NOW), "one of both"),
    (lambda t: t.set("a", after=timedelta(days=367)), "at most 366 days"),
    (lambda t: t.set("a", after=-TWO_HOURS), "at most 366 days"),
    (lambda t: t.set("a", at=NOW.replace(tzinfo=None)), "with its zone"),
    (lambda t: t.set("a", at=NOW + timedelta(days=400)), "within 366 days"),
    (lambda t: t.set("a", after=TWO_HOURS, data={1, 2}), "cannot be kept as JSON"),
    (lambda t: t.set("a", after=TWO_HOURS, data="x" * 16_384), "16,384 are the limit"),
    (lambda t: t.cancel(ANY), "1 to 60 characters"),
]


@pytest.mark.parametrize(("call", "told"), REFUSED)
async def test_what_is_no_timer_is_refused_with_the_limit_named(call: Callable[[Timers], Awaitable[Any]], told: str) -> None:
    timers = Timers(NOW)
    with pytest.raises(TimerRefused) as refused:
        await call(timers)
    assert told in str(refused.value)
    assert timers.changes == []


async def test_the_number_of_timers_is_bounded_and_one_that_is_set_may_always_be_moved() -> None:
    timers = Timers(NOW, [f"t{n}" for n in range(50)])
    with pytest.raises(TimerRefused, match="at most 50 timers"):
        await timers.set("another", after=TWO_HOURS)
    await timers.set("t1", at=NOW - TWO_HOURS)
    assert timers.changes[0]["at"] == (NOW + timedelta(seconds=1)).isoformat()
    assert await timers.cancel("t2")
    await timers.set("another", after=TWO_HOURS)
    with pytest.raises(TimerRefused, match="at most 20"):
        for n in range(3, 40):
            await timers.cancel(f"t{n}")
    assert not await timers.cancel("unknown")
    with pytest.raises(DatabaseAway):
        await Timers(NOW, None).set("a", after=TWO_HOURS)


DECLARED: list[tuple[Callable[[Bot], Any], str]] = [
    (lambda b: b.schedule("0 9 * *"), "five fields"),
    (lambda b: b.schedule("0 0 9 * * 1"), "five fields"),
    (lambda b: b.schedule("61 9 * * *"), "is no schedule: Bad minute"),
    (lambda b: b.schedule("0 0 31 2 *"), "is no schedule"),
    (lambda b: b.schedule("0 9 * * *", tz="Europe/Nowhere"), "no time zone"),
    (lambda b: b.schedule("0 9 * * *", tz="../../etc/passwd"), "no time zone"),
    (lambda b: b.schedule("0 9 * * *", catch_up=ANY), "skip, once, all"),
    (lambda b: b.schedule("0 9 * * *", name="x" * 61), "1 to 60 characters"),
]


@pytest.mark.parametrize(("declare", "told"), DECLARED)
def test_a_schedule_that_is_none_is_refused_when_it_is_declared_with_file_and_line(declare: Callable[[Bot], Any], told: str) -> None:
    async def handler(ctx: ScheduleContext) -> None:
        raise NotImplementedError

    with pytest.raises(ValueError, match=told) as refused:
        declare(Bot())(handler)
    assert "test_timers.py, line " in str(refused.value)


async def test_a_schedule_says_no_more_than_fits(bot: Bot) -> None:
    @bot.schedule("* * * * *")
    async def flood(ctx: ScheduleContext) -> None:  # pyright: ignore[reportUnusedFunction]
        while True:
            await ctx.send(uuid4(), "x")

    with pytest.raises(ReplyRefused, match="at most 500 messages"):
        await BotTester(bot).run_schedule("flood")


def test_timers_and_schedules_are_declared_once_and_listed(bot: Bot) -> None:
    listed = [(d.when, d.handler) for d in bot.declared]
    assert ('timer "no-answer"', "remind") in listed
    assert ('schedule "0 9 * * 1-5" Europe/Berlin', "morning") in listed
    with pytest.raises(ValueError, match="the timer 'no-answer' has a handler already"):
        bot.on_timer("no-answer")(bot.timers["no-answer"])
