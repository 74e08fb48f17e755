"""Merging and erasing contacts in a real project database: nothing is lost by a merge, nothing of a person is left by an erase."""

from __future__ import annotations

import asyncio
import json
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.system.world import until
from tests.tenants import WAITING, Desk, Project, message, order, update

TEXT: dict[str, Any] = {"type": "text", "text": "hello, Anna"}
EMPTY = {"accepted": 0, "handled": 0, "held": 0, "expired": 0, "discarded": 0, "open": 0}
_EVERYTHING = """
SELECT c.oid::regclass::text AS name FROM pg_class AS c
WHERE c.relowner = 'loquat_system'::regrole AND c.relkind = 'r' AND c.relname NOT IN ('identity', 'migrations')"""


async def contact_of(project: Project, address: str) -> UUID:
    kind, _, value = address.partition(":")
    return await (await project.root()).fetchval("SELECT contact_id FROM loquat.addresses WHERE (kind, value) = ($1, $2)", kind, value)


async def merge(desk: Desk, contact: UUID, target: UUID) -> str:
    return await desk.log.fetchval("SELECT loquat.merge_contacts($1, $2)", contact, target)


async def erase(desk: Desk, contact: UUID, batch: int = 100) -> str:
    while True:
        row = await desk.log.fetchrow("SELECT * FROM loquat.erase_contact($1, $2)", contact, batch)
        assert row is not None
        if not row["more"]:
            return row["outcome"]


async def two(desk: Desk, project: Project, *, open_first: bool = True) -> tuple[UUID, UUID]:
    """Anna under two addresses, with an open conversation each."""
    if open_first:
        await desk.record(message("wa_id:491", "phone:+491", name="Anna"), message("user_id:u2", text="from the other phone"))
    return await contact_of(project, "wa_id:491"), await contact_of(project, "user_id:u2")


async def left_of(project: Project, *words: str) -> list[str]:
    """Tables of the platform's in which one of the words stands."""
    root, found = await project.root(), list[str]()
    for table in await root.fetch(_EVERYTHING):
        texts = [r[0] for r in await root.fetch(f"SELECT t::text FROM {table['name']} AS t")]  # noqa: S608  (names of ours)
        found += [table["name"] for word in words if any(word in text for text in texts)]
    return found


async def ledger(desk: Desk) -> dict[str, int]:
    row = await desk.log.fetchrow("SELECT * FROM loquat.ledger()")
    assert row is not None
    assert row["accepted"] == sum(row[k] for k in EMPTY if k != "accepted")
    return {k: v for k, v in row.items() if v}


async def record_result(project: Project, event: dict[str, Any], version: int, **result: Any) -> asyncpg.Connection[asyncpg.Record]:
    """As the SDK does before it commits: in a transaction of the bot's own, which stays open."""
    bot = await project.login("bot")
    await bot.execute("BEGIN")
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), version, result)
    return bot


async def test_a_merge_moves_addresses_conversations_and_what_is_known_and_says_the_same_when_repeated(
    desk: Desk, project: Project
) -> None:
    anna, other = await two(desk, project)
    await desk.record(message("wa_id:491", number="2"))
    assert [await merge(desk, anna, other), await merge(desk, anna, other)] == ["done", "done"]
    root = await project.root()
    row = await root.fetchrow(
        "SELECT name, phone_number, merged_into, (SELECT count(*) FROM loquat.addresses WHERE contact_id = c.id) AS n FROM public.contacts AS c WHERE id = $1",
        other,
    )
    assert row is not None
    assert tuple(row) == ("Anna", "+491", None, 3)
    gone = await root.fetchrow("SELECT name, phone_number, merged_into FROM public.contacts WHERE id = $1", anna)
    assert gone is not None
    assert tuple(gone) == (None, None, other)
    rows = await root.fetch("SELECT number_id, status FROM public.conversations WHERE contact_id = $1 ORDER BY number_id, status", other)
    assert [tuple(r) for r in rows] == [("1", "closed"), ("1", "open"), ("2", "open")]
    (recorded,) = await desk.record(message("wa_id:491", name="Somebody"))
    assert await root.fetchval("SELECT contact_id FROM public.conversations WHERE id = $1", recorded["conversation_id"]) == other


