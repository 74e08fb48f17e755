"""record_outbound and apply_receipts: any order, any number of times."""

from __future__ import annotations

import asyncio
import random
from typing import Any
from uuid import uuid4

import pytest

from tests.system.world import until
from tests.tenants import WAITING, Desk, Project, message

pytestmark = pytest.mark.promise("P2")

RANKS = ["queued", "sending", "unknown", "accepted", "sent", "expired", "failed", "delivered", "read", "played"]


def receipt(key: str, status: str, second: int = 0, **more: Any) -> dict[str, Any]:
    return {"key": key, "status": status, "at": f"2026-01-01T00:00:{second:02}+00:00", **more}


async def sent(desk: Desk) -> str:
    """The id of a message that was queued just now."""
    return (await desk.run(message("user_id:u1"), replies=[{"type": "text", "text": "x"}]))[0]["message_id"]


async def row(project: Project, key: str) -> dict[str, Any]:
    found = await (await project.root()).fetchrow(
        "SELECT * FROM public.messages WHERE id::text = $1 OR wamid = $1 AND direction = 'out'", key
    )
    assert found is not None
    return dict(found)


async def test_statuses_in_any_order_end_at_the_highest_with_the_first_time_of_each(desk: Desk, project: Project) -> None:
    key = await sent(desk)
    for status, second in (("read", 9), ("accepted", 3), ("delivered", 7), ("delivered", 6), ("sent", 4), ("sending", 2)):
        await desk.receipts(receipt(key, status, second))
    found = await row(project, key)
    assert found["status"] == "read"
    times = {s: t[17:19] for s, t in found["transitions"].items() if s != "queued"}
    assert times == {"read": "09", "accepted": "03", "delivered": "06", "sent": "04", "sending": "02"}


@pytest.mark.parametrize(
    ("before", "after", "end"),
    [
        ("sent", "failed", "failed"),
        ("failed", "sent", "failed"),
        ("failed", "delivered", "delivered"),
        ("delivered", "failed", "delivered"),
        ("sent", "expired", "expired"),
        ("expired", "delivered", "delivered"),
        ("unknown", "accepted", "accepted"),
        ("accepted", "unknown", "accepted"),
        ("sending", "unknown", "unknown"),
    ],
)
async def test_of_two_statuses_the_same_one_wins_whichever_comes_first(
    desk: Desk, project: Project, before: str, after: str, end: str
) -> None:
    for order in ((before, after), (after, before)):
        key = await sent(desk)
        for status in order:
            await desk.receipts(receipt(key, status))
        assert (await row(project, key))["status"] == end


async def test_details_of_receipts_are_kept(desk: Desk, project: Project) -> None:
    key = await sent(desk)
    await desk.receipts(receipt(key, "accepted", wamid="wamid.x"))
    await desk.receipts(receipt("wamid.x", "delivered", pricing="service", billable=False))
    await desk.receipts(receipt("wamid.x", "failed", error_code=131026, error_title="Message undeliverable"))
    found = await row(project, key)
    assert (found["wamid"], found["pricing"], found["billable"]) == ("wamid.x", "service", False)
    assert (found["error_code"], found["error_title"], found["status"]) == (131026, "Message undeliverable", "delivered")


@pytest.mark.promise("P6")
async def test_a_status_that_nobody_knows_yet_is_kept_and_raises_nothing(desk: Desk, project: Project) -> None:
    key = await sent(desk)
    await desk.receipts(receipt(key, "sent"), receipt(key, "pondered"))
    found = await row(project, key)
    assert found["status"] == "sent"
    assert "pondered" in found["transitions"]


async def test_a_receipt_before_its_message_waits_and_is_applied_with_it(desk: Desk, project: Project) -> None:
    begun = await desk.begin(message("user_id:u1"))
    key = str(uuid4())
    await desk.receipts(receipt("wamid.echo", "delivered"), receipt(key, "sent"), receipt("wamid.echo", "delivered"))
    root = await project.root()
    assert await root.fetchval("SELECT count(*) FROM loquat.receipts") == 2
    echo = {
        "id": key,
        "conversation_id": str(begun["conversation_id"]),
        "type": "text",
        "text": "by phone",
        "wamid": "wamid.echo",
        "sender": "person",
    }
    assert await desk.outbound(echo) == 1
    assert await desk.outbound(echo, echo) == 0
    assert (await row(project, key))["status"] == "delivered"
    assert await root.fetchval("SELECT count(*) FROM loquat.receipts") == 0


