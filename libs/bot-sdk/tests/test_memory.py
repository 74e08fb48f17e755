"""What a bot remembers, in the project's database and in a test's memory: the same random talk with both must give the same answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import asyncpg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from loquat import Bot, Context, MemoryRefused
from loquat.database import Database, Superseded, prepare
from loquat.fakes import MemoryCells, Remembered
from loquat.memory import DatabaseCells, Memory
from loquat.testing import BotTester

from tests.tenants import PASSWORD, Desk, Project, Tenants, message

KEYS = st.sampled_from(["a", "b", "ключ"])
LIVES = st.sampled_from([None, timedelta(minutes=5), timedelta(days=3)])
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**53), 2**53), st.just(1.5), st.text(max_size=5), st.lists(st.integers(0, 3), max_size=2)
)
STEPS = st.one_of(
    st.tuples(st.just("get"), st.booleans(), KEYS),
    st.tuples(st.just("set"), st.booleans(), KEYS, VALUES, LIVES),
    st.tuples(st.just("increment"), st.booleans(), KEYS, st.integers(-3, 3), LIVES),
    st.tuples(st.just("delete"), st.booleans(), KEYS),
    st.tuples(st.just("advance"), st.sampled_from([timedelta(minutes=4), timedelta(days=1)])),
    st.tuples(st.just("commit")),
    st.tuples(st.just("fail")),
)


class Fake:
    """A test's memory."""

    def __init__(self) -> None:
        self.now = datetime(2026, 1, 1, tzinfo=UTC)
        self.kept = (Remembered(lambda: self.now), Remembered(lambda: self.now))

    async def begin(self) -> tuple[Memory, Memory]:
        self.cells = MemoryCells(*self.kept)
        return Memory(self.cells, of_contact=False), Memory(self.cells, of_contact=True)

    async def end(self, *, well: bool) -> None:
        if well:
            self.kept = (self.cells.bot, self.cells.contact)

    async def advance(self, by: timedelta) -> None:
        self.now += by


class Real:
    """A project's database: an event that stays open, transactions of the bot's login."""

    def __init__(self, pool: asyncpg.Pool[asyncpg.Record], root: asyncpg.Connection[asyncpg.Record], event: UUID) -> None:
        self.pool, self.root, self.event = pool, root, event

    async def begin(self) -> tuple[Memory, Memory]:
        self.database = Database(self.pool)
        cells = DatabaseCells(self.database, self.event)
        return Memory(cells, of_contact=False), Memory(cells, of_contact=True)

    async def end(self, *, well: bool) -> None:
        if well:
            await self.database.execute("COMMIT")
        await self.database.close()

    async def advance(self, by: timedelta) -> None:
        await self.root.execute("UPDATE loquat.bot_memories SET expires_at = expires_at - $1::interval", by)


async def played(place: Fake | Real, steps: list[tuple[Any, ...]]) -> list[Any]:
    """What each step gives."""
    told: list[Any] = []
    memories: tuple[Any, ...] = tuple(await place.begin())
    for name, *more in [*steps, ("fail",)]:
        if name in {"commit", "fail", "advance"}:  # time goes by between calls: a row that a transaction holds cannot be aged
            await place.end(well=name != "fail")
            if name == "advance":
                await place.advance(*more)
            memories = tuple(await place.begin())
            continue
        of_contact, *arguments = more
        try:
            step: Callable[..., Awaitable[Any]] = getattr(memories[int(of_contact)], name)
            told.append(await step(*arguments))
        except MemoryRefused as refused:
            told.append(str(refused))
    await place.end(well=False)
    return told


@pytest.fixture(scope="module")
async def project(tenants: Tenants) -> AsyncGenerator[Project]:
    made = await tenants.project()
    yield made
    await tenants.drop(made)


@pytest.fixture(scope="module")
async def opened(project: Project) -> UUID:
    """An event that the bot works on."""
    event = message("user_id:u1")
    assert (await (await Desk.of(project)).begin(event))["todo"] == "run"
    return UUID(event["id"])


@pytest.fixture(scope="module")
async def pool(project: Project) -> AsyncGenerator[asyncpg.Pool[asyncpg.Record]]:
    dsn = project.tenants.cluster.dsn(project.database, user=project.names.login("bot"), password=PASSWORD)
    async with asyncpg.create_pool(dsn, min_size=0, max_size=4, init=prepare) as made:
        yield made


@pytest.fixture(scope="module")
async def real(project: Project, opened: UUID, pool: asyncpg.Pool[asyncpg.Record]) -> Real:
    return Real(pool, await project.root(), opened)


