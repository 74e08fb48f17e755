"""People who were erased: what is still on its way to them is neither sent nor kept, and it is told."""

from __future__ import annotations

import asyncio
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat_common.bus.port import Done, Received
from loquat_common.failpoints import FailpointError
from loquat_connector.adapters.people import _TO_ADDRESSES, _TO_CONTACTS, ForgottenSends
from loquat_connector.domain.verdict import Verdict
from loquat_connector.handlers.people import People
from loquat_events.contacts import ContactErased
from loquat_events.conversations import MessageQueued
from loquat_events.envelope import Event, Payload

from services.connector.tests.office import ANNA, NUMBER, PROJECT, Office, now, queued
from tests.system.world import until

BERND = "4915187654321"
WAITING = "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND relation = 'connector.erased_contacts'::regclass)"


async def erase(office: Office, *people: UUID, project: str = PROJECT) -> None:
    data = ContactErased(project_id=project, order_id=uuid4(), contact_id=people[0], people=people, epoch=1, actor="k", at=now())
    event = Event[Payload].of(data, id=uuid4(), source="/conversation-log", time=now(), project=project, lane="contacts")
    handler = People(ForgottenSends(office.pool), office.failpoints(), lambda: None)
    assert await handler.handle(Received(event, "projects.events.v1", 0, 0)) == Done()


async def kept(office: Office, message: MessageQueued) -> tuple[Any, ...]:
    row = await office.row(message)
    return row["state"], row["recipient"], row["message"], row["wamid"]


async def told(office: Office) -> list[tuple[UUID, str]]:
    return [(o.message_id, o.status) for o in await office.outcomes()]


@pytest.mark.promise("P7")
async def test_a_message_that_comes_after_the_erase_is_not_sent_not_kept_and_told_once(office: Office) -> None:
    late, other = queued(), queued(BERND)
    await erase(office, uuid4(), late.contact_id)
    await erase(office, other.contact_id, project="prj_b")
    for order in (late, late, other):
        assert await office.handle(order) == Done()
    async with office.sending():
        await office.settled(other)
    assert await kept(office, late) == ("failed", "", {}, None)
    assert (office.phone(), office.phone(BERND)) == ([], ["hi"])
    assert [t for t in await told(office) if t[0] == late.message_id] == [(late.message_id, "failed")]


@pytest.mark.promise("P7")
async def test_messages_that_wait_and_that_ended_lose_text_and_recipient_also_when_it_is_cut_off_and_comes_again(office: Office) -> None:
    sent = queued(text="first")
    await office.handle(sent)
    async with office.sending():
        await office.settled(sent)
    waits = queued(text="second").model_copy(update={"contact_id": sent.contact_id})
    await office.handle(waits)
    office.arm("connector.people.barred")
    with pytest.raises(FailpointError):
        await erase(office, sent.contact_id)
    await office.handle(queued(text="third").model_copy(update={"contact_id": sent.contact_id}))
    await erase(office, sent.contact_id)
    assert await kept(office, sent) == ("accepted", "erased", {}, None)
    assert await kept(office, waits) == ("expired", "erased", {}, None)
    assert (waits.message_id, "expired") in await told(office)
    assert await office.pool.fetchval("SELECT count(*) FROM sends WHERE message <> '{}' OR state = 'queued'") == 0
    assert await office.pool.fetchval("SELECT count(*) FROM attempts WHERE num_nonnulls(title, details) > 0") == 0


@pytest.mark.parametrize(
    ("verdict", "state"),
    [
        (Verdict("accepted", wamid="wamid.4915112345678"), "accepted"),
        (Verdict("queued", wait=0, title="not to 4915112345678", details="4915112345678"), "failed"),
    ],
)
async def test_an_attempt_under_way_leaves_nothing_and_is_not_made_again(office: Office, verdict: Verdict, state: str) -> None:
    order = queued()
    await office.handle(order)
    (send,) = await office.queue.candidates(1, [])
    assert await office.queue.claim(send)
    await erase(office, order.contact_id)
    assert await kept(office, order) == ("sending", "erased", {}, None)
    await office.queue.end(send, verdict)
    assert await kept(office, order) == (state, "erased", {}, None)
    assert await told(office) == [(order.message_id, state)]
    assert ANNA not in str([o.model_dump() for o in await office.outcomes()] + [dict(a) for a in await office.attempts(order)])
    assert await office.queue.candidates(1, []) == []


async def test_a_message_that_is_being_taken_in_is_waited_for(office: Office) -> None:
    order = queued()
    async with office.pool.acquire() as other:
        await other.execute("BEGIN")
        await other.fetchval("SELECT count(*) FROM erased_contacts")  # as `put` does in its one statement
        await other.execute(
            "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, deadline, contact_id)"
            " VALUES ($1, $2, $3, $4, false, '{\"text\": \"hi\"}', 'queued', now() + interval '1 day', $5)",
            order.message_id,
            PROJECT,
            NUMBER,
            ANNA,
            order.contact_id,
        )
        erasing = asyncio.create_task(erase(office, order.contact_id))
        await until(lambda: office.pool.fetchval(WAITING), "the erase waits", 5)
        behind = asyncio.create_task(office.handle(queued().model_copy(update={"contact_id": order.contact_id})))
        await other.execute("COMMIT")
        await asyncio.gather(erasing, behind)
    assert await kept(office, order) == ("expired", "erased", {}, None)
    assert await office.pool.fetchval("SELECT count(*) FROM sends WHERE message <> '{}' OR state = 'queued'") == 0


async def test_who_is_forgotten_by_address_is_so_in_batches_and_what_waited_is_told(office: Office) -> None:
    orders = [queued() for _ in range(3)]
    for order in (*orders, neighbour := queued(BERND)):
        await office.handle(order)
    await ForgottenSends(office.pool, at_once=2).forget_addresses(PROJECT, [ANNA])
    assert {await kept_state(office, o) for o in orders} == {("expired", "erased")}
    assert await kept_state(office, neighbour) == ("queued", BERND)
    assert sorted(await told(office)) == sorted((o.message_id, "expired") for o in orders)


async def kept_state(office: Office, message: MessageQueued) -> tuple[str, str]:
    row = await office.row(message)
    return row["state"], row["recipient"]


async def test_people_are_found_by_an_index(office: Office) -> None:
    await office.pool.execute(
        "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, deadline, contact_id)"
        " SELECT gen_random_uuid(), $1, '1', n::text, false, '{}', 'accepted', now(), gen_random_uuid() FROM generate_series(1, 5000) AS n",
        PROJECT,
    )
    await office.pool.execute("ANALYZE sends")
    for query, whose, index in ((_TO_ADDRESSES, [ANNA], "sends_recipient"), (_TO_CONTACTS, [uuid4()], "sends_contact")):
        assert index in str(await office.pool.fetch("EXPLAIN " + query, PROJECT, whose, 1000))