async def test_a_receipt_by_wamid_waits_until_the_connector_has_told_the_wamid(desk: Desk, project: Project) -> None:
    key = await sent(desk)
    await desk.receipts(receipt("wamid.early", "read"))
    assert (await row(project, key))["status"] == "queued"
    await desk.receipts(receipt(key, "accepted", wamid="wamid.early"))
    assert (await row(project, key))["status"] == "read"
    assert await (await project.root()).fetchval("SELECT count(*) FROM loquat.receipts") == 0


async def test_receipts_never_touch_what_a_contact_wrote(desk: Desk, project: Project) -> None:
    event = message("user_id:u1")
    await desk.record(event)
    await desk.receipts(receipt(event["id"], "read"), receipt(event["message"]["wamid"], "failed"))
    assert await (await project.root()).fetchval("SELECT status FROM public.messages") == "received"


async def test_one_wamid_told_for_two_messages_does_not_stop_the_batch(desk: Desk, project: Project) -> None:
    one, two = await sent(desk), await sent(desk)
    await desk.receipts(receipt(one, "accepted", wamid="wamid.twice"))
    await desk.receipts(receipt(two, "accepted", wamid="wamid.twice"))
    assert [(await row(project, k))["status"] for k in (one, two)] == ["accepted", "accepted"]


@pytest.mark.parametrize("first", ["message", "receipt", "wamid"])
async def test_of_a_receipt_and_its_message_at_the_same_time_the_second_sees_the_first(desk: Desk, project: Project, first: str) -> None:
    """The first is not committed when the second comes: the second waits for it, else neither would see the other."""
    begun = await desk.begin(message("user_id:u1"))
    echo = {"id": str(uuid4()), "conversation_id": str(begun["conversation_id"]), "type": "text", "wamid": "wamid.x", "sender": "person"}
    key, read = await sent(desk), receipt("wamid.x", "read")
    other, root = await Desk.of(project), await project.root()
    moves = {
        "message": (lambda: desk.outbound(echo), lambda: other.receipts(read)),
        "receipt": (lambda: desk.receipts(read), lambda: other.outbound(echo)),
        "wamid": (lambda: desk.receipts(receipt(key, "accepted", wamid="wamid.x")), lambda: other.receipts(read)),
    }
    begin, follow = moves[first]
    await desk.log.execute("BEGIN")
    await begin()
    second = asyncio.create_task(follow())

    async def waits() -> bool:
        return second.done() or await root.fetchval(WAITING)

    await until(waits, "the second waits for the first")
    await desk.log.execute("COMMIT")
    await second
    assert (await row(project, "wamid.x"))["status"] == "read"
    assert await root.fetchval("SELECT count(*) FROM loquat.receipts") == 0


async def test_receipts_and_messages_from_four_connections_in_random_order_lose_nothing(desk: Desk, project: Project) -> None:
    dice = random.Random(11)  # noqa: S311  (a die, no secret)
    conversation = str((await desk.begin(message("user_id:u1")))["conversation_id"])
    moves: list[tuple[str, dict[str, Any]]] = []
    expected: dict[str, str] = {}
    for n in range(120):
        statuses = dice.sample(RANKS[1:], dice.randint(1, 6))
        wamid, key = f"wamid.{n}", str(uuid4())
        expected[wamid] = max(statuses, key=RANKS.index)
        moves.append(("outbound", {"id": key, "conversation_id": conversation, "type": "text", "wamid": wamid, "sender": "person"}))
        moves += [("receipts", receipt(dice.choice((wamid, key)), s, n % 60)) for s in statuses]
    moves *= 2
    dice.shuffle(moves)

    async def play(part: list[tuple[str, dict[str, Any]]]) -> None:
        mine = await Desk.of(project)
        while part:
            function = part[0][0]
            batch = [body for name, body in part[:12] if name == function]
            part = [m for m in part[:12] if m[0] != function] + part[12:]
            await (mine.outbound(*batch) if function == "outbound" else mine.receipts(*batch))

    await asyncio.gather(*(play(moves[n::4]) for n in range(4)))
    root = await project.root()
    found = {r["wamid"]: r["status"] for r in await root.fetch("SELECT wamid, status FROM public.messages WHERE direction = 'out'")}
    assert found == expected
    assert await root.fetchval("SELECT count(*) FROM loquat.receipts") == 0
