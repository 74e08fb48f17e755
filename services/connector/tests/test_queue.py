"""The send queue: each message once, each lane in its order, what cannot go now keeps nobody busy."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from loquat_common.bus.port import BusUnavailable, Done
from loquat_common.failpoints import FailpointError
from loquat_connector.adapters.queue import _CANDIDATES, SHARE
from loquat_connector.domain.pacing import Pacing, Rate
from loquat_connector.domain.verdict import Verdict
from loquat_events.catalog import RECEIPTS
from loquat_events.conversations import Address

from services.connector.tests.office import ANNA, NUMBER, PROJECT, Office, queued
from tests.system.world import until

BERND, SECOND = "4915187654321", "106540352242999"


@pytest.mark.promise("P2")
async def test_an_order_that_comes_twice_is_one_row_and_one_message(office: Office) -> None:
    order = queued()
    assert [await office.handle(order), await office.handle(order)] == [Done(), Done()]
    async with office.sending():
        await office.settled(order)
        await office.handle(order)
        after = queued(text="after")
        await office.handle(after)
        await office.settled(after)
    assert office.phone() == ["hi", "after"]
    assert await office.pool.fetchval("SELECT count(*) FROM sends") == 2


SHAPES: dict[str, dict[str, Any]] = {
    "text": {"type": "text", "text": "hello"},
    "buttons": {"type": "buttons", "text": "choose", "content": {"buttons": [{"id": "a", "title": "A"}, {"id": "b", "title": "B"}]}},
    "list": {
        "type": "list",
        "text": "one of",
        "content": {"button": "Open", "sections": [{"title": "S", "rows": [{"id": "a", "title": "A", "description": "d"}]}]},
    },
    "image": {"type": "image", "text": "caption", "content": {"link": "https://pictures.invalid/y.png"}},
}


async def test_each_shape_is_taken_by_meta_and_shown_to_the_contact(office: Office) -> None:
    orders = [queued(message=shape) for shape in SHAPES.values()]
    for order in orders:
        await office.handle(order)
    async with office.sending():
        await office.settled(*orders)
    assert office.phone() == ["hello", "choose", "one of", "caption"]
    assert [c["body"]["type"] for c in office.calls()] == ["text", "interactive", "interactive", "image"]
    assert [c["body"]["biz_opaque_callback_data"] for c in office.calls()] == [str(o.message_id) for o in orders]


async def test_a_user_id_is_written_to_where_there_is_no_number(office: Office) -> None:
    order = queued().model_copy(update={"addresses": (Address(kind="user_id", value="DE.7"),)})
    await office.handle(order)
    async with office.sending():
        await office.settled(order)
    assert office.phone("DE.7") == ["hi"]


async def test_a_contact_nobody_can_write_to_and_a_shape_nobody_can_send_fail_visibly_and_ask_meta_nothing(office: Office) -> None:
    nameless = queued().model_copy(update={"addresses": (Address(kind="username", value="anna"),)})
    long = queued(message={"type": "buttons", "text": "x", "content": {"buttons": [{"id": "a", "title": "t" * 21}]}})
    for order in (nameless, nameless, long):
        await office.handle(order)
    async with office.sending():
        await office.reached(long, "failed")
    told = [(o.message_id, o.status, o.attempt) for o in await office.outcomes()]
    assert told == [(nameless.message_id, "failed", 0), (long.message_id, "failed", 1)]
    assert all(o.error_title for o in await office.outcomes())
    assert office.calls() == []


@pytest.mark.promise("P2")
async def test_of_many_that_claim_one_message_one_gets_it(office: Office) -> None:
    await office.handle(queued())
    (send,) = await office.queue.candidates(10, [])
    assert sorted(await asyncio.gather(*(office.queue.claim(send) for _ in range(6)))) == [False] * 5 + [True]
    assert await office.queue.candidates(10, []) == []


@pytest.mark.promise("P2")
async def test_who_claims_by_an_old_look_takes_nothing(office: Office) -> None:
    """Another sender had the message in the meantime and must try it again: that one's turn is not taken without an attempt."""
    order = queued()
    await office.handle(order)
    (old,) = await office.queue.candidates(10, [])
    await office.queue.claim(old)
    await office.queue.end(old, Verdict("queued", wait=0))
    assert not await office.queue.claim(old)
    assert (await office.row(order))["state"] == "queued"
    (fresh,) = await office.queue.candidates(10, [])
    assert fresh.attempt == 2
    assert await office.queue.claim(fresh)
    assert [a["n"] for a in await office.attempts(order)] == [1, 2]


