"""Who holds a conversation, in the database: fenced by its version, checked, and along with contacts that are merged or erased."""

from __future__ import annotations

from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.tenants import Desk, Project, message, order

HOLD: dict[str, Any] = {
    "replies": [],
    "ordered_by": "anna",
    "hold": {"kind": "person", "who": "anna", "seconds": 3600, "note": "a secret of hers"},
}
FLAWS: list[dict[str, Any]] = [
    {"hold": []},
    {"hold": {"kind": "phone"}},
    {"hold": {"note": "x" * 1001}},
    {"hold": {"seconds": 0}},
    {"hold": {"seconds": "9"}},
    {"ask": "?"},
    {"ask": {"seconds": 1e9}},
    {"ask": {"notes": "x" * 65_536}},
]


async def begin(desk: Desk, event: dict[str, Any], *, redriven: bool = False, observes: bool = False) -> asyncpg.Record:
    row = await desk.runner.fetchrow("SELECT * FROM loquat.begin_event($1, NULL, NULL, $2, $3)", event, redriven, observes)
    assert row is not None
    return row


async def held(project: Project) -> list[dict[str, Any]]:
    rows = await (await project.root()).fetch("SELECT * FROM public.conversations ORDER BY opened_at, id")
    return [dict(r) for r in rows]


@pytest.mark.parametrize("flaw", FLAWS, ids=[str(f)[:30] for f in FLAWS])
async def test_what_a_result_says_of_holding_and_asking_is_checked(desk: Desk, flaw: dict[str, Any]) -> None:
    event = message("user_id:u1")
    begun = await desk.begin(event)
    with pytest.raises(asyncpg.PostgresError, match="the result has"):
        await desk.commit(event, begun["version"], {"replies": [], **flaw})
    assert (await desk.commit(event, begun["version"], {"replies": []}))["status"] == "committed"


@pytest.mark.promise("P2")
async def test_a_run_in_flight_loses_to_whoever_takes_over_and_is_held_then(desk: Desk, project: Project) -> None:
    event, taken, bot = message("user_id:u1"), order("user_id:u1"), await project.login("bot")
    begun = await begin(desk, event)
    await begin(desk, taken)
    assert (await desk.commit(taken, 0, HOLD))["status"] == "committed"
    with pytest.raises(asyncpg.PostgresError, match="not open at this version"):
        await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(event["id"]), begun["version"])
    said = {"replies": [{"type": "text", "text": "late"}]}
    assert (await desk.commit(event, begun["version"], said))["status"] == "superseded"
    assert (await begin(desk, event))["todo"] == "held"
    assert [(c["holder"], c["holder_id"], c["version"]) for c in await held(project)] == [("person", "anna", 1)]


async def test_a_bot_names_nobody_it_hands_over_to_and_hands_nothing_back(desk: Desk, project: Project) -> None:
    first, second = message("user_id:u1"), message("user_id:u1")
    await begin(desk, first)
    await desk.commit(first, 0, {"replies": [], "hold": {"kind": "person", "who": "anna"}})
    assert [(c["holder"], c["holder_id"]) for c in await held(project)] == [("people", None)]
    assert (await begin(desk, second, observes=True))["todo"] == "observe"
    await desk.commit(second, 1, {"replies": [], "hold": {"kind": "bot"}, "resolved": True})
    assert [(c["holder"], c["version"]) for c in await held(project)] == [("people", 2)]


async def test_a_hold_goes_along_when_a_contact_is_merged_and_the_other_ones_run_in_flight_loses(desk: Desk, project: Project) -> None:
    event = message("user_id:kept")
    begun = await begin(desk, event)
    taken = order("user_id:gone")
    gone = await begin(desk, taken)
    await desk.commit(taken, 0, HOLD)
    word = await desk.log.fetchval("SELECT loquat.merge_contacts($1, $2)", gone["contact_id"], begun["contact_id"])
    assert word == "done"
    (kept,) = [c for c in await held(project) if c["status"] == "open"]
    assert (kept["id"], kept["holder"], kept["holder_id"], kept["hold_note"]) == (
        begun["conversation_id"],
        "person",
        "anna",
        HOLD["hold"]["note"],
    )
    assert (await desk.commit(event, begun["version"], {"replies": []}))["status"] == "superseded"
    assert (await begin(desk, event))["todo"] == "held"


async def test_of_a_person_who_is_erased_no_note_no_question_and_no_failure_is_left(desk: Desk, project: Project) -> None:
    asked, failed, taken = message("user_id:u1"), message("user_id:u1"), order("user_id:u1")
    begun = await begin(desk, asked)
    await desk.commit(asked, 0, {"replies": [], "ask": {"answers": {"name": "Ada"}, "seconds": None}})
    await begin(desk, failed)
    await desk.runner.execute("SELECT loquat.fail_event($1, NULL, 'KeyError: Ada')", UUID(failed["id"]))
    await begin(desk, taken)
    root = await project.root()
    assert await root.fetchval("SELECT count(*) FROM loquat.asks") == 1
    await desk.commit(taken, 2, HOLD)
    await desk.log.execute("SELECT * FROM loquat.erase_contact($1, 100)", begun["contact_id"])
    (erased,) = await held(project)
    assert (erased["holder"], erased["hold_note"], erased["needs_attention"], erased["attention_event"]) == ("bot", None, False, None)
    assert [await root.fetchval(f"SELECT count(*) FROM loquat.{t}") for t in ("asks", "failures")] == [0, 0]  # noqa: S608  (names of ours)