async def test_chains_are_one_step_long_and_there_are_no_rings(desk: Desk, project: Project) -> None:
    await desk.record(*(message(f"wa_id:{p}") for p in "abcd"))
    a, b, c, d = [await contact_of(project, f"wa_id:{p}") for p in "abcd"]
    assert [await merge(desk, a, b), await merge(desk, b, c)] == ["done", "done"]
    root = await project.root()
    assert {r[0] for r in await root.fetch("SELECT merged_into FROM public.contacts WHERE merged_into IS NOT NULL")} == {c}
    said = [await merge(desk, *pair) for pair in ((c, a), (a, d), (c, c), (uuid4(), c), (c, uuid4()), (d, b))]
    assert said == ["into_merged", "merged", "same", "unknown", "into_unknown", "into_merged"]
    assert await erase(desk, c) == "done"
    assert [await merge(desk, c, d), await merge(desk, d, c), await erase(desk, a), await erase(desk, uuid4())] == [
        "erased",
        "into_erased",
        "merged",
        "unknown",
    ]


@pytest.mark.promise("P2")
async def test_a_handler_that_runs_while_its_contact_is_merged_is_superseded_and_runs_again_for_the_right_one(
    desk: Desk, project: Project
) -> None:
    anna, other = await two(desk, project)
    event = message("wa_id:491", text="now")
    begun = await desk.begin(event)
    assert (begun["todo"], begun["contact_id"]) == ("run", anna)
    assert await merge(desk, anna, other) == "done"
    with pytest.raises(asyncpg.PostgresError, match="not open at this version"):
        await record_result(project, event, begun["version"])
    assert (await desk.commit(event, begun["version"], {"replies": [TEXT]}))["status"] == "superseded"
    again = await desk.begin(event)
    assert (again["todo"], again["contact_id"]) == ("run", other)
    committed = await desk.commit(event, again["version"], {"replies": [TEXT]})
    assert (committed["status"], {o["contact_id"] for o in committed["outbox"]}) == ("committed", {str(other)})


@pytest.mark.promise("P2")
async def test_a_result_that_is_recorded_is_applied_by_the_merge_and_one_about_to_be_is_waited_for(desk: Desk, project: Project) -> None:
    anna, other = await two(desk, project)
    event = message("wa_id:491", text="now")
    begun = await desk.begin(event)
    bot = await record_result(project, event, begun["version"], replies=[TEXT])
    with pytest.raises(asyncpg.LockNotAvailableError):
        await merge(desk, anna, other)
    task = asyncio.create_task(merge(desk, anna, other))
    root = await project.root()
    await until(lambda: root.fetchval(WAITING), "the merge waits", 5)
    await bot.execute("COMMIT")
    assert await task == "done"
    done = await desk.begin(event)
    assert (done["todo"], done["outbox"][0]["body"]["text"], done["outbox"][0]["contact_id"]) == ("done", TEXT["text"], str(other))


async def test_a_snapshot_from_before_the_merge_meets_the_version_taken(desk: Desk, project: Project) -> None:
    anna, other = await two(desk, project)
    event = message("wa_id:491", text="now")
    begun = await desk.begin(event)
    bot = await project.login("bot")
    await bot.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await bot.fetchval("SELECT count(*) FROM public.contacts")
    assert await merge(desk, anna, other) == "done"
    with pytest.raises((asyncpg.UniqueViolationError, asyncpg.SerializationError)):
        await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], {"replies": []})


async def test_a_person_who_holds_the_conversation_that_is_closed_holds_the_other_one(desk: Desk, project: Project) -> None:
    anna, other = await two(desk, project)
    root = await project.root()
    await root.execute("UPDATE public.conversations SET holder = 'bea' WHERE contact_id = $1", anna)
    await merge(desk, anna, other)
    assert await root.fetchval("SELECT holder FROM public.conversations WHERE status = 'open'") == "bea"


