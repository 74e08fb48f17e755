"""begin_run, record_result, commit_run, clear_outbox on a real project database."""

from __future__ import annotations

import asyncio
import hashlib
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.system.world import until
from tests.tenants import WAITING, Desk, Project, message, order

pytestmark = pytest.mark.promise("P2")

TEXT: dict[str, Any] = {"type": "text", "text": "hello"}


def reply_id(event: str, n: int) -> str:
    digest = bytearray(hashlib.sha256(UUID(event).bytes + n.to_bytes(4, "big")).digest()[:16])
    digest[6], digest[8] = digest[6] & 15 | 128, digest[8] & 63 | 128
    return str(UUID(bytes=bytes(digest)))


async def record_result(project: Project, event: dict[str, Any], version: int, result: object) -> None:
    """As the SDK does, in a transaction of the bot's own."""
    bot = await project.login("bot")
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), version, result)


async def test_a_run_moves_state_and_version_once_and_queues_its_replies_in_order(desk: Desk, project: Project) -> None:
    event = message("wa_id:491", "user_id:u1", "phone:+491")
    begun = await desk.begin(event)
    assert (begun["todo"], begun["state"], begun["version"]) == ("run", "unstructured", 0)
    result = {"state": "support", "replies": [TEXT, {"type": "buttons", "text": "?", "content": {"buttons": [{"id": "1", "title": "x"}]}}]}
    committed = await desk.commit(event, 0, result)
    assert committed["status"] == "committed"
    outbox = committed["outbox"]
    queued_at = [element.pop("queued_at") for element in outbox]
    assert all(queued_at)
    common = {
        "event_id": event["id"],
        "conversation_id": str(begun["conversation_id"]),
        "contact_id": str(begun["contact_id"]),
        "number_id": "1",
        "sender": "bot",
        "addresses": [{"kind": "user_id", "value": "u1"}, {"kind": "wa_id", "value": "491"}, {"kind": "phone", "value": "+491"}],
    }
    assert outbox == [
        {**common, "message_id": reply_id(event["id"], 1), "body": {**TEXT, "content": None}},
        {**common, "message_id": reply_id(event["id"], 2), "body": result["replies"][1]},
    ]
    root = await project.root()
    rows = await root.fetch("SELECT id::text, sender, status, text FROM public.messages WHERE direction = 'out' ORDER BY sent_at")
    assert [tuple(r) for r in rows] == [(reply_id(event["id"], n), "bot", "queued", t) for n, t in ((1, "hello"), (2, "?"))]
    assert [tuple(r) for r in await root.fetch("SELECT state, version FROM public.conversations")] == [("support", 1)]


async def test_a_redelivered_event_publishes_the_same_outbox_until_it_is_cleared(desk: Desk) -> None:
    event = message("user_id:u1")
    outbox = await desk.run(event, replies=[TEXT, TEXT])
    again = await desk.begin(event)
    assert (again["todo"], again["outbox"]) == ("done", outbox)
    assert tuple(await desk.commit(event, 0, {"replies": [TEXT]})) == ("done", outbox)
    await desk.runner.execute("SELECT loquat.clear_outbox($1)", [UUID(event["id"]), uuid4()])
    assert tuple(await desk.begin(event))[0::6] == ("done", None)
    assert tuple(await desk.commit(event)) == ("done", None)


async def test_a_result_recorded_in_the_bots_own_transaction_is_found_and_wins(desk: Desk, project: Project) -> None:
    event = message("user_id:u1")
    begun = await desk.begin(event)
    await record_result(project, event, begun["version"], {"state": "recorded", "replies": [TEXT]})
    assert (await desk.begin(event))["todo"] == "recorded"
    committed = await desk.commit(event, begun["version"], {"state": "another", "replies": []})
    assert (committed["status"], len(committed["outbox"])) == ("committed", 1)
    assert await (await project.root()).fetchval("SELECT state FROM public.conversations") == "recorded"


