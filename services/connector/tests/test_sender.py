"""Senders against Meta's faults and their own deaths: each message at most once, each attempt on record."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

import asyncpg
import pytest
from loquat_common.crypto import KeyRing
from loquat_common.sql import Ident, compose
from loquat_connector.adapters.queue import Send, SendQueue
from loquat_connector.domain.verdict import Verdict, answered
from loquat_embedded.ports import free_port
from structlog.testing import capture_logs

from services.connector.tests.office import LIMIT, NUMBER, PROJECT, TOKEN, Office, queued
from tests.system.world import until

BERND, SECOND = "4915187654321", "106540352242999"


@pytest.mark.promise("P3")
async def test_a_contacts_messages_stay_in_order_when_the_first_must_be_tried_again_and_others_need_not_wait(office: Office) -> None:
    await office.fault("429")
    mine, others = [queued(text=f"{n}") for n in range(4)], [queued(BERND, text=f"{n}") for n in range(2)]
    async with office.sending():
        await office.handle(mine[0])
        await office.reached(mine[0], "queued")
        for order in (*mine[1:], *others):
            await office.handle(order)
        await office.settled(*others)
        assert office.phone() == []
        await office.hurry()
        await office.settled(*mine)
    assert office.phone() == ["0", "1", "2", "3"]


@pytest.mark.promise("P2")
async def test_meta_says_slower_and_the_message_waits_and_goes_again(office: Office) -> None:
    for kind, code, wait in (("429", 130429, 1), ("131056", 131056, 1), ("80007", 80007, 60), ("131057", 131057, 60)):
        await office.fault(kind)
        order = queued(text=kind)
        await office.handle(order)
        async with office.sending():
            row = await office.reached(order, "queued")
            assert wait - 1 < row["wait"] <= wait
            assert kind not in office.phone()
            await office.hurry()
            await office.reached(order, "accepted", attempts=2)
        first, second = await office.attempts(order)
        assert (first["n"], first["outcome"], first["code"], first["fbtrace_id"]) == (1, "queued", code, office.calls()[-2]["trace"])
        assert first["title"]
        assert (second["n"], second["outcome"], second["http_status"], second["code"]) == (2, "accepted", 200, None)
    assert office.phone() == ["429", "131056", "80007", "131057"]


async def test_an_error_of_metas_own_is_tried_four_times_and_then_the_message_has_failed(office: Office) -> None:
    await office.fault("500", times=4)
    order = queued()
    await office.handle(order)
    async with office.sending():
        for n in range(1, 4):
            await office.reached(order, "queued", attempts=n)
            await office.hurry()
        await office.reached(order, "failed", attempts=4)
    assert [(a["n"], a["http_status"], a["code"]) for a in await office.attempts(order)] == [(n, 500, 131000) for n in range(1, 5)]
    assert [(o.status, o.error_code) for o in await office.outcomes()] == [("failed", 131000)]
    assert office.phone() == []


async def test_what_meta_refuses_for_good_fails_at_once_and_the_next_message_goes(office: Office) -> None:
    codes = ["131047", "131026", "100"]
    refused, after = [queued(text=code) for code in codes], queued(text="after")
    for code, order in zip(codes, refused, strict=True):
        await office.fault(code)
        await office.handle(order)
    await office.handle(after)
    async with office.sending():
        await office.settled(after)
    assert [(await office.row(r))["state"] for r in refused] == ["failed"] * 3
    assert sorted([a["code"] for r in refused for a in await office.attempts(r)]) == [100, 131026, 131047]
    assert office.phone() == ["after"]


@pytest.mark.promise("P2")
@pytest.mark.parametrize("fault", ["timeout_after_accept", "broken_answer"])
async def test_what_nobody_knows_is_unknown_and_never_sent_again_and_the_next_message_goes(office: Office, fault: str) -> None:
    office.holding = True
    await office.fault(fault)
    lost, after = queued(text="lost"), queued(text="after")
    for order in (lost, after):
        await office.handle(order)
    async with office.sending():
        await office.settled(after)
        await office.hurry()
        await office.lapse()
        last = queued(text="last")
        await office.handle(last)
        await office.settled(last)
    assert (await office.row(lost))["state"] == "unknown"
    assert [a["outcome"] for a in await office.attempts(lost)] == ["unknown"]
    assert [o.status for o in await office.outcomes() if o.message_id == lost.message_id] == ["unknown"]
    assert office.phone() == ["lost", "after", "last"]


@pytest.mark.promise("P2")
async def test_an_answer_in_pieces_is_read_to_its_end(office: Office) -> None:
    office.holding = True
    await office.fault("131056")
    await office.fault("in_pieces", times=2)
    order = queued()
    await office.handle(order)
    async with office.sending():
        await office.reached(order, "queued")
        await office.hurry()
        row = await office.reached(order, "accepted", attempts=2)
    assert row["wamid"] == office.statuses[0].wamid
    assert [a["code"] for a in await office.attempts(order)] == [131056, None]


async def test_a_meta_that_cannot_be_reached_was_sent_nothing_and_gets_it_later(office: Office) -> None:
    order = queued()
    await office.handle(order)
    async with office.sending(url=f"http://127.0.0.1:{free_port()}"):
        row = await office.reached(order, "queued")
        assert 0 < row["wait"] <= 1
    await office.hurry()
    async with office.sending():
        await office.reached(order, "accepted", attempts=2)
    assert office.phone() == ["hi"]
    assert [a["http_status"] for a in await office.attempts(order)] == [None, 200]


@pytest.mark.promise("P2")
@pytest.mark.parametrize(
    ("point", "state", "shown"),
    [
        ("connector.after_sending", "unknown", []),
        ("connector.after_accept", "unknown", ["hi"]),
        ("connector.after_store", "accepted", ["hi"]),
    ],
)
async def test_a_sender_that_dies_leaves_each_message_sent_at_most_once(office: Office, point: str, state: str, shown: list[str]) -> None:
    office.holding = True
    office.arm(point)
    order, after = queued(), queued(text="after")
    await office.handle(order)
    async with office.sending():
        await until(_true(lambda: office.fired(point)), f"{point} is passed")
    await office.lapse()
    await office.handle(after)
    async with office.sending():
        await office.settled(after)
    assert (await office.row(order))["state"] == state
    assert [a["n"] for a in await office.attempts(order)] == [1]
    assert office.phone() == [*shown, "after"]
    assert [o.status for o in await office.outcomes() if o.message_id == order.message_id] == [state]


@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
async def test_two_senders_on_one_queue_send_each_message_once_and_in_order(office: Office) -> None:
    lanes = {f"49{n}": [queued(f"49{n}", text=str(i)) for i in range(8)] for n in range(10)}
    orders = [lane[i] for i in range(8) for lane in lanes.values()]
    async with office.sending(), office.sending(queue=SendQueue(office.pool)):
        for order in orders:
            await office.handle(order)
        await office.settled(*orders)
    for to in lanes:
        assert office.phone(to) == [str(i) for i in range(8)]
    assert len(office.calls()) == len(orders)
    assert await office.pool.fetchval("SELECT count(*) FROM attempts") == len(orders)


async def test_a_token_that_does_not_work_parks_its_number_alone_until_it_is_connected_again(office: Office) -> None:
    await office.attach(SECOND)
    await office.register(NUMBER, "EAAanother")
    parked, waiting, other = queued(), queued(text="after"), queued(number=SECOND, text="other")
    with capture_logs() as logs:
        async with office.sending():
            for order in (parked, waiting, other):
                await office.handle(order)
            await office.settled(other)
            row = await office.reached(parked, "queued")
            assert row["wait"] <= 5
            await office.hurry()
            await office.handle(another := queued(number=SECOND, text="another"))
            await office.settled(another)
            numbers = {n.phone_number_id: n.state for n in await office.numbers.of_project(PROJECT)}
            assert numbers == {NUMBER: "needs_reconnect", SECOND: "attached"}
            assert [c["status"] for c in office.calls() if c["phone_number_id"] == NUMBER] == [401]
            assert (await office.row(waiting))["attempts"] == 0
            await office.attach(token="EAAanother")
            await office.settled(parked, waiting)
    assert office.phone() == ["hi", "after"]
    assert [log["number"] for log in logs if log["event"] == "number.needs_reconnect"] == [NUMBER]
    assert TOKEN not in repr(logs)


async def test_an_answer_to_the_token_before_does_not_park_a_number_that_was_connected_again(office: Office) -> None:
    order = queued()
    await office.handle(order)
    (send,) = await office.queue.candidates(1, [])
    await office.queue.claim(send)
    await office.attach(token="EAAnew")
    await office.queue.end(send, answered(401, {"error": {"code": 190}}, 1))
    assert [n.state for n in await office.numbers.of_project(PROJECT)] == ["attached"]
    await office.hurry()
    async with office.sending():
        await office.settled(order)


@pytest.mark.promise("P2")
async def test_a_token_that_cannot_be_opened_asks_for_the_number_again_and_loses_no_message(office: Office) -> None:
    order = queued()
    await office.handle(order)
    async with office.sending(ring=KeyRing.from_json(KeyRing.new())):
        await office.reached(order, "queued")
    assert [n.state for n in await office.numbers.of_project(PROJECT)] == ["needs_reconnect"]
    assert office.calls() == []
    await office.attach()
    await office.hurry()
    async with office.sending():
        await office.settled(order)


class Counted(SendQueue):
    """Counts how often somebody looks."""

    looks = 0

    async def candidates(self, most: int, busy: Sequence[str], resting: Sequence[str] = ()) -> list[Send]:
        self.looks += 1
        return await super().candidates(most, busy, resting)


async def test_while_nothing_can_go_nobody_looks_all_the_time(office: Office) -> None:
    """For the length of a call that hangs: one message waits behind it, one for a number that is nobody's."""
    await office.fault("timeout_after_accept")
    stuck, behind, nobodys = queued(text="stuck"), queued(text="behind"), queued(number=SECOND)
    counted = Counted(office.pool)
    async with office.sending(queue=counted):
        for order in (stuck, behind, nobodys):
            await office.handle(order)
        await office.settled(stuck, behind)
    assert counted.looks < LIMIT / 0.05
    assert (await office.row(nobodys))["state"] == "queued"


