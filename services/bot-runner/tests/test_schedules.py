"""Schedules from the deployed code to the contacts they write to, on a real project: two replicas, and an end at every point in between."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

import pytest
from loquat_common.bus.port import Dead, Done, Retry
from loquat_common.failpoints import FailpointError
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import INBOX, OUTBOX
from loquat_events.conversations import MessageQueued, ScheduleFired, SendOrdered
from loquat_events.envelope import AnyEvent
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import ANNA, Bench, bundles_in, open_bench
from tests.tenants import Tenants

HEAD = """
from uuid import uuid4
from loquat import Bot
bot = Bot()


@bot.fallback
async def hi(ctx):
    ctx.reply_text("hi")
"""
BODY = """

@bot.schedule("0 9 * * *", tz="Europe/Berlin", catch_up="CATCH_UP")
async def morning(ctx):
    n = await ctx.memory.increment("mornings")
    for row in await ctx.db.fetch("SELECT id FROM contacts ORDER BY id"):
        await ctx.send(row["id"], f"{ctx.event.name} {n}")
    await ctx.send(uuid4(), "nobody")


@bot.schedule("* * * * *", name="dry")
async def without_database(ctx):
    ctx.log.info("dry run")


@bot.schedule("* * * * *")
async def fails(ctx):
    await ctx.memory.increment("never")
    raise KeyError("drawer")
"""
RUN = ("before_begin", "after_begin", "after_handler", "after_commit", "after_orders")


def bot(catch_up: str = "once") -> dict[str, str]:
    return {"bot.py": HEAD + BODY.replace("CATCH_UP", catch_up)}


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
    return await shared.anew()


async def deploy(bench: Bench, files: dict[str, str]) -> None:
    await bench.deploy(files=files)
    assert await bench.time.syncing.sync(bench.project_id)


async def listed(bench: Bench) -> dict[str, Any]:
    return {s["name"]: s for s in (await bench.good("GET", "/schedules"))["items"]}


async def history(bench: Bench, name: str) -> list[tuple[str | None, str | None]]:
    items = (await bench.good("GET", f"/schedules/{name}/runs"))["items"]
    return [(r["ordered_by"], r["outcome"]) for r in items]


def fired(bench: Bench, name: str = "morning") -> list[AnyEvent]:
    return [e for e in bench.broker.events(INBOX) if isinstance(e.data, ScheduleFired) and e.data.name == name]


async def due(bench: Bench, late: timedelta = timedelta(seconds=1), *, days: int = 0) -> None:
    """It is so long after the next nine o'clock, and then `days` more."""
    at = datetime.fromisoformat((await listed(bench))["morning"]["next_due"])
    bench.time.clock.ahead = at - datetime.now(UTC) + late + timedelta(days=days)


async def fire(bench: Bench, replica: int = 0) -> list[AnyEvent]:
    there = len(fired(bench))
    await bench.time.replicas[replica].once()
    return fired(bench)[there:]


async def delivered(bench: Bench) -> list[tuple[str, str, str]]:
    """Orders are taken, each as often as it is on the bus; what goes out: lane of the order, text, sender."""
    for event in bench.broker.events(INBOX):
        if isinstance(event.data, SendOrdered):
            assert isinstance(await bench.take(event), Done)
    said = [e.data for e in bench.broker.events(OUTBOX) if isinstance(e.data, MessageQueued)]
    queued = {d.message_id: d for d in said if d.sender == "automation"}
    return sorted((q.addresses[0].value, q.message.text or "", q.sender) for q in queued.values())


async def dying(bench: Bench, event: AnyEvent, points: Sequence[str]) -> None:
    for point in points:
        bench.time.fail(f"bot_runner.{point}")
        with pytest.raises(FailpointError):
            await bench.take(event)
    assert isinstance(await bench.take(event), Done)