async def test_what_a_handler_wrote_and_its_result_become_true_together_or_not_at_all(desk: Desk, project: Project) -> None:
    event = message("user_id:u1")
    await (await project.login("editor")).execute("CREATE TABLE bookings (note text)")
    bot = await project.login("bot")
    for commit in (False, True):
        begun = await desk.begin(event)
        assert begun["todo"] == "run"
        await bot.execute("BEGIN")
        await bot.execute("INSERT INTO bookings VALUES ('once')")
        await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], {"replies": [TEXT]})
        await bot.execute("COMMIT" if commit else "ROLLBACK")
    assert (await desk.begin(event))["todo"] == "recorded"
    assert await bot.fetchval("SELECT count(*) FROM bookings") == 1


async def test_a_second_run_of_an_event_and_another_at_the_same_version_roll_back(desk: Desk, project: Project) -> None:
    """At any isolation level: the unique keys do not care about snapshots."""
    for isolation in ("READ COMMITTED", "REPEATABLE READ", "SERIALIZABLE"):
        person = f"user_id:{isolation}"
        event, other = message(person), message(person)
        begun = await desk.begin(event)
        await desk.begin(other)
        bots = [await project.login("bot") for _ in range(3)]
        for bot in bots:
            await bot.execute(f"BEGIN ISOLATION LEVEL {isolation}")
            await bot.fetchval("SELECT count(*) FROM public.messages")
        await bots[0].execute("SELECT loquat.record_result($1, $2, '{}')", UUID(event["id"]), begun["version"])
        await bots[0].execute("COMMIT")
        for bot, loser in ((bots[1], event), (bots[2], other)):
            with pytest.raises((asyncpg.UniqueViolationError, asyncpg.SerializationError)):
                await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(loser["id"]), begun["version"])
        blocked = await desk.begin(other)
        assert (blocked["todo"], blocked["blocked_by"]) == ("blocked", UUID(event["id"]))
        assert (await desk.commit({"id": str(blocked["blocked_by"])}))["status"] == "committed"
        assert tuple(await desk.begin(other))[0::4][:2] == ("run", begun["version"] + 1)
        for bot in bots:
            await bot.close(timeout=5)


async def test_of_two_lanes_of_one_contact_the_second_result_is_superseded_and_runs_again(desk: Desk) -> None:
    one, two = message("user_id:u1", "phone:+491"), message("phone:+491")
    first, second = await desk.begin(one), await desk.begin(two)
    assert first["version"] == second["version"]
    assert (await desk.commit(one, first["version"], {"state": "a"}))["status"] == "committed"
    assert tuple(await desk.commit(two, second["version"], {"state": "b"})) == ("superseded", None)
    again = await desk.begin(two)
    assert (again["todo"], again["state"], again["version"]) == ("run", "a", 1)
    assert (await desk.commit(two, 1, {"state": "b"}))["status"] == "committed"


@pytest.mark.parametrize("outcome", ["held", "expired", "discarded"])
async def test_an_event_that_may_not_be_answered_is_recorded_and_marked(desk: Desk, project: Project, outcome: str) -> None:
    event = message("user_id:u1")
    assert (await desk.begin(event, outcome))["todo"] == "held"
    assert tuple(await desk.begin(event))[0::6] == ("done", None)
    assert tuple(await desk.commit(event, 0, {"replies": [TEXT]})) == ("done", None)
    root = await project.root()
    assert await root.fetchval("SELECT outcome FROM loquat.events") == outcome
    assert [r["direction"] for r in await root.fetch("SELECT direction FROM public.messages")] == ["in"]


async def test_another_outcome_than_these_is_refused(desk: Desk) -> None:
    with pytest.raises(asyncpg.DataError, match="held, expired or discarded"):
        await desk.begin(message("user_id:u1"), "handled")


async def test_a_conversation_that_a_person_holds_is_not_answered_but_the_persons_order_is(desk: Desk, project: Project) -> None:
    await desk.run(message("user_id:u1"))
    await (await project.root()).execute("UPDATE public.conversations SET holder = 'user-7'")
    assert (await desk.begin(message("user_id:u1")))["todo"] == "held"
    assert (await desk.begin(order("user_id:u1")))["todo"] == "run"


