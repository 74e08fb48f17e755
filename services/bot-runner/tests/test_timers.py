"""Timers from the handler that sets one to the handler that it calls, on a real project: two replicas, and an end at every point in between."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from datetime import timedelta
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat_bot_runner.handlers.timers import Firing
from loquat_common.bus.port import Done
from loquat_common.failpoints import FailpointError
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import INBOX
from loquat_events.conversations import TimerFired
from loquat_events.envelope import AnyEvent
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, bundles_in, open_bench
from tests.tenants import Tenants

BOT = """
from datetime import timedelta
from loquat import Bot
bot = Bot()


@bot.fallback
async def ask(ctx):
    match ctx.event.text:
        case "table":
            await ctx.db.execute("CREATE TABLE reminders (contact uuid)")
        case "ask":
            await ctx.memory.increment("asked")
            await ctx.timers.set("no-answer", after=timedelta(hours=2), data={"n": 1}, until_answer=True)
        case "ask without database":
            await ctx.timers.set("no-answer", after=timedelta(hours=2), data={"n": 1}, until_answer=True)
        case "unknown":
            await ctx.timers.set("unknown", after=timedelta(hours=2))
        case "stop":
            ctx.reply_text(f"{await ctx.timers.cancel('no-answer')} {sorted(ctx.timers.names)}")
        case "end":
            ctx.end()
        case "question":
            name = await ctx.ask("Your name?", timeout=7200, timeout_text="Another time, then.")
            ctx.reply_text(f"Hello {name}")
        case "help":
            await ctx.handoff(timeout=600)


@bot.on_timer("no-answer")
async def remind(ctx):
    await ctx.db.execute("INSERT INTO reminders VALUES ($1)", ctx.contact.id)
    ctx.reply_text(f"still there? {ctx.event.data['n']}")
"""
BACK = """

@bot.on_handback
async def back(ctx):
    ctx.reply_text(f"I am back: {ctx.event.held_by} {ctx.event.lapsed}")
