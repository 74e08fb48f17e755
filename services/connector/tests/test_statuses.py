"""Meta's statuses: they tell what nobody knew, in any order, any number of times, and nobody else can."""

from __future__ import annotations

from typing import Any
from uuid import uuid4

import pytest
from loquat_common.bus.port import Dead, Done
from loquat_events.conversations import MessageChanged, MessageOutcome, MessageQueued, StatusReceived

from services.connector.tests.office import NUMBER, Office, now, queued
from tests.system.world import until


def status(message: MessageQueued, word: str = "delivered", **more: Any) -> StatusReceived:
    given = {"number_id": NUMBER, "message_id": message.message_id, "wamid": f"wamid.{message.message_id}", "status": word, "at": now()}
    return StatusReceived.model_validate({**given, "raw": "{}", **more})


async def unknown(office: Office) -> MessageQueued:
    """A message whose fate nobody knows."""
    office.holding = True
    await office.fault("broken_answer")
    order = queued()
    await office.handle(order)
    async with office.sending():
        await office.reached(order, "unknown")
    return order


@pytest.mark.promise("P2")
async def test_a_later_status_tells_what_became_of_a_message_that_nobody_knew(office: Office) -> None:
    for word in ("sent", "delivered", "read", "failed"):
        order = await unknown(office)
        assert await office.handle(status(order, word)) == Done()
        row = await office.row(order)
        assert (row["state"], row["wamid"]) == ("accepted", f"wamid.{order.message_id}")
        assert [a["outcome"] for a in await office.attempts(order)] == ["unknown"]
    assert len(office.calls()) == 4


@pytest.mark.promise("P2")
async def test_a_status_that_comes_before_the_answer_is_believed_and_the_answer_is_noted_only(office: Office) -> None:
    await office.fault("timeout_after_accept")
    order = queued()
    await office.handle(order)
    async with office.sending():
        row = await office.reached(order, "accepted")
        await office.hurry()
    assert row["wamid"] == office.statuses[0].wamid
    assert row["lease_until"] is None
    assert [a["outcome"] for a in await office.attempts(order)] == ["unknown"]
    assert await office.outcomes() == [], "nobody is told that it is unknown"
    assert office.phone() == ["hi"]


@pytest.mark.promise("P2")
async def test_statuses_that_come_twice_and_in_a_wrong_order_change_nothing_more(office: Office) -> None:
    await office.fault("duplicate", times=4)
    await office.fault("reorder", times=2)
    orders = [queued(text=str(n)) for n in range(4)]
    for order in orders:
        await office.handle(order)
    async with office.sending():
        await office.settled(*orders)

        async def all_came() -> bool:
            return {s.message_id for s in office.statuses} == {o.message_id for o in orders} and len(office.statuses) > 8

        await until(all_came, "Meta told the statuses, some of them more than once")
    before = await office.pool.fetch("SELECT * FROM sends ORDER BY seq")
    for told in reversed(office.statuses):
        await office.handle(told)
    assert await office.pool.fetch("SELECT * FROM sends ORDER BY seq") == before
    assert office.phone() == ["0", "1", "2", "3"]
    assert len(office.calls()) == 4


@pytest.mark.promise("P2")
async def test_a_message_that_meta_has_is_not_tried_again_whatever_meta_answered(office: Office) -> None:
    await office.fault("500")
    order = queued()
    await office.handle(order)
    async with office.sending():
        await office.reached(order, "queued")
        await office.handle(status(order, "sent"))
        await office.hurry()
        after = queued(text="after")
        await office.handle(after)
        await office.settled(order, after)
    assert len(office.calls()) == 2
    assert office.phone() == ["after"]


async def test_a_message_that_was_never_tried_is_not_held_back_by_a_status(office: Office) -> None:
    order = queued()
    await office.handle(order)
    await office.handle(status(order))
    async with office.sending():
        await office.settled(order)
    assert office.phone() == ["hi"]


@pytest.mark.promise("P4")
async def test_a_status_of_another_number_says_nothing_about_a_message(office: Office) -> None:
    """What is sent along with a message is its sender's choice, also the id of a message of somebody else's."""
    order = await unknown(office)
    await office.handle(status(order, number_id="666"), "prj_b")
    assert (await office.row(order))["state"] == "unknown"
    await office.handle(status(order))
    assert (await office.row(order))["state"] == "accepted"


@pytest.mark.promise("P6")
async def test_statuses_nobody_knows_and_statuses_of_no_message_of_ours_are_taken(office: Office) -> None:
    order = await unknown(office)
    for strange in (status(order, message_id=None), status(queued()), status(order, "pondered")):
        assert await office.handle(strange) == Done()
    assert (await office.row(order))["state"] == "accepted", "even an unknown word is Meta's, about a message it has"


async def test_our_own_word_comes_by_and_another_ones_is_a_dead_letter(office: Office) -> None:
    outcome = MessageOutcome(message_id=uuid4(), status="accepted", attempt=1, at=now())
    assert await office.handle(outcome, source="/connector") == Done()
    changed = MessageChanged(message_id=uuid4(), direction="in", status="received", at=now())
    assert isinstance(await office.handle(changed), Dead)