@pytest.mark.promise("P2")
async def test_whoever_dies_wherever_a_schedule_runs_once_a_time_and_says_everything_once(bench: Bench) -> None:
    await deploy(bench, bot())
    for contact in ("49", "50"):
        await bench.say(contact)
    await due(bench)
    there = len(fired(bench))
    for replica, point in enumerate(("before_fire", "after_fire")):
        bench.time.fail(f"bot_runner.{point}")
        with pytest.raises(FailpointError):
            await fire(bench, replica)
    await fire(bench, 1)
    first, second = fired(bench)[there:]
    assert (first.id, first.lane, await fire(bench, 0)) == (second.id, "schedule:morning", [])
    await dying(bench, first, RUN)
    await dying(bench, second, ["before_begin", "after_begin"])
    assert await delivered(bench) == [("49", "morning 1", "automation"), ("50", "morning 1", "automation")]
    assert await history(bench, "morning") == [(None, "handled")]
    lines = (await bench.good("GET", f"/logs?event={first.id}"))["items"]
    assert "1 messages of the schedule were not sent" in lines[0]["line"]
    await due(bench)
    (following,) = await fire(bench)
    await bench.take(following)
    (run,) = await bench.runs(event=following.id)
    assert (run["outcome"], run["replies"], run["conversation_id"]) == ("handled", 3, None)
    assert isinstance(first.data, ScheduleFired)
    assert isinstance(following.data, ScheduleFired)
    assert (following.data.due_at - first.data.due_at, following.id != first.id) == (timedelta(days=1), True)


@pytest.mark.parametrize(("catch_up", "count"), [("skip", 0), ("once", 1), ("all", 4)])
async def test_after_an_outage_a_schedule_catches_up_as_it_says(bench: Bench, catch_up: str, count: int) -> None:
    await deploy(bench, bot(catch_up))
    await due(bench, timedelta(hours=2), days=3)
    events = await fire(bench)
    assert len({e.id for e in events}) == len(events) == count
    assert await fire(bench) == []
    at = datetime.fromisoformat((await listed(bench))["morning"]["next_due"])
    assert timedelta() < at - bench.time.clock.now() <= timedelta(days=1, hours=1)


@pytest.mark.promise("P2")
async def test_schedules_follow_the_deployment_whoever_dies_while_they_are_brought_in_line(bench: Bench) -> None:
    await bench.deploy(files=bot())
    assert await listed(bench) == {}
    for point in ("after_sync", "after_plan"):
        bench.time.fail(f"bot_runner.{point}")
        with pytest.raises(FailpointError):
            await bench.time.syncing.sync(bench.project_id)
    assert await bench.time.index.unscheduled() == []
    before = await listed(bench)
    assert sorted(before) == ["dry", "fails", "morning"]
    shown = {k: v for k, v in before["morning"].items() if k != "next_due"}
    assert shown == {
        "name": "morning",
        "schedule": "0 9 * * *",
        "tz": "Europe/Berlin",
        "catch_up": "once",
        "handler": "morning",
        "active": True,
    }
    assert before["dry"]["handler"] == "without_database"
    await deploy(bench, {"bot.py": HEAD})
    assert (await listed(bench), await bench.pool.fetchval("SELECT count(*) FROM due")) == ({}, 0)
    await deploy(bench, {"bot.py": HEAD + "\n\n@bot.schedule('0 9 * * *')\nasync def morning(ctx):\n    pass\n"})
    assert sorted(await listed(bench)) == ["morning"]


async def test_what_a_schedule_has_missed_is_not_forgotten_by_a_deployment_that_leaves_its_times_alone(bench: Bench) -> None:
    await deploy(bench, bot())
    await due(bench, timedelta(hours=1))
    await deploy(bench, bot("all"))
    assert len(await fire(bench)) == 1
    await due(bench, timedelta(hours=1))
    await deploy(bench, {"bot.py": HEAD + BODY.replace("0 9", "30 8").replace("CATCH_UP", "all")})
    assert await fire(bench) == []


@pytest.mark.promise("P2")
async def test_a_schedule_that_is_turned_off_is_off_whoever_dies_and_stays_so_until_it_is_turned_on(bench: Bench) -> None:
    await deploy(bench, bot())
    await due(bench)
    (event,) = await fire(bench)
    for point in ("before_turn", "after_turn", "after_sync"):
        bench.time.fail(f"bot_runner.{point}")
        assert (await bench.ask("PATCH", "/schedules/morning", {"active": False}))[0] == 500
        assert await bench.time.index.unscheduled() == [bench.project_id]
    assert await bench.time.syncing.sync(bench.project_id)
    shown = (await listed(bench))["morning"]
    assert (shown["active"], shown["next_due"]) == (False, None)
    assert isinstance(await bench.take(event), Done)
    await deploy(bench, bot("all"))
    assert not (await listed(bench))["morning"]["active"]
    assert await history(bench, "morning") == [(None, "discarded")]
    on = await bench.good("PATCH", "/schedules/morning", {"active": True})
    assert (on["active"], on["next_due"] is not None) == (True, True)