@pytest.mark.promise("P2")
async def test_a_sender_that_drains_finishes_what_it_began_and_begins_nothing(office: Office) -> None:
    await office.fault("in_pieces")
    first, second = queued(), queued(BERND)
    async with office.sending() as sender:
        await office.handle(first)
        await until(_true(lambda: bool(office.calls())), "Meta was asked")
        drained = asyncio.create_task(sender.drain(5))
        await office.handle(second)
        assert await drained
        await office.reached(first, "accepted")
        sender.wake()
    assert (await office.row(second))["attempts"] == 0


async def test_a_sender_waits_for_a_control_database_that_is_away(office: Office) -> None:
    order, root, name = queued(), await office.platform.cluster.connect(), Ident(office.platform.database)
    with capture_logs() as logs:
        async with office.sending() as sender:
            await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name))
            await root.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", office.platform.database)
            await until(_true(lambda: office.pool.get_size() == 0), "all connections are cut")
            sender.wake()
            await until(_true(lambda: "sender.database_away" in {log["event"] for log in logs}), "the sender notices")
            await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name))
            await root.close()
            await office.handle(order)
            await office.settled(order)
    assert office.phone() == ["hi"]


def _true(look: Callable[[], bool]) -> Callable[[], Awaitable[bool]]:
    async def asked() -> bool:
        return look()

    return asked


class Blinking(SendQueue):
    """Its database is away the first times that an end is to be written."""

    away = 3

    async def end(self, send: Send, verdict: Verdict) -> None:
        if self.away > 0:
            self.away -= 1
            raise asyncpg.ConnectionDoesNotExistError("connection was closed in the middle of operation")
        await super().end(send, verdict)


@pytest.mark.promise("P2")
async def test_what_meta_answered_is_stored_though_the_database_was_away_for_a_moment(office: Office) -> None:
    office.holding = True
    order = queued()
    await office.handle(order)
    async with office.sending(queue=Blinking(office.pool)):
        row = await office.reached(order, "accepted")
    assert row["wamid"] == office.statuses[0].wamid
    assert [o.status for o in await office.outcomes()] == ["accepted"]


@pytest.mark.promise("P2")
async def test_a_verdict_that_cannot_be_stored_within_the_lease_is_given_up(office: Office) -> None:
    office.holding = True
    queue = Blinking(office.pool, lease=0.3)
    queue.away = 1000
    order = queued()
    await office.handle(order)
    async with office.sending(queue=queue) as sender:
        await office.reached(order, "unknown")

        async def free() -> bool:
            return not sender._busy

        await until(free, "its place is free")
    assert queue.away > 990