async def test_a_question_is_forgotten_when_its_conversation_is_closed(desk: Desk, project: Project) -> None:
    asked, ended = message("user_id:u1"), order("user_id:u1")
    await begin(desk, asked)
    await desk.commit(asked, 0, {"replies": [], "ask": {"seconds": None}})
    await begin(desk, ended)
    await desk.commit(ended, 1, {"replies": [], "end": True})
    assert await (await project.root()).fetchval("SELECT count(*) FROM loquat.asks") == 0


async def told(desk: Desk, event: dict[str, Any]) -> list[dict[str, Any]]:
    """What the index is told after an event; it knows then."""
    arm: list[dict[str, Any]] = await desk.runner.fetchval("SELECT loquat.timed_of($1, 'done') -> 'arm'", UUID(event["id"])) or []
    await desk.runner.execute("SELECT loquat.timers_armed($1)", arm)
    return arm


async def fire(desk: Desk, timer: dict[str, Any]) -> tuple[dict[str, Any], asyncpg.Record, Any]:
    event = {"id": timer["event_id"], "kind": "timer", "conversation_id": timer["conversation_id"]}
    begun = await begin(desk, event)
    return event, begun, await desk.runner.fetchval("SELECT loquat.timed_of($1, 'run') #> '{fired,data}'", UUID(event["id"]))


async def test_a_bot_is_called_once_when_its_conversation_is_handed_back_and_not_when_the_time_of_that_hold_comes(
    desk: Desk, project: Project
) -> None:
    taken, back, again = order("user_id:u1"), order("user_id:u1"), order("user_id:u1")
    await begin(desk, taken)
    await desk.commit(taken, 0, HOLD)
    (lapse,) = await told(desk, taken)
    assert lapse["name"] == "loquat:handback"
    await begin(desk, back)
    await desk.commit(back, 1, {"replies": [], "hold": {"kind": "bot"}})
    (now,) = await told(desk, back)
    assert (now["timer_id"], now["due_at"] < lapse["due_at"]) == (lapse["timer_id"], True)
    assert (await fire(desk, lapse))[1]["todo"] == "held", "it was moved"
    event, begun, data = await fire(desk, now)
    assert (begun["todo"], data) == ("run", {"held_by": "person", "lapsed": False})
    assert (await desk.commit(event, begun["version"], {"replies": []}))["status"] == "committed"
    await begin(desk, again)
    await desk.commit(again, 3, {"replies": [], "hold": {"kind": "bot"}})
    assert (await told(desk, again), [c["holder"] for c in await held(project)]) == ([], ["bot"]), "it was the bot's already"


async def test_a_bot_is_called_when_the_time_of_a_hold_is_over_unless_somebody_holds_on(desk: Desk, project: Project) -> None:
    helps, taken = message("user_id:u1"), order("user_id:u1")
    await begin(desk, helps)
    await desk.commit(helps, 0, {"replies": [], "hold": {"seconds": 600}})
    (lapse,) = await told(desk, helps)
    await (await project.root()).execute("UPDATE public.conversations SET held_until = now() - interval '1 second'")
    event, begun, data = await fire(desk, lapse)
    assert (begun["todo"], data) == ("run", {"held_by": "people", "lapsed": True})
    await desk.commit(event, begun["version"], {"replies": [], "hold": {"seconds": 600}})
    (lapse,) = await told(desk, event)
    await begin(desk, taken)
    await desk.commit(taken, 2, {"replies": [], "hold": {"kind": "person", "who": "anna"}})
    (off,) = await told(desk, taken)
    assert (off["timer_id"], off["due_at"]) == (lapse["timer_id"], None)


async def test_a_result_has_at_most_128_levels_whoever_hands_it_in(desk: Desk, project: Project) -> None:
    event, bot = message("user_id:u1"), await project.login("bot")
    begun = await begin(desk, event)

    def noted(levels: int) -> str:
        return '{"replies": [], "contact": {"attributes": {"x": %s}}}' % ("[" * levels + "1" + "]" * levels)

    for levels in (126, 5000):
        with pytest.raises(asyncpg.PostgresError, match="the result has more than 128 levels"):
            await bot.execute("SELECT loquat.record_result($1, $2, $3::text::jsonb)", UUID(event["id"]), begun["version"], noted(levels))
    await bot.execute("SELECT loquat.record_result($1, $2, $3::text::jsonb)", UUID(event["id"]), begun["version"], noted(125))
    assert (await desk.commit(event))["status"] == "committed"