"""
RUN = ("before_begin", "after_begin", "after_handler", "after_commit", "after_publish", "after_clear")
ARM = ("after_begin", "after_handler", "after_commit", "before_arm", "after_arm", "after_armed")
FIRE = ("before_fire", "after_fire")


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Any, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    shared.time.clock.ahead = timedelta()
    made = await shared.anew()
    await made.deploy(files={"bot.py": BOT})
    await made.say(text="table")
    return made


def fired(bench: Bench) -> list[AnyEvent]:
    """Timers of this project that were put into the inbox."""
    return [e for e in bench.broker.events(INBOX) if isinstance(e.data, TimerFired)]


async def fire(bench: Bench, hours: float = 2.1, replica: int = 0) -> list[AnyEvent]:
    """Time goes by, one replica looks; what it fired."""
    bench.time.clock.ahead += timedelta(hours=hours)
    there = len(fired(bench))
    await bench.time.replicas[replica].once()
    return fired(bench)[there:]


async def dying(bench: Bench, event: AnyEvent, points: Sequence[str]) -> None:
    """The runner dies at each point in turn, and another takes the event again."""
    for point in points:
        bench.time.fail(f"bot_runner.{point}")
        with pytest.raises(FailpointError):
            await bench.take(event)
    assert isinstance(await bench.take(event), Done)


async def reminders(bench: Bench) -> int:
    assert bench.project is not None
    return await (await bench.project.root()).fetchval("SELECT count(*) FROM public.reminders")


async def outcomes(bench: Bench) -> list[str | None]:
    """Of timers."""
    assert bench.project is not None
    rows = await (await bench.project.root()).fetch("SELECT outcome FROM loquat.events WHERE kind = 'timer' ORDER BY recorded_at")
    return [r["outcome"] for r in rows]


async def index(bench: Bench) -> int:
    return await bench.pool.fetchval("SELECT count(*) FROM due")


@pytest.mark.promise("P2")
@pytest.mark.parametrize("asked", ["ask", "ask without database"])
async def test_whoever_dies_wherever_between_setting_and_answering_the_contact_is_reminded_once(bench: Bench, asked: str) -> None:
    await dying(bench, bench.message(text=asked), ARM)
    assert await index(bench) == 1
    assert await fire(bench, hours=1.9) == []
    there = len(fired(bench))
    for point in FIRE:
        bench.time.fail(f"bot_runner.{point}")
        with pytest.raises(FailpointError):
            await fire(bench, hours=0.1)
    await fire(bench, hours=0, replica=1)
    first, second = fired(bench)[there:]
    assert (first.id, await fire(bench, hours=0)) == (second.id, [])
    await dying(bench, first, RUN)
    await dying(bench, second, ["before_begin", "after_begin"])
    assert set(bench.answers(first.id)) == {"still there? 1"}
    assert (await reminders(bench), await outcomes(bench), await index(bench)) == (1, ["handled"], 0)


@pytest.mark.promise("P2")
async def test_whoever_dies_wherever_the_contact_is_told_once_that_the_time_of_a_question_is_over_or_is_heard(bench: Bench) -> None:
    assert await bench.say(text="question") == ["Your name?"]
    (event,) = await fire(bench)
    await dying(bench, event, ("before_begin", "after_begin", "after_handler", "after_commit", "after_publish", "after_clear"))
    assert set(bench.answers(event.id)) == {"Another time, then."}
    assert await bench.say(text="Ada") == [], "it is a message like any other"
    await bench.say(text="question")
    (late,) = await fire(bench)
    assert await bench.say(text="Ada") == ["Hello Ada"], "it was handled before, however late"
    assert isinstance(await bench.take(late), Done)
    assert (bench.answers(late.id), await outcomes(bench), await index(bench)) == ([], ["handled", "discarded"], 0)


@pytest.mark.promise("P2")
async def test_whoever_dies_wherever_a_bot_is_called_once_when_the_time_of_a_hold_is_over(bench: Bench) -> None:
    await bench.say("50", text="help")
    (unwanted,) = await fire(bench, hours=0.2)
    assert isinstance(await bench.take(unwanted), Done)
    assert (await outcomes(bench), await index(bench), len(await bench.runs())) == (["discarded"], 0, 2), (
        "this bot wants to know nothing of it"
    )
    bench.time.clock.ahead = timedelta()
    await bench.deploy(files={"bot.py": BOT + BACK})
    await bench.say(text="help")
    assert await fire(bench, hours=0.16) == []
    (event,) = await fire(bench, hours=0.02)
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET held_until = now()")  # whose clock is not ours
    await dying(bench, event, RUN)
    assert set(bench.answers(event.id)) == {"I am back: people True"}
    assert (await outcomes(bench), await index(bench)) == (["discarded", "handled"], 0)


@pytest.mark.promise("P2")
async def test_two_replicas_that_look_at_once_fire_each_timer_once(bench: Bench) -> None:
    events = [bench.message(contact=f"49{n}", text="ask") for n in range(12)]
    for event in events:
        await bench.take(event)
    bench.time.clock.ahead = timedelta(hours=3)
    there = len(fired(bench))
    await asyncio.gather(*(r.once() for r in bench.time.replicas * 3))
    ids = [e.id for e in fired(bench)[there:]]
    assert (len(ids), len(set(ids))) == (12, 12)
    assert {e.lane for e in fired(bench)[there:]} == {f"49{n}" for n in range(12)}


async def test_an_answer_a_cancel_an_end_and_a_later_time_leave_nothing_to_fire(bench: Bench) -> None:
    for text, after in (("ask", "hi"), ("ask", "end")):
        await bench.say(text=text)
        await bench.say(text=after)
    await bench.say(text="ask without database")
    assert await bench.say("50", text="stop") == ["False []"]
    assert await index(bench) == 1
    await bench.say(text="ask")
    assert await fire(bench, hours=1.9) == []
    (event,) = await fire(bench, hours=0.2)
    assert isinstance(await bench.take(event), Done)
    assert (await reminders(bench), await index(bench)) == (1, 0)


@pytest.mark.promise("P3")
async def test_an_answer_that_is_handled_before_the_timer_that_is_fired_already_calls_it_off(bench: Bench) -> None:
    await bench.say(text="ask")
    (event,) = await fire(bench)
    await bench.say(text="hi")
    assert isinstance(await bench.take(event), Done)
    assert (await reminders(bench), await outcomes(bench)) == (0, ["discarded"])


async def test_a_timer_that_nobody_takes_is_said_in_the_log_and_one_that_is_a_day_late_is_not_answered(bench: Bench) -> None:
    await bench.say(text="unknown")
    (event,) = await fire(bench)
    assert isinstance(await bench.take(event), Done)
    await bench.say(text="ask")
    (late,) = await fire(bench, hours=27)
    assert isinstance(await bench.take(late), Done)
    assert (await outcomes(bench), await reminders(bench)) == (["handled", "expired"], 0)
    (run,) = await bench.runs(event=event.id)
    assert (run["outcome"], run["replies"]) == ("handled", 0)


@pytest.mark.promise("P2")
async def test_no_timer_of_before_a_restore_is_run_whether_it_is_in_the_index_or_on_its_way(bench: Bench) -> None:
    assert bench.project is not None
    await bench.say(text="ask")
    (event,) = await fire(bench)
    await bench.say("50", text="ask")
    root = await bench.project.root()
    await root.execute("UPDATE loquat.identity SET epoch = 2; DELETE FROM loquat.timers")
    await bench.time.relist(epoch=2)
    try:
        assert await fire(bench, replica=1) == []
        assert isinstance(await bench.take(event), Done)
        assert (await outcomes(bench), await index(bench)) == (["discarded"], 0)
    finally:
        await root.execute("UPDATE loquat.identity SET epoch = 1")
        await bench.time.relist(epoch=1)


async def test_a_project_that_is_gone_leaves_no_row_and_one_that_is_not_ready_keeps_its_timers(bench: Bench) -> None:
    await bench.say(text="ask")
    await bench.time.relist(state="creating")
    assert await fire(bench) == []
    await bench.time.relist(state="ready")
    assert len(await fire(bench, hours=0.1)) == 1
    await bench.say(text="ask")
    assert bench.project_id in await bench.store.projects()
    await bench.store.forget(bench.project_id)
    assert await index(bench) == 0


async def test_of_a_person_who_is_forgotten_no_timer_is_left_in_the_index(bench: Bench) -> None:
    await bench.say(text="ask")
    conversation = await bench.pool.fetchval("SELECT (body->>'conversation_id')::uuid FROM due")
    await bench.store.forget_timers("prj_another", [conversation])
    await bench.store.forget_timers(bench.project_id, [uuid4()])
    assert await index(bench) == 1
    await bench.store.forget_timers(bench.project_id, [conversation])
    assert await index(bench) == 0


class Slowly:
    """An index that tells when it is asked."""

    def __init__(self, bench: Bench) -> None:
        self.bench, self.asked = bench, asyncio.Queue[Any]()

    async def fire(self, now: Any, decide: Any) -> Any:
        found = await self.bench.time.index.fire(now, decide)
        await self.asked.put(found)
        return found


async def test_a_replica_that_arms_something_earlier_than_it_waits_for_looks_again_at_once(bench: Bench) -> None:
    slowly: Any = Slowly(bench)
    nothing: Any = None
    firing = Firing(slowly, nothing, nothing, nothing, bench.time.clock.now)
    running = asyncio.create_task(firing.run())
    assert await slowly.asked.get() == (0, None)
    firing.nearer(bench.time.clock.now() + timedelta(hours=1))
    await asyncio.sleep(0)
    assert slowly.asked.empty()
    firing.nearer(bench.time.clock.now())
    assert await slowly.asked.get() == (0, None)
    running.cancel()


async def test_the_index_keeps_the_later_of_two_times_whatever_comes_last(bench: Bench) -> None:
    timer = {"timer_id": str(uuid4()), "event_id": str(uuid4()), "lane": "49", "name": "n", "conversation_id": None, "contact_id": None}
    told = [{**timer, "version": v, "due_at": bench.time.clock.now().isoformat()} for v in (1, 2, 3)]
    called_off = {**timer, "version": 2, "due_at": None}
    for rows, left in (([told[1]], 2), ([told[0]], 2), ([called_off], None), ([told[2]], 3), ([called_off], 3)):
        await bench.time.index.arm(bench.project_id, 1, rows)
        assert await bench.pool.fetchval("SELECT max(version) FROM due WHERE id = $1", UUID(timer["timer_id"])) == left