@pytest.mark.promise("P3")
async def test_only_the_head_of_a_lane_may_go_and_lanes_do_not_wait_for_each_other(office: Office) -> None:
    first, second, other = queued(text="1"), queued(text="2"), queued(BERND)
    for order in (first, second, other):
        await office.handle(order)
    heads = await office.queue.candidates(10, [])
    assert [h.message_id for h in heads] == [first.message_id, other.message_id]
    assert [h.message_id for h in await office.queue.candidates(10, [f"{NUMBER} {ANNA}"])] == [other.message_id]
    await office.queue.claim(heads[0])
    assert [h.message_id for h in await office.queue.candidates(10, [])] == [other.message_id]
    await office.queue.end(heads[0], Verdict("unknown"))
    assert {h.message_id for h in await office.queue.candidates(10, [])} == {second.message_id, other.message_id}


@pytest.mark.promise("P3")
async def test_what_a_project_left_in_the_queue_of_a_number_it_lost_keeps_the_new_owners_messages_from_nobody(office: Office) -> None:
    left = queued(text="never sent")
    await office.handle(left)
    assert await office.numbers.attach("prj_b", NUMBER, "waba", "EAAother", None, move_from=PROJECT) is not None
    await office.tell()
    await office.tell()
    mine = queued(text="mine")
    await office.handle(mine, "prj_b")
    assert [h.message_id for h in await office.queue.candidates(10, [])] == [mine.message_id]


async def test_what_cannot_go_now_is_not_looked_for_again_and_again(office: Office) -> None:
    """Behind another message, in a lane that is in hand, on a number that must be connected again: its end, or the number's, wakes the sender."""
    busy = f"{NUMBER} {ANNA}"
    assert await office.queue.next_due([]) is None
    for _ in range(2):
        await office.handle(queued())
    due = await office.queue.next_due([])
    assert due is not None
    assert due <= 0
    assert await office.queue.next_due([busy]) is None
    (head,) = await office.queue.candidates(10, [])
    await office.queue.claim(head)
    lease = await office.queue.next_due([busy])
    assert lease is not None
    assert 10 < lease <= 15
    await office.queue.end(head, Verdict("queued", wait=60, reconnect=True, title="no"))
    assert await office.queue.next_due([]) is None


async def test_a_message_that_could_not_go_in_its_time_expires_and_that_is_told_once(office: Office) -> None:
    order = queued()
    await office.handle(order)
    await office.pool.execute("UPDATE sends SET deadline = now() - interval '1 second'")
    assert await office.queue.sweep() == 1
    assert await office.queue.sweep() == 0
    assert (await office.row(order))["state"] == "expired"
    assert [(o.status, o.attempt) for o in await office.outcomes()] == [("expired", 0)]
    assert await office.queue.candidates(10, []) == []


@pytest.mark.promise("P2")
async def test_an_answer_that_comes_after_the_lease_ends_what_nobody_knew(office: Office) -> None:
    order = queued()
    await office.handle(order)
    (send,) = await office.queue.candidates(10, [])
    await office.queue.claim(send)
    await office.lapse()
    await office.queue.sweep()
    assert (await office.row(order))["state"] == "unknown"
    await office.queue.end(send, Verdict("queued", wait=0))
    assert (await office.row(order))["state"] == "unknown"
    await office.queue.end(send, Verdict("accepted", wamid="wamid.late", http_status=200))
    row = await office.row(order)
    assert (row["state"], row["wamid"]) == ("accepted", "wamid.late")
    assert [(o.status, o.wamid) for o in await office.outcomes()] == [("unknown", None), ("accepted", "wamid.late")]


async def test_a_pair_is_not_written_to_faster_than_whatsapp_allows_and_no_attempt_is_counted(office: Office) -> None:
    sent = [queued(to, text=str(n)) for n, to in enumerate((BERND, ANNA, ANNA))]
    for order in sent:
        await office.handle(order)
    async with office.sending(pacing=Pacing(number=Rate(0.001, 1000), pair=Rate(3600, 1))):
        await office.settled(*sent[:-1])

        async def put_off() -> bool:
            return (await office.row(sent[-1]))["wait"] > 1000

        await until(put_off, "the last one is put off")
    row = await office.row(sent[-1])
    assert (row["state"], row["attempts"]) == ("queued", 0)


@pytest.mark.promise("P3")
async def test_a_number_whose_pace_is_reached_rests_without_a_write_and_its_neighbour_goes_on(office: Office) -> None:
    await office.attach(SECOND, "prj_b", "EAAother")
    first, waiting = queued(ANNA), [queued(f"49{n}") for n in range(20)]
    async with office.sending(pacing=Pacing(number=Rate(3600, 1), pair=Rate(0.001, 1000))):
        await office.handle(first)
        await office.settled(first)
        for order in waiting:
            await office.handle(order)
        before = await office.pool.fetch("SELECT message_id, next_at FROM sends WHERE state = 'queued' ORDER BY seq")
        neighbour = queued(ANNA, number=SECOND)
        await office.handle(neighbour, "prj_b")
        await office.settled(neighbour)
    assert await office.pool.fetch("SELECT message_id, next_at FROM sends WHERE state = 'queued' ORDER BY seq") == before
    assert len(before) == 20


