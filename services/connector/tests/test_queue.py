"""The send queue: each message once, each lane in its order, what cannot go now keeps nobody busy."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from loquat_common.bus.port import BusUnavailable, Done
from loquat_connector.domain.pacing import Pacing, Rate
from loquat_connector.domain.verdict import Verdict
from loquat_events.catalog import RECEIPTS
from loquat_events.conversations import Address

from services.connector.tests.office import ANNA, NUMBER, PROJECT, Office, queued
from tests.system.world import until

BERND = "4915187654321"


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


async def test_a_pair_and_a_number_are_not_written_to_faster_than_whatsapp_allows_and_no_attempt_is_counted(office: Office) -> None:
    async def waits(pacing: Pacing, *orders: str) -> list[tuple[str, int]]:
        sent = [queued(to, text=str(n)) for n, to in enumerate(orders)]
        for order in sent:
            await office.handle(order)
        async with office.sending(pacing=pacing):
            await office.settled(*sent[:-1])

            async def put_off() -> bool:
                return (await office.row(sent[-1]))["wait"] > 1000

            await until(put_off, "the last one is put off")
        rows = [await office.row(o) for o in sent]
        return [(r["state"], r["attempts"]) for r in rows]

    slow, quick = Rate(3600, 1), Rate(0.001, 1000)
    assert await waits(Pacing(number=quick, pair=slow), BERND, ANNA, ANNA) == [("accepted", 1), ("accepted", 1), ("queued", 0)]
    await office.pool.execute("DELETE FROM sends")
    assert await waits(Pacing(number=slow, pair=quick), ANNA, BERND) == [("accepted", 1), ("queued", 0)]


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
    await office.tell()
    assert await office.queue.outcomes(10) == []
    told = {e.id: e.projectid for e in office.bus.broker.events(RECEIPTS)}
    assert told == {key: PROJECT for key, _, _ in rows}