async def test_a_person_runs_a_schedule_that_is_off_once_a_key(bench: Bench) -> None:
    await deploy(bench, bot())
    await bench.good("PATCH", "/schedules/dry", {"active": False})
    there = len(fired(bench, "dry"))
    runs = [await bench.good("POST", "/schedules/dry/runs", Idempotency_Key=key) for key in ("a", "a", "b")]
    ids = [UUID(r["event_id"]) for r in runs]
    assert (ids[0] == ids[1], ids[1] == ids[2], [e.id for e in fired(bench, "dry")[there:]]) == (True, False, ids)
    for event in fired(bench, "dry")[there:]:
        assert isinstance(await bench.take(event), Done)
    assert await history(bench, "dry") == [(ANNA, "handled")] * 2
    await bench.bad("POST", "/schedules/evening/runs", code="not_found")
    await bench.bad("PATCH", "/schedules/evening", {"active": True}, code="not_found")
    await bench.bad("PATCH", "/schedules/dry", {"active": "perhaps"}, code="invalid_request")
    await bench.bad("POST", "/schedules/dry/runs", code="invalid_request", Idempotency_Key="x" * 201)


async def test_a_project_that_is_not_ready_is_brought_in_line_when_it_is_and_keeps_nobody_waiting(bench: Bench) -> None:
    await bench.deploy(files=bot())
    await bench.time.relist(state="creating")
    assert await bench.time.syncing.once()
    assert await bench.time.index.unscheduled() == [bench.project_id]
    await bench.time.relist(state="ready")
    assert await bench.time.syncing.once()
    assert (await bench.time.index.unscheduled(), sorted(await listed(bench))) == ([], ["dry", "fails", "morning"])


@pytest.mark.promise("P7")
async def test_a_schedule_that_fails_is_tried_three_times_then_dead_and_leaves_nothing_behind(bench: Bench) -> None:
    assert bench.project is not None
    await deploy(bench, bot())
    await bench.good("POST", "/schedules/fails/runs")
    event = fired(bench, "fails")[-1]
    outcomes = [type(await bench.take(event, attempts)) for attempts in range(3)]
    assert outcomes == [Retry, Retry, Dead]
    runs = await bench.runs(event=event.id)
    assert [r["error"] for r in runs] == ["KeyError: 'drawer'"] * 3
    root = await bench.project.root()
    assert await root.fetchval("SELECT count(*) FROM loquat.bot_memories") == 0
    assert dict(await root.fetchrow("SELECT accepted, open FROM loquat.ledger()") or {}) == {"accepted": 1, "open": 1}
    assert await history(bench, "fails") == [(ANNA, None)]


@pytest.mark.promise("P2")
async def test_a_restored_database_is_brought_in_line_and_its_schedules_go_on(bench: Bench) -> None:
    assert bench.project is not None
    await deploy(bench, bot())
    await due(bench)
    (event,) = await fire(bench)
    root = await bench.project.root()
    await root.execute("UPDATE loquat.identity SET epoch = 2; DELETE FROM loquat.system_automations WHERE name = 'dry'")
    await bench.time.relist(epoch=2)
    try:
        assert isinstance(await bench.take(event), Done)
        assert await history(bench, "morning") == [(None, "discarded")]
        assert (sorted(await listed(bench)), await bench.time.syncing.once()) == (["fails", "morning"], True)
        assert sorted(await listed(bench)) == ["dry", "fails", "morning"]
        await due(bench)
        (following,) = await fire(bench)
        assert isinstance(following.data, ScheduleFired)
        assert following.data.epoch == 2
        assert await bench.time.index.unscheduled() == []
    finally:
        await root.execute("UPDATE loquat.identity SET epoch = 1")
        await bench.time.relist(epoch=1)
