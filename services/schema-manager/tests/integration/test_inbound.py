"""`loquat.record_inbound` on a real project database."""

from __future__ import annotations

import asyncio
import json
import random
from collections import Counter
from typing import Any
from uuid import UUID

import asyncpg
import pytest

from tests.tenants import Desk, Project, Tenants, message, order, update

pytestmark = pytest.mark.promise("P2")


async def test_a_message_creates_contact_conversation_and_row_once(desk: Desk, project: Project) -> None:
    event = message("user_id:u1", "phone:+491", text="hello", name="Ada")
    first = await desk.record(event)
    again = await desk.record(event, event)
    assert [r["fresh"] for r in first] == [True]
    assert [(r["event_id"], r["fresh"], r["conversation_id"]) for r in again] == [(UUID(event["id"]), False, first[0]["conversation_id"])]
    root = await project.root()
    contacts = await root.fetch("SELECT name, phone_number FROM public.contacts")
    assert [tuple(c) for c in contacts] == [("Ada", "+491")]
    rows = await root.fetch("SELECT id, direction, type, text, sender, status, wamid FROM public.messages")
    assert [tuple(r) for r in rows] == [(UUID(event["id"]), "in", "text", "hello", "contact", "received", event["message"]["wamid"])]
    assert await root.fetchval("SELECT count(*) FROM loquat.addresses") == 2


async def test_both_ends_of_a_message_are_kept_when_both_numbers_are_the_projects(desk: Desk, project: Project) -> None:
    root = await project.root()
    sent = (await desk.run(message("user_id:a"), replies=[{"type": "text", "text": "to my other number"}]))[0]
    await desk.receipts({"key": sent["message_id"], "status": "accepted", "at": "2026-01-01T00:00:00Z", "wamid": "wamid.shared"})
    await desk.record(message("user_id:b", number="2", wamid="wamid.shared"))
    await desk.receipts({"key": "wamid.shared", "status": "read", "at": "2026-01-01T00:00:01Z"})
    rows = await root.fetch("SELECT direction, status FROM public.messages WHERE wamid = 'wamid.shared' ORDER BY 1")
    assert [tuple(r) for r in rows] == [("in", "received"), ("out", "read")]


async def test_an_order_opens_a_conversation_and_has_no_inbound_row(desk: Desk, project: Project) -> None:
    (row,) = await desk.record(order("phone:+491"))
    assert row["fresh"]
    assert row["conversation_id"] is not None
    root = await project.root()
    assert await root.fetchval("SELECT count(*) FROM public.messages") == 0
    assert await root.fetchval("SELECT phone_number FROM public.contacts") == "+491"


@pytest.mark.promise("P6")
@pytest.mark.promise("P7")
async def test_an_update_is_counted_and_kept_whole_without_a_conversation(desk: Desk, project: Project) -> None:
    raw = '{"surprise": "\\ud800 \\u0000", "b": 1, "a": 2}'
    nobodys, persons = update("never_seen", raw), update("user_preferences", '{"x": 1}', "user_id:u1")
    rows = await desk.record(nobodys, message("user_id:u1"), persons)
    assert Counter(r["conversation_id"] is None for r in rows) == {True: 2, False: 1}
    assert all(r["fresh"] for r in rows)
    assert not any(r["fresh"] for r in await desk.record(nobodys, persons))
    root = await project.root()
    kept = await root.fetch("SELECT field, raw::text AS raw FROM loquat.updates ORDER BY field")
    assert [tuple(k) for k in kept] == [("never_seen", raw), ("user_preferences", '{"x": 1}')]
    assert (await desk.begin(nobodys))["todo"] == "done"
    ledger = await desk.log.fetchrow("SELECT accepted, handled, open FROM loquat.ledger()")
    assert ledger is not None
    assert tuple(ledger) == (3, 1, 2)


