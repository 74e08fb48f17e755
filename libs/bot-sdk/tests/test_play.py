"""What a call comes to: entering states, ending, failing, apologising. On a real database where it writes."""

from __future__ import annotations

import asyncpg
import pytest
from loquat import Bot, Context, Next, ReplyRefused, replies
from loquat.bot import Handler
from loquat.database import DatabaseAway, Superseded
from loquat.testing import BotTester, Line
from loquat_bot_runner.domain.replies import checked
from loquat_embedded.postgres import Cluster

TABLE = "CREATE TABLE IF NOT EXISTS notes (text text UNIQUE DEFERRABLE INITIALLY DEFERRED)"


@pytest.fixture
def bot() -> Bot:
    return Bot()


async def test_entering_a_state_follows_the_handler_and_may_lead_on(bot: Bot) -> None:
    @bot.state("unstructured")
    async def start(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.goto("a")
        ctx.reply_text("going")

    @bot.on_enter("a")
    async def enter_a(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("in a")
        ctx.goto("b")

    @bot.on_enter("b")
    async def enter_b(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("in b")

    @bot.state("b")
    async def again(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        if ctx.event.text == "again":
            ctx.goto("b")

    tester = BotTester(bot)
    assert [r.text for r in await tester.send("hi")] == ["going", "in a", "in b"]
    assert tester.state == "b"
    assert [r.text for r in await tester.send("again")] == ["in b"]
    assert await tester.send("stay") == ()


async def test_states_that_send_each_other_back_and_forth_fail_instead_of_going_on_for_ever(bot: Bot) -> None:
    bot.fallback(going("a"))
    bot.on_enter("a")(going("b"))
    bot.on_enter("b")(going("a"))
    with pytest.raises(RuntimeError, match="without end: b, a, b, a"):
        await BotTester(bot).send("hi")


async def test_a_middleware_may_change_where_it_goes_after_the_handler_and_go_on_only_once(bot: Bot) -> None:
    @bot.middleware
    async def after(ctx: Context, call_next: Next) -> None:  # pyright: ignore[reportUnusedFunction]
        await call_next()
        ctx.goto("a")
        if ctx.event.text == "twice":
            await call_next()

    @bot.on_enter("a")
    async def enter(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("in a")

    bot.fallback(going("unstructured"))
    tester = BotTester(bot)
    assert [r.text for r in await tester.send("hi")] == ["in a"]
    with pytest.raises(RuntimeError, match="awaited call_next twice"):
        await tester.send("twice")


async def test_a_middleware_that_goes_elsewhere_before_it_goes_on_leads_the_message_there(bot: Bot) -> None:
    @bot.middleware
    async def before(ctx: Context, call_next: Next) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.goto("closed")
        await call_next()

    @bot.state("closed")
    async def closed(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("closed")

    tester = BotTester(bot)
    assert (await tester.send("hi"), tester.state) == ((replies.text("closed"),), "closed")


@pytest.mark.parametrize("state", ["", "x" * 61, "a\0", "\ud83d", None])
async def test_a_state_that_could_not_be_stored_is_refused_where_it_is_gone_to(bot: Bot, state: str) -> None:
    bot.fallback(going(state))
    with pytest.raises(ValueError, match="a state's name"):
        await BotTester(bot).send("hi")


async def test_an_ended_conversation_enters_nothing_and_the_next_message_opens_another(bot: Bot) -> None:
    @bot.state("unstructured")
    async def start(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text(f"hello {ctx.conversation.id}")
        ctx.goto("talk")

    @bot.state("talk")
    async def talk(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.goto("over")
        ctx.end()

    @bot.on_enter("over")
    async def over(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("never said")

    tester = BotTester(bot)
    first = await tester.send("hi")
    assert await tester.send("bye") == ()
    assert (tester.closed, tester.state, tester.version) == (True, "over", 2)
    assert await tester.send("hi") != first
    assert (tester.closed, tester.state, tester.version) == (False, "talk", 1)


async def test_a_handler_that_fails_leaves_nothing_and_the_test_gets_its_error(bot: Bot, platform_cluster: Cluster) -> None:
    @bot.fallback
    async def write(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute(TABLE)
        await ctx.db.execute("INSERT INTO notes VALUES ($1)", ctx.event.text)
        ctx.reply_text("written")
        ctx.goto("written")
        if ctx.event.text == "fail":
            raise KeyError("drawer")

    with BotTester(bot, database=platform_cluster.dsn()) as tester:
        await tester.send("one")
        assert (tester.state, tester.version) == ("written", 1)
        with pytest.raises(KeyError, match="drawer"):
            await tester.send("fail")
        assert (tester.replies, tester.version, len(tester.said)) == ((), 1, 1)
        assert [r["text"] for r in await tester.fetch("SELECT text FROM notes")] == ["one"]


async def test_an_apology_is_committed_in_its_own_right_and_nothing_of_the_handler(bot: Bot, platform_cluster: Cluster) -> None:
    @bot.fallback
    async def write(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute(TABLE)
        await ctx.db.execute("INSERT INTO notes VALUES ('handler')")
        ctx.reply_text("never said")
        ctx.goto("never")
        await ctx.db.execute("SELECT 1 / 0")

    @bot.error
    async def sorry(ctx: Context, error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
        assert ctx.replies == ()
        await ctx.db.execute(TABLE)
        await ctx.db.execute("INSERT INTO notes VALUES ($1)", type(error).__name__)
        ctx.reply_text(f"Sorry. You are in {ctx.state}.")

    with BotTester(bot, database=platform_cluster.dsn()) as tester:
        assert [r.text for r in await tester.send("hi")] == ["Sorry. You are in unstructured."]
        assert [r["text"] for r in await tester.fetch("SELECT text FROM notes")] == ["DivisionByZeroError"]
    assert (tester.state, tester.version) == ("unstructured", 1)
    assert tester.log[-1].level == "error"
    assert "in write" in tester.log[-1].text
    assert "DivisionByZeroError" in tester.log[-1].text


async def test_a_commit_that_the_database_refuses_is_an_error_of_the_bot_like_any_other(bot: Bot, platform_cluster: Cluster) -> None:
    @bot.fallback
    async def write(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute(TABLE)
        await ctx.db.execute("INSERT INTO notes VALUES ('same'), ('same')")

    @bot.error
    async def sorry(ctx: Context, error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text(type(error).__name__)

    with BotTester(bot, database=platform_cluster.dsn()) as tester:
        assert (await tester.send("hi"))[0].text == "UniqueViolationError"


async def test_an_apology_that_raises_leaves_nothing_either(bot: Bot, platform_cluster: Cluster) -> None:
    @bot.fallback
    async def fail(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute(TABLE)
        raise TimeoutError

    @bot.error
    async def again(ctx: Context, error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute(TABLE)
        ctx.reply_text("never said")
        raise error

    with BotTester(bot, database=platform_cluster.dsn()) as tester:
        with pytest.raises(TimeoutError):
            await tester.send("hi")
        assert (tester.said, tester.version, tester.log) == ([], 0, [])
        with pytest.raises(asyncpg.UndefinedTableError):
            await tester.fetch("SELECT text FROM notes")


@pytest.mark.parametrize("error", [Superseded(), DatabaseAway(), MemoryError()], ids=["superseded", "database away", "memory"])
async def test_what_is_the_platforms_affair_never_comes_to_the_error_handler(bot: Bot, error: Exception) -> None:
    @bot.fallback
    async def fail(_ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        raise error

    @bot.error
    async def sorry(ctx: Context, _error: Exception) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text("never said")

    with pytest.raises(type(error)):
        await BotTester(bot).send("hi")


@pytest.mark.parametrize(
    ("said", "named"),
    [("x" * 4097, "text has 4097 characters; 4096"), ("a\0b", "text holds U\\+0000"), ("\ud83d", "half a character"), (7, "not int")],
)
async def test_what_cannot_be_said_is_refused_where_it_is_said(bot: Bot, said: str, named: str) -> None:
    @bot.fallback
    async def say(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.reply_text(said)

    with pytest.raises(ReplyRefused, match=named):
        await BotTester(bot).send("hi")


async def test_the_most_that_can_be_said_is_taken_by_the_runner_and_one_more_is_refused_in_the_bot(bot: Bot) -> None:
    @bot.fallback
    async def say(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.goto("\N{SNOWMAN}" * 60)
        for _ in range(50):
            ctx.reply_text("\N{CROISSANT}" * int(ctx.event.text or 0))
        result = checked(ctx.result())
        assert len(result["replies"]) == 50
        ctx.reply_text("one more")

    with pytest.raises(ReplyRefused, match="at most 50 replies"):
        await BotTester(bot).send("400")
    with pytest.raises(ReplyRefused, match="more than 245760 bytes"):
        await BotTester(bot).send("500")


async def test_the_clock_of_a_test_stands_still_until_it_is_moved(bot: Bot) -> None:
    @bot.fallback
    async def tell(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        ctx.log.info(ctx.now.strftime("%a %H:%M %Z"))

    tester = BotTester(bot)
    await tester.send("now?")
    tester.advance(days=1, minutes=30)
    await tester.send("now?")
    assert tester.log == [Line("info", "Mon 09:00 UTC"), Line("info", "Tue 09:30 UTC")]


def going(state: str) -> Handler:
    async def handler(ctx: Context) -> None:
        ctx.goto(state)

    return handler
