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