@pytest.mark.promise("P7")
async def test_an_erase_leaves_nothing_of_the_person_and_the_ledger_adds_up(desk: Desk, project: Project) -> None:
    root, first = (
        await project.root(),
        message("wa_id:4915112349170", "phone:+4915112349170", text="my name is Annabel", name="Annabel", reply_to="wamid.4915112349170"),
    )
    (queued,) = await desk.run(first, replies=[{"type": "text", "text": "hello Annabel"}], state="of Annabel")
    await desk.receipts(
        {
            "key": queued["message_id"],
            "status": "sent",
            "at": "2026-01-01T00:00:00Z",
            "wamid": "wamid.4915112349170x",
            "error_title": "Annabel",
        }
    )
    await desk.record(
        message("user_id:Annabel.2", text="Annabel again"),
        update("calls", json.dumps({"of": "4915112349170"}), "wa_id:4915112349170"),
        order("wa_id:4915112349170"),
    )
    await desk.record(message("wa_id:550", text="a neighbour"))
    anna, alias = await contact_of(project, "wa_id:4915112349170"), await contact_of(project, "user_id:Annabel.2")
    assert await merge(desk, alias, anna) == "done"
    before = await ledger(desk)
    assert set(await left_of(project, "Annabel", "4915112349170"))
    assert await erase(desk, anna, batch=1) == "done"
    assert await left_of(project, "Annabel", "4915112349170") == []
    assert await ledger(desk) == {"accepted": before["accepted"], "handled": 1, "discarded": 2, "open": 2}
    assert await root.fetchval("SELECT text FROM public.messages WHERE text IS NOT NULL") == "a neighbour"
    assert await root.fetchval("SELECT count(*) FROM public.messages") == 4
    assert await erase(desk, anna) == "done", "repeated"


@pytest.mark.promise("P2")
async def test_what_comes_late_brings_nothing_of_an_erased_person_back(desk: Desk, project: Project) -> None:
    first, event = message("wa_id:4915112349170", text="Annabel one"), message("wa_id:4915112349170", text="Annabel two")
    (queued,) = await desk.run(first, replies=[{"type": "text", "text": "hello Annabel"}])
    begun = await desk.begin(event)
    old = await project.login("bot")
    await old.execute("BEGIN ISOLATION LEVEL REPEATABLE READ")
    await old.fetchval("SELECT count(*) FROM public.contacts")
    anna = await contact_of(project, "wa_id:4915112349170")
    assert await erase(desk, anna) == "done"
    late = {"replies": [{"type": "text", "text": "Annabel late"}]}
    with pytest.raises((asyncpg.UniqueViolationError, asyncpg.SerializationError)):
        await old.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], late)
    assert (await desk.commit(event, begun["version"], late))["status"] == "done"
    assert (await desk.begin(event))["todo"] == "done"
    await desk.record(first, event)
    conversation = {"conversation_id": queued["conversation_id"], "type": "text", "text": "Annabel", "sender": "bot"}
    await desk.outbound({"id": queued["message_id"], **conversation}, {"id": str(uuid4()), **conversation, "wamid": "wamid.4915112349170"})
    await desk.receipts({"key": queued["message_id"], "status": "delivered", "at": "2026-01-01T00:00:00Z", "wamid": "wamid.4915112349170"})
    assert await left_of(project, "Annabel", "4915112349170") == []
    await desk.record(message("wa_id:4915112349170", text="here I am again"))
    assert await contact_of(project, "wa_id:4915112349170") != anna, "who writes after it is somebody new"


@pytest.mark.promise("P7")
async def test_an_order_that_waits_for_an_erased_contact_is_discarded_and_makes_nobody_of_his_number(desk: Desk, project: Project) -> None:
    await desk.record(message("wa_id:4915112349170", "phone:+4915112349170"))
    anna = await contact_of(project, "wa_id:4915112349170")
    assert await erase(desk, anna) == "done"
    late = {**order("wa_id:4915112349170", "phone:+4915112349170"), "contact_id": str(anna)}
    assert (await desk.begin(late))["todo"] == "done"
    others = [{**order("wa_id:4915112349170"), "contact_id": str(anna)}, {**order("wa_id:550"), "contact_id": None}, message("wa_id:551")]
    await desk.record(*others)
    assert await left_of(project, "4915112349170") == []
    assert await ledger(desk) == {"accepted": 5, "discarded": 3, "open": 2}
    root = await project.root()
    assert await root.fetchval("SELECT count(*) FROM public.conversations WHERE contact_id = $1 AND status = 'open'", anna) == 0