@pytest.mark.promise("P2")
async def test_memory_in_a_test_answers_as_the_projects_database_does(real: Real) -> None:
    async def both(steps: list[tuple[Any, ...]]) -> None:
        await real.root.execute("DELETE FROM loquat.bot_memories")
        assert await played(real, steps) == await played(Fake(), steps), json.dumps(steps, default=str)

    loop = asyncio.get_running_loop()

    @settings(max_examples=60, database=None)
    @given(st.lists(STEPS, max_size=14))
    def same(steps: list[tuple[Any, ...]]) -> None:
        asyncio.run_coroutine_threadsafe(both(steps), loop).result(30)

    await asyncio.to_thread(same)


@pytest.mark.promise("P3")
async def test_a_hundred_increments_at_once_are_a_hundred(real: Real) -> None:
    await real.root.execute("DELETE FROM loquat.bot_memories")

    async def once(_: int) -> int:
        database = Database(real.pool)
        total = await Memory(DatabaseCells(database, real.event), of_contact=False).increment("n")
        await database.execute("COMMIT")
        await database.close()
        return total

    assert sorted(await asyncio.gather(*map(once, range(100)))) == [*range(1, 101)]


async def test_an_event_that_is_over_meanwhile_ends_the_call_as_superseded(project: Project, real: Real) -> None:
    desk, event = await Desk.of(project), message("user_id:u2")
    begun = await desk.begin(event)
    await desk.commit(event, begun["version"], {})
    database = Database(real.pool)
    with pytest.raises(Superseded):
        await Memory(DatabaseCells(database, UUID(event["id"])), of_contact=False).get("k")
    await database.close()


bot = Bot()


@bot.text("fail")
async def fail(ctx: Context) -> None:
    await ctx.memory.set("written", 1)
    await ctx.contact.set(name="never")
    raise RuntimeError


@bot.fallback
async def count(ctx: Context) -> None:
    total = await ctx.memory.increment("all")
    own = await ctx.contact.memory.increment("own", ttl=timedelta(hours=1))
    ctx.reply_text(f"{total} {own}")


async def test_a_tester_remembers_from_message_to_message_as_long_as_it_is_told_and_forgets_what_failed() -> None:
    tester = BotTester(bot)
    tester.memory["all"] = 5
    await tester.send("hi")
    assert (await tester.send("hi"))[0].text == "7 2"
    with pytest.raises(RuntimeError):
        await tester.send("fail")
    assert dict(tester.memory) == {"all": 7}
    assert tester.contact.name == "Ada"
    tester.advance(hours=1)
    assert dict(tester.contact_memory) == {}
    assert (await tester.send("hi"))[0].text == "8 1"


ANYTHING: list[Any] = [3, 0.5]  # bots are often not typed
REFUSED: list[tuple[Callable[[Memory], Awaitable[Any]], str]] = [
    (lambda m: m.get(""), "1 to 200 characters"),
    (lambda m: m.get("k" * 201), "1 to 200 characters"),
    (lambda m: m.get(ANYTHING[0]), "1 to 200 characters"),
    (lambda m: m.get("\0"), "U+0000"),
    (lambda m: m.set("k", "x" * 65_536), "65,538 bytes as JSON; 65,536 are the limit"),
    (lambda m: m.set("k", {1, 2}), "cannot be kept as JSON"),
    (lambda m: m.set("k", float("nan")), "cannot be kept as JSON"),
    (lambda m: m.set("k", ["\\u0000 \0"]), "U+0000"),
    (lambda m: m.set("k", "\ud83d"), "half a character"),
    (lambda m: m.set("k", 1, ANYTHING[0]), "ttl is a timedelta"),
    (lambda m: m.set("k", 1, timedelta(0)), "ttl is a timedelta"),
    (lambda m: m.increment("k", ANYTHING[1]), "whole number"),
    (lambda m: m.increment("k", True), "whole number"),
]


@pytest.mark.parametrize(("call", "told"), REFUSED)
async def test_what_cannot_be_remembered_is_refused_with_the_limit_named(call: Callable[[Any], Awaitable[Any]], told: str) -> None:
    place = Fake()
    with pytest.raises(MemoryRefused) as refused:
        await call((await place.begin())[0])
    assert not place.cells.bot
    assert told in str(refused.value)


async def test_what_only_looks_like_u0000_is_kept() -> None:
    memory = (await Fake().begin())[0]
    await memory.set("k", "\\u0000")
    assert await memory.get("k") == "\\u0000"