async def backlog(office: Office, count: int, *, number: str = NUMBER, project: str = PROJECT) -> None:
    """Messages to as many people, due for an hour."""
    await office.pool.execute(
        "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, next_at, deadline)"
        " SELECT gen_random_uuid(), $1, $2, '49' || n, false, $3, 'queued', now() - interval '1 hour', now() + interval '1 day'"
        " FROM generate_series(1, $4::int) AS n",
        project,
        number,
        {"type": "text", "text": "many"},
        count,
    )
    await office.pool.execute("ANALYZE sends")


@pytest.mark.promise("P3")
async def test_a_neighbours_message_is_among_the_first_whatever_anothers_backlog(office: Office) -> None:
    await office.attach(SECOND, "prj_b", "EAAother")
    await backlog(office, 10_000)
    mine = queued(ANNA, number=SECOND)
    await office.handle(mine, "prj_b")
    found = await office.queue.candidates(10, [])
    assert mine.message_id in {s.message_id for s in found[:2]}
    assert len(found) == 10, "the others go to who has more"
    busy = [f"{NUMBER} x{n}" for n in range(SHARE)]
    assert [s.message_id for s in await office.queue.candidates(10, busy)] == [mine.message_id], "its share is under way"
    assert [s.message_id for s in await office.queue.candidates(10, [], [NUMBER])] == [mine.message_id], "it rests"
    assert await office.queue.next_due([*busy, f"{SECOND} {ANNA}"]) is None
    assert len(await office.queue.candidates(200, [])) == SHARE + 1


@pytest.mark.promise("P3")
async def test_looking_for_heads_reads_a_share_of_each_number_and_not_its_backlog(office: Office) -> None:
    await backlog(office, 10_000)
    async with office.pool.acquire() as connection:
        plan = await connection.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {_CANDIDATES}", [], [], SHARE, 10)
    parts = [json.loads(plan)[0]["Plan"]]
    for part in parts:
        parts += part.get("Plans", [])
    read = {p["Relation Name"]: p["Actual Rows"] * p["Actual Loops"] for p in parts if p.get("Relation Name") == "sends"}
    assert all(rows <= 2 * SHARE for rows in read.values())
    assert not [p for p in parts if p["Node Type"] == "Seq Scan" and p["Relation Name"] == "sends"]


async def test_a_number_that_is_parked_keeps_its_messages_and_goes_on_when_the_time_is_over_or_it_is_connected_again(
    office: Office,
) -> None:
    first, second = queued(ANNA), queued(BERND)
    for order in (first, second):
        await office.handle(order)
    (send, _) = await office.queue.candidates(10, [])
    await office.queue.claim(send)
    await office.queue.end(send, Verdict("queued", wait=0, park=600, code=131042, title="unpaid"))
    assert await office.queue.candidates(10, []) == []
    due = await office.queue.next_due([])
    assert due is not None
    assert 590 < due <= 600
    await office.pool.execute("UPDATE numbers SET parked_until = now()")
    assert len(await office.queue.candidates(10, [])) == 2
    await office.pool.execute("UPDATE numbers SET parked_until = now() + interval '1 hour'")
    await office.attach()
    assert len(await office.queue.candidates(10, [])) == 2


async def test_outcomes_are_published_in_order_once_each_and_again_after_a_cut(office: Office) -> None:
    office.holding = True  # a status that is quicker than the answer leaves nothing to tell
    orders = [queued(f"49{n}") for n in range(3)]
    for order in orders:
        await office.handle(order)
    async with office.sending():
        await office.settled(*orders)
    rows = await office.queue.outcomes(10)
    assert [o.status for _, _, o in rows] == ["accepted"] * 3
    office.bus.broker.down = True
    with pytest.raises(BusUnavailable):
        await office.tell()
    assert await office.queue.outcomes(10) == rows
    office.bus.broker.down = False
    office.arm("connector.after_publish")
    with pytest.raises(FailpointError):
        await office.tell()
    assert await office.queue.outcomes(10) == rows
    await office.tell()
    assert await office.queue.outcomes(10) == []
    told = {e.id: e.projectid for e in office.bus.broker.events(RECEIPTS)}
    assert told == {key: PROJECT for key, _, _ in rows}