async def test_a_persons_order_is_sent_in_that_persons_name(desk: Desk, project: Project) -> None:
    wish = order("phone:+491")
    assert [e["sender"] for e in await desk.run(wish, replies=[TEXT], ordered_by="user-7")] == ["person"]
    root = await project.root()
    rows = await root.fetch("SELECT id::text, direction, sender, sender_id FROM public.messages")
    assert [tuple(r) for r in rows] == [(reply_id(wish["id"], 1), "out", "person", "user-7")]


@pytest.mark.promise("P5")
async def test_a_bot_cannot_answer_a_persons_order(desk: Desk, project: Project) -> None:
    wish = order("phone:+491")
    begun = await desk.begin(wish)
    with pytest.raises(asyncpg.PostgresError, match="not open") as refused:
        await record_result(project, wish, begun["version"], {"replies": [TEXT], "ordered_by": "user-7"})
    assert refused.value.sqlstate == "LQ003"


async def test_a_frozen_bots_result_is_applied_though_its_event_was_marked_meanwhile(desk: Desk, project: Project) -> None:
    event, later = message("user_id:u1"), message("user_id:u1")
    begun = await desk.begin(event)
    bot = await project.login("bot")
    await bot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await bot.fetchval("SELECT count(*) FROM public.messages")
    assert (await desk.begin(event, "held"))["todo"] == "held"
    await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(event["id"]), begun["version"])
    await bot.execute("COMMIT")
    assert (await desk.begin(later))["todo"] == "blocked"
    assert (await desk.begin(event))["todo"] == "recorded"
    assert (await desk.commit(event))["status"] == "committed"
    assert (await desk.begin(later))["version"] == begun["version"] + 1


async def test_after_an_end_the_next_message_opens_a_conversation_in_the_initial_state(desk: Desk, project: Project) -> None:
    first = message("user_id:u1")
    await desk.run(first, state="support", end=True, replies=[TEXT])
    begun = await desk.begin(message("user_id:u1"))
    assert (begun["todo"], begun["state"], begun["version"]) == ("run", "unstructured", 0)
    root = await project.root()
    rows = await root.fetch("SELECT status, state, closed_at IS NULL AS open FROM public.conversations ORDER BY opened_at")
    assert [tuple(r) for r in rows] == [("closed", "support", False), ("open", "unstructured", True)]


async def test_messages_that_waited_while_their_conversation_ended_share_the_next_one(desk: Desk, project: Project) -> None:
    """conversation-log reads ahead: it put all three into the first conversation before the bot ended it."""
    events = [message("user_id:u1", text=t) for t in "abc"]
    await desk.record(*events)
    await desk.run(events[0], state="support", end=True, replies=[TEXT])
    for n, event in enumerate(events[1:]):
        begun = await desk.begin(event)
        assert (begun["todo"], begun["state"], begun["version"]) == ("run", "s1" if n else "unstructured", n)
        assert (await desk.commit(event, n, {"state": f"s{n + 1}"}))["status"] == "committed"
    root = await project.root()
    rows = await root.fetch(
        "SELECT string_agg(m.text, '' ORDER BY m.recorded_at, m.text) FROM public.messages AS m JOIN public.conversations AS c"
        " ON c.id = m.conversation_id WHERE direction = 'in' GROUP BY c.id, c.opened_at ORDER BY c.opened_at"
    )
    assert [r[0] for r in rows] == ["a", "bc"]
    assert await root.fetchval("SELECT count(DISTINCT conversation_id) FROM loquat.events") == 2


async def test_a_run_under_a_conversation_that_ended_meanwhile_is_superseded(desk: Desk, project: Project) -> None:
    one, two = message("user_id:u1"), message("user_id:u1")
    begun = await desk.begin(one)
    await desk.begin(two)
    await desk.commit(two, begun["version"], {"end": True})
    assert (await desk.commit(one, begun["version"], {"state": "late"}))["status"] == "superseded"
    again = await desk.begin(one)
    assert (again["todo"], again["version"]) == ("run", 0)
    assert again["conversation_id"] != begun["conversation_id"]
    assert (await desk.commit(one, 0, {"state": "right"}))["status"] == "committed"
    root = await project.root()
    assert await root.fetchval("SELECT state FROM public.conversations WHERE status = 'open'") == "right"