@pytest.mark.promise("P6")
@pytest.mark.parametrize(
    "raw", [json.dumps({"body": "nul \0 and half a pair \ud800"}), '{"z":1,  "a":2}', "null", '{"deep":' + "[" * 900 + "]" * 900 + "}"]
)
async def test_raw_is_kept_character_by_character(desk: Desk, project: Project, raw: str) -> None:
    await desk.record(message("user_id:u1"), message("user_id:u1", raw=raw, type="type_of_next_year", content={"any": ["thing"]}))
    root = await project.root()
    row = await root.fetchrow("SELECT raw::text AS raw, content FROM public.messages WHERE type = 'type_of_next_year'")
    assert row is not None
    assert (row["raw"], row["content"]) == (raw, {"any": ["thing"]})


async def test_raw_that_is_no_json_is_kept_as_a_string(desk: Desk, project: Project) -> None:
    await desk.record(message("user_id:u1", raw='{"cut": '))
    root = await project.root()
    assert json.loads(await root.fetchval("SELECT raw FROM public.messages")) == '{"cut": '


async def test_a_batch_with_an_event_that_names_nobody_is_refused_whole(desk: Desk, project: Project) -> None:
    with pytest.raises(asyncpg.DataError, match="names nobody"):
        await desk.record(message("user_id:u1"), message())
    assert await (await project.root()).fetchval("SELECT count(*) FROM loquat.events") == 0


async def test_a_name_and_a_phone_number_that_come_later_are_filled_in_and_never_overwritten(desk: Desk, project: Project) -> None:
    root = await project.root()
    await desk.record(order("user_id:u1"))
    await desk.record(message("user_id:u1", "phone:+491", name="Ada"))
    await desk.record(message("user_id:u1", "phone:+492", name="Eve"))
    assert [tuple(r) for r in await root.fetch("SELECT name, phone_number FROM public.contacts")] == [("Ada", "+491")]


async def test_an_event_seen_before_does_not_open_a_closed_conversation_again(desk: Desk, project: Project) -> None:
    event = message("user_id:u1")
    await desk.run(event, end=True)
    await desk.record(event)
    root = await project.root()
    assert [r["status"] for r in await root.fetch("SELECT status FROM public.conversations")] == ["closed"]
    await desk.record(message("user_id:u1"))
    assert {r["status"] for r in await root.fetch("SELECT status FROM public.conversations")} == {"closed", "open"}


async def _people(project: Project) -> set[frozenset[str]]:
    root = await project.root()
    rows = await root.fetch(
        "SELECT array_agg(e.id::text) AS events FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id GROUP BY c.contact_id"
    )
    return {frozenset(r["events"]) for r in rows}


async def test_a_batch_makes_the_same_people_as_its_events_one_by_one(tenants: Tenants) -> None:
    """Addresses come in any order and company; the order of arrival decides, however the events are cut into batches."""
    dice = random.Random(20260101)  # noqa: S311  (a die, no secret)
    names = [f"{kind}:{n}" for n in range(9) for kind in ("user_id", "phone")]
    events = [message(*dice.sample(names, dice.randint(1, 3))) for _ in range(60)]
    found: list[set[frozenset[str]]] = []
    for size in (1, 2, 7, 60):
        project = await tenants.project()
        desk = await Desk.of(project)
        for start in range(0, len(events), size):
            await desk.record(*events[start : start + size])
        found.append(await _people(project))
        await tenants.drop(project)
    assert all(people == found[0] for people in found)
    assert len(found[0]) > 1


async def test_two_readers_of_the_same_events_at_once_record_each_once(project: Project) -> None:
    dice = random.Random(7)  # noqa: S311  (a die, no secret)
    events = [message(f"user_id:u{n % 20}", f"phone:+49{n % 20}") for n in range(200)]
    desks = [await Desk.of(project) for _ in range(3)]

    async def read(desk: Desk, mine: list[dict[str, Any]]) -> int:
        fresh, left = 0, list(mine)
        while left:
            batch, left = left[:13], left[13:]
            try:
                fresh += sum(r["fresh"] for r in await desk.record(*batch))
            except asyncpg.DeadlockDetectedError:
                left = batch + left
        return fresh

    counts = await asyncio.gather(*(read(d, dice.sample(events, len(events))) for d in desks))
    root = await project.root()
    assert sum(counts) == 200
    assert await root.fetchval("SELECT count(*) FROM public.messages") == 200
    assert await root.fetchval("SELECT count(*) FROM public.contacts") == 20
    assert await root.fetchval("SELECT count(*) FROM public.conversations") == 20