@pytest.mark.promise("P2")
async def test_receipts_of_a_message_that_came_after_the_erase_find_it_and_leave_no_number(desk: Desk, project: Project) -> None:
    await desk.record(message("wa_id:4915112349170"))
    anna, root = await contact_of(project, "wa_id:4915112349170"), await project.root()
    talk = await root.fetchval("SELECT id FROM public.conversations")
    assert await erase(desk, anna) == "done"
    late, wamid = str(uuid4()), "wamid.4915112349170"
    sent = {"status": "sent", "at": "2026-01-01T00:00:00Z"}
    await desk.receipts({"key": late, "wamid": wamid, **sent}, {"key": wamid, **sent})
    await desk.outbound(
        {"id": late, "conversation_id": str(talk), "type": "text", "text": "Annabel", "raw": "{}", "wamid": wamid, "sender": "bot"}
    )
    await desk.receipts({"key": late, "wamid": wamid, **sent, "status": "delivered"})
    assert await left_of(project, "Annabel", "4915112349170") == []
    row = await root.fetchrow("SELECT text, wamid, status, transitions ? 'failed' AS failed FROM public.messages WHERE id = $1", UUID(late))
    assert row is not None
    assert tuple(row) == (None, f"erased:{late}", "delivered", True)
    assert await root.fetchval("SELECT count(*) FROM loquat.receipts") == 0


async def test_a_receipt_that_waited_a_week_goes_when_others_come(desk: Desk, project: Project) -> None:
    root = await project.root()
    for key in ("old", "young"):
        await desk.receipts({"key": key, "status": "sent", "at": "2026-01-01T00:00:00Z"})
    await root.execute("UPDATE loquat.receipts SET recorded_at = now() - interval '8 days' WHERE key = 'old'")
    await desk.receipts({"key": "new", "status": "sent", "at": "2026-01-01T00:00:00Z"})
    assert {r["key"] for r in await root.fetch("SELECT key FROM loquat.receipts")} == {"young", "new"}


async def test_a_message_that_is_being_recorded_is_waited_for_and_erased_too(desk: Desk, project: Project) -> None:
    await desk.record(message("wa_id:4915112349170"))
    anna, root = await contact_of(project, "wa_id:4915112349170"), await project.root()
    other = await project.service("bot-runner")
    await other.execute("BEGIN")
    await other.fetch("SELECT * FROM loquat.record_inbound($1)", [message("wa_id:4915112349170", text="Annabel")])
    task = asyncio.create_task(erase(desk, anna))
    await until(lambda: root.fetchval(WAITING), "the erase waits", 5)
    late = asyncio.create_task(
        (await project.service("bot-runner")).fetch(
            "SELECT * FROM loquat.record_inbound($1)", [message("wa_id:4915112349170", text="after")]
        )
    )
    await other.execute("COMMIT")
    assert await task == "done"
    await late
    assert [r["text"] for r in await root.fetch("SELECT text FROM public.messages WHERE text IS NOT NULL")] == ["after"]
    assert await contact_of(project, "wa_id:4915112349170") != anna


@pytest.mark.promise("P5")
async def test_a_tenant_can_neither_merge_nor_erase_nor_hold_the_lock_of_people(desk: Desk, project: Project) -> None:
    anna, other = await two(desk, project)
    for kind in ("bot", "editor"):
        login = await project.login(kind)
        for sql in (
            f"SELECT loquat.merge_contacts('{anna}', '{other}')",
            f"SELECT * FROM loquat.erase_contact('{anna}', 1)",  # noqa: S608
            "BEGIN; LOCK TABLE loquat.addresses IN ACCESS SHARE MODE",
        ):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await login.execute(sql)
            await login.execute("ROLLBACK")