async def test_a_commit_that_waited_while_its_event_was_moved_begins_again(desk: Desk, project: Project) -> None:
    event, root = message("user_id:u1"), await project.root()
    begun = await desk.begin(event)
    await root.execute("BEGIN")
    await root.execute("UPDATE public.conversations SET status = 'closed'")
    late = asyncio.create_task(desk.commit(event, begun["version"], {"state": "late"}))
    watcher = await project.root()

    async def waits() -> bool:
        return await watcher.fetchval(WAITING)

    await until(waits, "the commit waits for the conversation")
    await root.execute("SELECT loquat.move_to_open($1)", UUID(event["id"]))
    await root.execute("COMMIT")
    assert (await late)["status"] == "superseded"
    assert (await desk.begin(event))["conversation_id"] != begun["conversation_id"]


async def test_an_unknown_event_cannot_be_committed(desk: Desk) -> None:
    with pytest.raises(asyncpg.PostgresError) as refused:
        await desk.commit({"id": str(uuid4())}, 0, {})
    assert refused.value.sqlstate == "LQ004"


REFUSED: dict[str, Any] = {
    "is not an object": [],
    "larger than 256 KiB": {"pad": "x" * 300_000},
    "state that is not a text": {"state": 7},
    "state that is not a text of 1": {"state": ""},
    "1 to 60 characters": {"state": "x" * 61},
    "end that is not a boolean": {"end": "yes"},
    "replies that are not an array": {"replies": 5},
    "more than 50": {"replies": [TEXT] * 51},
    "reply 1 that is not an object": {"replies": [1]},
    "reply 2 of a type": {"replies": [TEXT, {"text": "x"}]},
    "of a type that cannot be sent": {"replies": [{"type": "template"}]},
    "at most 4096": {"replies": [{"type": "text", "text": "x" * 4097}]},
    "text is not a text": {"replies": [{"type": "text", "text": 7}]},
    "content is not an object": {"replies": [{"type": "list", "content": [1]}]},
}


@pytest.mark.promise("P5")
@pytest.mark.parametrize("flaw", REFUSED)
async def test_a_result_that_could_not_be_sent_is_refused_where_it_is_written(desk: Desk, project: Project, flaw: str) -> None:
    event = message("user_id:u1")
    begun = await desk.begin(event)
    for attempt in (record_result(project, event, begun["version"], REFUSED[flaw]), desk.commit(event, begun["version"], REFUSED[flaw])):
        with pytest.raises(asyncpg.PostgresError, match=flaw) as refused:
            await attempt
        assert refused.value.sqlstate == "LQ001"
    assert (await desk.begin(event))["todo"] == "run"


async def test_null_in_a_result_is_as_if_it_were_absent(desk: Desk) -> None:
    reply = {"type": "text", "text": "x", "content": None}
    assert await desk.run(message("user_id:u1"), state=None, end=None, replies=None) == []
    assert len(await desk.run(message("user_id:u1"), replies=[reply])) == 1


@pytest.mark.promise("P7")
async def test_the_ledger_counts_every_accepted_event_once(desk: Desk) -> None:
    waiting = [message(f"user_id:u{n}") for n in range(5)]
    await desk.record(*waiting)
    for outcome, count in (("held", 2), ("expired", 3), ("discarded", 1)):
        for _ in range(count):
            await desk.begin(message("user_id:other"), outcome)
    for _ in range(4):
        await desk.run(message("user_id:other"), replies=[TEXT])
    await desk.begin(waiting[0])
    for reader in (desk.runner, desk.log):
        ledger = await reader.fetchrow("SELECT * FROM loquat.ledger()")
        assert ledger is not None
        assert dict(ledger) == {"accepted": 15, "handled": 4, "held": 2, "expired": 3, "discarded": 1, "open": 5}
