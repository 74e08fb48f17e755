"""Timers and schedules in a project's database: what a result sets, what calls one off, what is told to the index, and what a copy keeps."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.tenants import Desk, Project, message, order

pytestmark = pytest.mark.promise("P2")

TEXT = {"type": "text", "text": "hello"}


def at(**after: float) -> str:
    return (datetime.now(UTC) + timedelta(**after)).isoformat()


def timer(name: str = "t", *, hours: float = 2, until_answer: bool = False, data: Any = None) -> dict[str, Any]:
    return {"name": name, "at": at(hours=hours), "data": data, "until_answer": until_answer}


async def timed(desk: Desk, event: dict[str, Any] | str, todo: str = "done") -> dict[str, Any]:
    event_id = event if isinstance(event, str) else event["id"]
    return await desk.runner.fetchval("SELECT loquat.timed_of($1, $2)", UUID(event_id), todo) or {"arm": None}


async def arm(desk: Desk, event: dict[str, Any]) -> list[dict[str, Any]]:
    """What the runner tells its index; the index knows then."""
    told: list[dict[str, Any]] = (await timed(desk, event))["arm"] or []
    await desk.runner.execute("SELECT loquat.timers_armed($1)", told)
    return told


def fired(armed: dict[str, Any]) -> dict[str, Any]:
    return {"id": armed["event_id"], "kind": "timer", "conversation_id": armed["conversation_id"]}


async def outcomes(project: Project) -> list[tuple[str, str | None]]:
    return [tuple(r) for r in await (await project.root()).fetch("SELECT kind, outcome FROM loquat.events ORDER BY recorded_at")]


async def test_a_timer_is_told_until_the_index_knows_fires_once_and_its_handler_may_set_it_again(desk: Desk, project: Project) -> None:
    first = message("wa_id:49", "user_id:u")
    await desk.run(first, timers=[timer(data={"n": 1})])
    told = (await timed(desk, first))["arm"]
    assert told == (await timed(desk, first))["arm"]
    assert told[0]["addresses"][0] == {"kind": "user_id", "value": "u"}
    (armed,) = await arm(desk, first)
    assert (await timed(desk, first))["arm"] is None
    event = fired(armed)
    assert [r["fresh"] for r in await desk.record(event)] == [True]
    begun = await desk.begin(event)
    given = await timed(desk, event, "run")
    assert (begun["todo"], given) == ("run", {"fired": {"data": {"n": 1}}, "timers": [], "number_id": "1"})
    committed = await desk.commit(event, begun["version"], {"replies": [TEXT], "timers": [timer(data={"n": 2})]})
    assert [m["sender"] for m in committed["outbox"]] == ["bot"]
    assert (await desk.begin(event))["todo"] == "done"
    (again,) = await arm(desk, event)
    assert again["event_id"] != armed["event_id"]
    assert await outcomes(project) == [("message", "handled"), ("timer", "handled")]


async def test_a_timer_that_was_moved_or_called_off_is_discarded_when_its_old_time_comes(desk: Desk, project: Project) -> None:
    await desk.run(first := message("wa_id:49"), timers=[timer("a"), timer("b")])
    old = await arm(desk, first)
    await desk.run(second := message("wa_id:49"), timers=[timer("a", hours=3), {"name": "b", "at": None}])
    new = {t["name"]: t for t in await arm(desk, second)}
    assert new["b"]["due_at"] is None
    assert {t["timer_id"] for t in old} == {t["timer_id"] for t in new.values()}
    for each in old:
        assert (await desk.begin(fired(each)))["todo"] == "held"
    assert (await desk.begin(fired(new["a"])))["todo"] == "run"
    assert [o for k, o in await outcomes(project) if k == "timer"] == ["discarded", "discarded", None]


async def test_the_index_that_knew_an_older_time_does_not_make_a_newer_one_known(desk: Desk) -> None:
    await desk.run(first := message("wa_id:49"), timers=[timer()])
    stale = (await timed(desk, first))["arm"]
    await desk.run(second := message("wa_id:49"), timers=[{"name": "t", "at": None}])
    await desk.runner.execute("SELECT loquat.timers_armed($1)", stale)
    assert [t["due_at"] for t in await arm(desk, second)] == [None]
    assert await arm(desk, second) == []


@pytest.mark.parametrize("hold", [None, "held", "expired"])
async def test_the_contacts_next_message_calls_off_what_waits_for_it_however_it_ends(desk: Desk, hold: str | None) -> None:
    await desk.run(first := message("wa_id:49"), timers=[timer("no-answer", until_answer=True), timer("stays")])
    armed = {t["name"]: t for t in await arm(desk, first)}
    await desk.begin(answer := message("wa_id:49"), hold)
    assert [(t["name"], t["due_at"]) for t in (await timed(desk, answer))["arm"]] == [("no-answer", None)]
    assert (await desk.begin(fired(armed["no-answer"])))["todo"] == "held"
    if hold is None:
        begun = await desk.begin(answer)
        await desk.commit(answer, begun["version"], {"timers": [timer("no-answer", until_answer=True)]})
        assert (await desk.begin(answer))["todo"] == "done"
        assert (await timed(desk, answer))["arm"][0]["due_at"] is not None
    assert (await desk.begin(fired(armed["stays"])))["todo"] == "run"


async def test_a_conversation_that_is_closed_or_held_runs_no_timer(desk: Desk, project: Project) -> None:
    root = await project.root()
    await desk.run(first := message("wa_id:49"), timers=[timer("a")])
    (closed,) = await arm(desk, first)
    await desk.run(message("wa_id:49"), end=True, timers=[timer("b")])
    assert (await desk.begin(fired(closed)))["todo"] == "held"
    await desk.run(other := message("wa_id:50"), timers=[timer("a")])
    held = next(t for t in await arm(desk, other) if t["due_at"] is not None)
    await root.execute("UPDATE public.conversations SET holder = 'anna' WHERE id = $1", UUID(held["conversation_id"]))
    assert (await desk.begin(fired(held)))["todo"] == "held"
    assert [o for k, o in await outcomes(project) if k == "timer"] == ["discarded", "held"]
    assert await root.fetchval("SELECT count(*) FROM loquat.timers WHERE due_at IS NOT NULL") == 0
    nowhere = {"id": str(uuid4()), "kind": "timer", "conversation_id": str(uuid4())}
    assert (await desk.begin(nowhere))["todo"] == "held"


async def test_a_bot_records_a_timers_result_in_its_own_transaction_fenced_like_a_messages(desk: Desk, project: Project) -> None:
    await desk.run(first := message("wa_id:49"), timers=[timer()])
    (armed,) = await arm(desk, first)
    begun, bot = await desk.begin(fired(armed)), await project.login("bot")
    with pytest.raises(asyncpg.PostgresError) as refused:
        await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(armed["event_id"]), begun["version"] + 1)
    assert refused.value.sqlstate == "LQ003"
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(armed["event_id"]), begun["version"], {"timers": [timer("n")]})
    blocked = await desk.begin(message("wa_id:49"))
    assert (blocked["todo"], str(blocked["blocked_by"])) == ("blocked", armed["event_id"])
    assert (await desk.begin(fired(armed)))["todo"] == "recorded"
    assert (await desk.commit(fired(armed)))["status"] == "committed"
    assert [t["name"] for t in await arm(desk, fired(armed))] == ["n"]


FLAWS: list[dict[str, Any]] = [
    {"timers": {}},
    {"timers": [timer(f"t{n}") for n in range(21)]},
    {"timers": [{**timer(), "name": ""}]},
    {"timers": [{**timer(), "at": "tomorrow"}]},
    {"timers": [{**timer(), "at": "2026-01-01T00:00:00"}]},
    {"timers": [{**timer(), "at": "2026-13-01T00:00:00Z"}]},
    {"timers": [{**timer(), "data": "x" * 16_384}]},
    {"timers": [{**timer(), "until_answer": "yes"}]},
    {"sends": [{**TEXT, "contact_id": "nobody"}]},
    {"sends": [TEXT]},
    {"sends": [{"contact_id": str(uuid4()), "type": "dance"}]},
    {"sends": [{**TEXT, "contact_id": str(uuid4())}] * 501},
]


@pytest.mark.parametrize("flaw", range(len(FLAWS)))
async def test_timers_and_sends_that_could_not_be_applied_are_refused(desk: Desk, project: Project, flaw: int) -> None:
    event = message("wa_id:49")
    begun, bot = await desk.begin(event), await project.login("bot")
    for connection, query in ((bot, "SELECT loquat.record_result($1, $2, $3)"), (desk.runner, "SELECT loquat.commit_run($1, $2, $3)")):
        with pytest.raises(asyncpg.PostgresError) as refused:
            await connection.execute(query, UUID(event["id"]), begun["version"], FLAWS[flaw])
        assert refused.value.sqlstate == "LQ001"


async def test_no_conversation_has_more_than_fifty_timers_and_none_is_due_at_once_or_for_ever(desk: Desk, project: Project) -> None:
    for batch in range(3):
        await desk.run(message("wa_id:49"), timers=[timer(f"{batch}-{n}", hours=-1 if n else 24 * 500) for n in range(20)])
    root = await project.root()
    bounds = await root.fetchrow(
        "SELECT count(*) FROM loquat.timers WHERE due_at NOT BETWEEN now() - interval '1 minute' AND now() + interval '367 days'"
    )
    assert (await root.fetchval("SELECT count(*) FROM loquat.timers") <= 60, bounds) == (True, (0,))
    begun = await desk.begin(last := message("wa_id:49"))
    assert len((await timed(desk, last, "run"))["timers"]) == 60
    await desk.commit(last, begun["version"], {"timers": [timer("one more"), timer("0-1", hours=1)]})
    assert await root.fetchval("SELECT count(*) FROM loquat.timers WHERE name = 'one more'") == 0


async def test_a_leftover_of_another_conversation_is_told_with_whatever_ends_next(desk: Desk, project: Project) -> None:
    await desk.run(message("wa_id:49"), timers=[timer("left")])
    await desk.run(other := message("wa_id:50"))
    assert (await timed(desk, other))["arm"] is None
    await (await project.root()).execute("UPDATE loquat.timers SET updated_at = now() - interval '2 minutes'")
    assert [t["name"] for t in await arm(desk, other)] == ["left"]


async def sync(desk: Desk, *names: str) -> dict[str, UUID]:
    rows = [{"name": n, "schedule": "0 9 * * *", "handler": n, "tz": "UTC", "catch_up": "once"} for n in names]
    await desk.runner.execute("SELECT loquat.sync_automations($1)", rows)
    return {r["name"]: r["id"] for r in await desk.runner.fetch("SELECT * FROM loquat.automations()")}


def due(automation: UUID, by: str | None = None) -> dict[str, Any]:
    return {"id": str(uuid4()), "kind": "schedule", "schedule": {"automation_id": str(automation), "due_at": at(), "ordered_by": by}}


async def test_a_schedules_run_is_recorded_once_and_orders_what_it_says_to_contacts_who_have_written(desk: Desk, project: Project) -> None:
    ada = (await desk.begin(first := message("wa_id:49")))["contact_id"]
    await desk.commit(first, 0, {})
    event = due((await sync(desk, "morning"))["morning"])
    assert (await desk.record(event))[0]["fresh"]
    begun, bot = await desk.begin(event), await project.login("bot")
    assert (begun["todo"], begun["version"]) == ("run", 0)
    result = {"sends": [{**TEXT, "contact_id": str(ada)}, {**TEXT, "contact_id": str(uuid4())}]}
    assert await bot.fetchval("SELECT loquat.memory_set($1, false, 'k', '1')", UUID(event["id"]))
    await bot.execute("SELECT loquat.record_result($1, 0, $2)", UUID(event["id"]), result)
    assert (await desk.begin(event))["todo"] == "recorded"
    assert [(await desk.commit(event))["status"] for _ in range(2)] == ["committed", "done"]
    known, unknown = (await timed(desk, event))["send"]
    assert (known["number_id"], known["contact_id"], unknown["number_id"]) == ("1", str(ada), None)
    assert known["addresses"] == [{"kind": "wa_id", "value": "49"}]
    ordered = {**order("wa_id:49"), "id": known["order_id"]}
    said = await desk.run(ordered, replies=[TEXT], ordered_by="schedule", sender="automation")
    assert [m["sender"] for m in said] == ["automation"]
    await desk.runner.execute("SELECT loquat.clear_sends($1)", UUID(event["id"]))
    assert (await timed(desk, event))["send"] is None
    assert await desk.runner.fetchval("SELECT handled FROM loquat.ledger()") == 3


async def test_a_schedule_that_is_off_or_gone_is_discarded_and_a_person_may_run_one_that_is_off(desk: Desk, project: Project) -> None:
    ids = await sync(desk, "a", "b")
    assert await desk.runner.fetchval("SELECT loquat.turn_automation($1, false)", ids["a"])
    await sync(desk, "a")
    assert [(await desk.begin(e))["todo"] for e in (due(ids["a"]), due(ids["b"]), due(uuid4()), due(ids["a"], "anna"))] == ["held"] * 3 + [
        "run"
    ]
    assert [o for _, o in await outcomes(project)] == ["discarded"] * 3 + [None]
    back = await sync(desk, "a", "b")
    assert back == ids
    active = {r["name"]: r["active"] for r in await desk.runner.fetch("SELECT * FROM loquat.automations()")}
    assert active == {"a": False, "b": True}
    history = await desk.runner.fetch("SELECT * FROM loquat.automation_history($1, 10)", ids["a"])
    assert [(r["ordered_by"], r["outcome"]) for r in history] == [("anna", None), (None, "discarded")]


async def test_a_copy_has_no_timers_and_a_clones_schedules_are_off(desk: Desk, project: Project) -> None:
    root, provisioner = await project.root(), await project.service("provisioner")
    await desk.run(first := message("wa_id:49"), timers=[timer()])
    (armed,) = await arm(desk, first)
    waiting = due((await sync(desk, "a"))["a"])
    await desk.record(waiting)
    before = await root.fetchrow("SELECT project, epoch FROM loquat.identity")
    assert before is not None
    for epoch, former in ((before["epoch"] + 1, None), (before["epoch"] + 2, "another")):
        renewed = "SELECT loquat.renew_project($1, $2, $3, $4)"
        assert await provisioner.fetchval(renewed, before["project"], epoch, project.database, former)
        assert await root.fetchval("SELECT active FROM loquat.system_automations") == (former is None)
    assert await root.fetchval("SELECT count(*) FROM loquat.timers") == 0
    assert (await desk.begin(fired(armed)))["todo"] == "held"
    assert [o for _, o in await outcomes(project)] == ["handled", "discarded", "discarded"]
    await root.execute("UPDATE loquat.identity SET project = $1, epoch = $2", before["project"], before["epoch"])
