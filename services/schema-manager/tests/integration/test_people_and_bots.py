"""What a bot keeps of a person, when he is merged into another or erased: memory, language, timers, questions, who holds his conversation."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID, uuid4

import asyncpg
import pytest

from tests.system.world import until
from tests.tenants import WAITING, Desk, Project, message

TEXT: dict[str, Any] = {"type": "text", "text": "hello"}
_EVERYTHING = """
SELECT c.oid::regclass::text AS name FROM pg_class AS c
WHERE c.relowner = 'loquat_system'::regrole AND c.relkind = 'r' AND c.relname NOT IN ('identity', 'migrations')"""


def timer(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "at": (datetime.now(UTC) + timedelta(hours=2)).isoformat(), "data": None, "until_answer": False, **more}


async def contact_of(project: Project, value: str) -> UUID:
    return await (await project.root()).fetchval("SELECT contact_id FROM loquat.addresses WHERE value = $1", value)


async def open_of(project: Project, contact: UUID) -> asyncpg.Record:
    rows = await (await project.root()).fetch("SELECT * FROM public.conversations WHERE contact_id = $1 AND status = 'open'", contact)
    assert len(rows) == 1
    return rows[0]


async def merge(desk: Desk, contact: UUID, target: UUID) -> str:
    return await desk.log.fetchval("SELECT loquat.merge_contacts($1, $2)", contact, target)


async def erase(desk: Desk, contact: UUID, batch: int = 100) -> None:
    while (await desk.log.fetchval("SELECT e.more FROM loquat.erase_contact($1, $2) AS e", contact, batch)) is True:
        continue


async def remember(desk: Desk, project: Project, address: str, **memories: Any) -> None:
    """In a handler of its own, which says nothing else."""
    event = message(address)
    begun, bot = await desk.begin(event), await project.login("bot")
    assert begun["todo"] == "run"
    for key, value in memories.items():
        assert await bot.fetchval("SELECT loquat.memory_set($1, true, $2, $3)", UUID(event["id"]), key, value)
    await desk.commit(event, begun["version"], {})


async def armed(desk: Desk, event: str) -> dict[str, dict[str, Any]]:
    """What the index is told of at the end of an event, by name; it knows then."""
    timed: dict[str, Any] | None = await desk.runner.fetchval("SELECT loquat.timed_of($1, 'done')", UUID(event))
    told: list[dict[str, Any]] = (timed or {}).get("arm") or []
    await desk.runner.execute("SELECT loquat.timers_armed($1)", told)
    return {t["name"]: t for t in told if t["due_at"] is not None}


def fired(row: dict[str, Any]) -> dict[str, Any]:
    return {"id": row["event_id"], "kind": "timer", "conversation_id": row["conversation_id"]}


async def hold(project: Project, contact: UUID, who: str, note: str, hours: int | None = None) -> None:
    await (await project.root()).execute(
        "UPDATE public.conversations SET holder = 'person', holder_id = $2, held_since = '2026-01-01', held_until = now() + $4::int * interval '1 hour',"
        " hold_note = $3 WHERE contact_id = $1",
        contact,
        who,
        note,
        hours,
    )


async def left_of(project: Project, *words: str) -> list[tuple[str, str]]:
    """Tables of the platform's in which one of the words stands, and the word."""
    root, found = await project.root(), list[tuple[str, str]]()
    for table in await root.fetch(_EVERYTHING):
        texts = [r[0] for r in await root.fetch(f"SELECT t::text FROM {table['name']} AS t")]  # noqa: S608  (names of ours)
        found += [(table["name"], word) for word in words if any(word in text for text in texts)]
    return found


async def test_a_merge_takes_memories_and_language_along_and_what_the_target_has_itself_stays(desk: Desk, project: Project) -> None:
    await remember(desk, project, "wa_id:491", a=1, both=1)
    await remember(desk, project, "user_id:u2", both=2)
    await desk.run(message("wa_id:491"), contact={"language": "de", "name": "Anna"})
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    assert await merge(desk, anna, other) == "done"
    root = await project.root()
    assert {r["key"]: r["value"] for r in await root.fetch("SELECT key, value FROM loquat.bot_memories WHERE contact_id = $1", other)} == {
        "a": 1,
        "both": 2,
    }
    assert await root.fetchval("SELECT count(*) FROM loquat.bot_memories WHERE contact_id = $1", anna) == 0
    rows = await root.fetch("SELECT id, name, language FROM public.contacts ORDER BY name")
    assert [tuple(r) for r in rows] == [(other, "Anna", "de"), (anna, None, None)]


@pytest.mark.promise("P2")
async def test_what_a_stored_result_notes_of_a_contact_is_the_targets_after_a_merge(desk: Desk, project: Project) -> None:
    await desk.record(message("user_id:u2"))
    event = message("wa_id:491")
    begun, bot = await desk.begin(event), await project.login("bot")
    result = {"contact": {"name": "Anna", "language": "de", "attributes": {"vip": True}}, "replies": [TEXT], "timers": [timer("t")]}
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], result)
    other = await contact_of(project, "u2")
    assert await merge(desk, await contact_of(project, "491"), other) == "done"
    row = await (await project.root()).fetchrow("SELECT name, language, attributes FROM public.contacts WHERE id = $1", other)
    assert row is not None
    assert tuple(row) == ("Anna", "de", {"vip": True})
    done = await desk.begin(event)
    assert (done["todo"], [o["body"]["text"] for o in done["outbox"]]) == ("done", ["hello"])
    assert [t["conversation_id"] for t in (await armed(desk, event["id"])).values()] == [str((await open_of(project, other))["id"])]


@pytest.mark.promise("P2")
async def test_timers_of_the_conversation_that_is_closed_go_along_and_fire_once(desk: Desk, project: Project) -> None:
    await desk.run(first := message("wa_id:491"), timers=[timer("a", data={"n": 1}), timer("both"), timer("off")])
    old = await armed(desk, first["id"])
    await desk.run(second := message("user_id:u2"), timers=[timer("both", data="its own"), timer("off")])
    await armed(desk, second["id"])
    await desk.run(message("user_id:u2"), timers=[{"name": "off", "at": None}])
    other = await contact_of(project, "u2")
    assert await merge(desk, await contact_of(project, "491"), other) == "done"
    assert (await desk.begin(fired(old["a"])))["todo"] == "held", "the index still knew the old row"
    new = await armed(desk, old["a"]["event_id"])
    assert set(new) == {"a", "off"}
    assert {t["conversation_id"] for t in new.values()} == {str((await open_of(project, other))["id"])}
    begun = await desk.begin(fired(new["a"]))
    given = await desk.runner.fetchval("SELECT loquat.timed_of($1, 'run')", UUID(new["a"]["event_id"]))
    assert (begun["todo"], begun["contact_id"], given["fired"]["data"], sorted(given["timers"])) == (
        "run",
        other,
        {"n": 1},
        ["both", "off"],
    )
    assert (await desk.commit(fired(new["a"]), begun["version"], {"replies": [TEXT]}))["status"] == "committed"
    assert [(await desk.begin(fired(t)))["todo"] for t in (new["a"], old["both"])] == ["done", "held"]


async def test_timers_of_a_conversation_that_merely_becomes_the_targets_stay_as_they_are(desk: Desk, project: Project) -> None:
    await desk.run(first := message("wa_id:491"), timers=[timer("a")])
    (row,) = (await armed(desk, first["id"])).values()
    await desk.record(message("user_id:u2", number="2"))
    other = await contact_of(project, "u2")
    assert await merge(desk, await contact_of(project, "491"), other) == "done"
    begun = await desk.begin(fired(row))
    assert (begun["todo"], begun["contact_id"]) == ("run", other)


async def test_a_question_that_waits_goes_along_unless_the_target_has_one_or_is_held(desk: Desk, project: Project) -> None:
    async def asked(address: str, number: str) -> None:
        await desk.run(message(address, number=number), ask={"of": address})

    for number in ("1", "2", "3"):
        await asked("wa_id:491", number)
        await desk.record(message("user_id:u2", number=number))
    await asked("user_id:u2", "2")
    root, other = await project.root(), await contact_of(project, "u2")
    await root.execute("UPDATE public.conversations SET holder = 'people' WHERE contact_id = $1 AND number_id = '3'", other)
    assert await merge(desk, await contact_of(project, "491"), other) == "done"
    rows = await root.fetch(
        "SELECT v.number_id, a.ask->>'of' AS whose FROM loquat.asks AS a JOIN public.conversations AS v ON v.id = a.conversation_id WHERE v.status = 'open'"
    )
    assert {r["number_id"]: r["whose"] for r in rows} == {"1": "wa_id:491", "2": "user_id:u2"}
    assert await root.fetchval("SELECT count(*) FROM loquat.asks") == 2


@pytest.mark.parametrize("targets", [None, "over", "bob"])
async def test_a_hold_moves_whole_to_a_conversation_that_nobody_holds_any_more(desk: Desk, project: Project, targets: str | None) -> None:
    await desk.run(message("user_id:u2"), ask={"of": "u2"})
    await desk.record(message("wa_id:491"))
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    await hold(project, anna, "bea", "angry", 3)
    if targets is not None:
        await hold(project, other, targets, "calm", -1 if targets == "over" else None)
    assert await merge(desk, anna, other) == "done"
    row, root = await open_of(project, other), await project.root()
    expected = ("bob", "calm", None) if targets == "bob" else ("bea", "angry", datetime(2026, 1, 1, tzinfo=UTC))
    assert (row["holder_id"], row["hold_note"]) == expected[:2]
    assert (row["held_until"] is None) == (targets == "bob")
    assert await root.fetchval("SELECT count(*) FROM public.conversations WHERE holder <> 'bot'") == 1
    assert await root.fetchval("SELECT count(*) FROM loquat.asks") == (1 if targets == "bob" else 0)


async def test_what_needs_attention_needs_it_where_its_message_is_tried_again(desk: Desk, project: Project) -> None:
    event = message("wa_id:491")
    await desk.begin(event)
    await desk.record(message("user_id:u2"))
    failed = await desk.runner.fetchrow("SELECT * FROM loquat.fail_event($1, $2, 'boom')", UUID(event["id"]), uuid4())
    assert failed is not None
    assert failed["status"] == "failed"
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    assert await merge(desk, anna, other) == "done"
    row, root = await open_of(project, other), await project.root()
    assert (row["needs_attention"], row["attention_event"]) == (True, UUID(event["id"]))
    begun = await desk.runner.fetchrow("SELECT * FROM loquat.begin_event($1, NULL, NULL, true, false)", event)
    assert begun is not None
    assert (begun["todo"], begun["conversation_id"]) == ("run", row["id"])
    await desk.commit(event, begun["version"], {})
    assert await root.fetchval("SELECT count(*) FROM public.conversations WHERE needs_attention") == 0


@pytest.mark.promise("P2")
async def test_a_run_of_the_target_begins_again_when_a_hold_comes_to_its_conversation(desk: Desk, project: Project) -> None:
    await desk.record(message("wa_id:491"))
    event = message("user_id:u2")
    begun = await desk.begin(event)
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    await hold(project, anna, "bea", "angry")
    assert await merge(desk, anna, other) == "done"
    assert (await desk.commit(event, begun["version"], {"replies": [TEXT]}))["status"] == "superseded"
    assert (await desk.begin(event))["todo"] == "held"


@pytest.mark.promise("P2")
async def test_a_merge_waits_for_a_handler_that_remembers_something_and_neither_is_lost(desk: Desk, project: Project) -> None:
    await remember(desk, project, "wa_id:491", k=1)
    await desk.record(message("user_id:u2"))
    event = message("wa_id:491")
    begun, bot, root = await desk.begin(event), await project.login("bot"), await project.root()
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    await bot.execute("BEGIN")
    await bot.execute("SELECT loquat.memory_set($1, true, 'k', '2')", UUID(event["id"]))
    with pytest.raises(asyncpg.LockNotAvailableError):
        await merge(desk, anna, other)
    task = asyncio.create_task(merge(desk, anna, other))
    await until(lambda: root.fetchval(WAITING), "the merge waits", 5)
    await bot.execute("SELECT loquat.record_result($1, $2, '{}')", UUID(event["id"]), begun["version"])
    await bot.execute("COMMIT")
    assert await task == "done"
    assert [tuple(r) for r in await root.fetch("SELECT contact_id, value FROM loquat.bot_memories")] == [(other, 2)]


async def schedule(desk: Desk) -> dict[str, Any]:
    """An event of a schedule."""
    await desk.runner.execute(
        "SELECT loquat.sync_automations($1)", [{"name": "m", "schedule": "0 9 * * *", "handler": "m", "tz": "UTC", "catch_up": "once"}]
    )
    automation = await desk.runner.fetchval("SELECT id FROM loquat.automations()")
    due = {"automation_id": str(automation), "due_at": timer("")["at"], "ordered_by": None}
    event = {"id": str(uuid4()), "kind": "schedule", "schedule": due}
    assert (await desk.begin(event))["todo"] == "run"
    return event


async def sends_of(desk: Desk, event: dict[str, Any]) -> list[dict[str, Any]]:
    return (await desk.runner.fetchval("SELECT loquat.timed_of($1, 'done')", UUID(event["id"])))["send"]


@pytest.mark.promise("P2")
async def test_a_schedule_says_nothing_to_somebody_who_was_erased_and_the_others_orders_keep_their_ids(
    desk: Desk, project: Project
) -> None:
    await desk.record(message("wa_id:491"), message("wa_id:492"))
    anna, bob = await contact_of(project, "491"), await contact_of(project, "492")
    before, after = await schedule(desk), await schedule(desk)
    said = {"sends": [{**TEXT, "text": "Annabel, ...", "contact_id": str(anna)}, {**TEXT, "contact_id": str(bob)}]}
    await desk.commit(before, 0, said)
    ids = [s["order_id"] for s in await sends_of(desk, before)]
    await erase(desk, anna)
    assert await left_of(project, "Annabel") == []
    await desk.commit(after, 0, said)
    for event in (before, after):
        lost, kept = await sends_of(desk, event)
        assert (lost["addresses"], kept["addresses"]) == ([], [{"kind": "wa_id", "value": "492"}])
        await desk.runner.execute("SELECT loquat.clear_sends($1)", UUID(event["id"]))
        assert event is after or [lost["order_id"], kept["order_id"]] == ids
    assert await left_of(project, "Annabel") == []


@pytest.mark.promise("P7")
async def test_an_erase_leaves_nothing_that_a_bot_kept_of_the_person_and_his_timers_fire_in_vain(desk: Desk, project: Project) -> None:
    await remember(desk, project, "wa_id:491", **{f"k{n}": "of Annabel" for n in range(5)})
    contact = {"name": "Annabel", "language": "xx_Annabel", "attributes": {"x": "Annabel"}}
    timers = [timer("for Annabel", data="Annabel"), timer("told already", data="Annabel")]
    await desk.run(first := message("wa_id:491"), contact=contact, timers=timers, ask={"first": "Annabel"})
    index = await armed(desk, first["id"])
    await desk.begin(event := message("wa_id:491"))
    await desk.record(fired(index["told already"]))
    await desk.runner.fetchrow("SELECT * FROM loquat.fail_event($1, $2, 'Annabel is no number')", UUID(event["id"]), uuid4())
    anna, root = await contact_of(project, "491"), await project.root()
    await hold(project, anna, "bea", "Annabel is angry")
    await remember(desk, project, "wa_id:492", k="a neighbour's")
    tables = {name for name, _ in await left_of(project, "Annabel")}
    assert tables >= {
        "contacts",
        "conversations",
        "loquat.asks",
        "loquat.timers",
        "loquat.failures",
        "loquat.bot_memories",
        "loquat.results",
    }
    await erase(desk, anna, batch=2)
    assert await left_of(project, "Annabel") == []
    assert [(await desk.begin(fired(index[n])))["todo"] for n in ("for Annabel", "told already")] == ["held", "done"]
    assert await armed(desk, index["for Annabel"]["event_id"]) == {}
    assert await root.fetchval("SELECT count(*) FROM public.conversations WHERE needs_attention OR holder <> 'bot'") == 0
    assert (
        await desk.runner.fetchval("SELECT f.status FROM loquat.fail_event($1, $2, 'Annabel') AS f", UUID(event["id"]), uuid4()) == "done"
    )
    assert [r["value"] for r in await root.fetch("SELECT value FROM loquat.bot_memories")] == ["a neighbour's"]
    assert await left_of(project, "Annabel") == []
    row = await desk.log.fetchrow("SELECT accepted, handled, held, discarded, open FROM loquat.ledger()")
    assert row is not None
    assert tuple(row) == (6, 3, 0, 3, 0)


async def test_erased_memories_of_everybody_who_was_merged_go_too(desk: Desk, project: Project) -> None:
    await remember(desk, project, "wa_id:491", k=1)
    await desk.record(message("user_id:u2"))
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    assert await merge(desk, anna, other) == "done"
    root = await project.root()
    await root.execute("INSERT INTO loquat.bot_memories (bot_id, contact_id, key, value) VALUES (loquat.this_bot(), $1, 'late', '1')", anna)
    await erase(desk, other)
    assert await root.fetchval("SELECT count(*) FROM loquat.bot_memories") == 0


async def test_a_copy_says_nothing_that_a_schedule_was_about_to_say_and_its_bots_secrets_are_read_again(
    desk: Desk, project: Project
) -> None:
    await desk.record(message("wa_id:491"))
    event, root, provisioner = await schedule(desk), await project.root(), await project.service("provisioner")
    await desk.commit(event, 0, {"sends": [{**TEXT, "contact_id": str(await contact_of(project, "491"))}]})
    await desk.runner.execute("SELECT loquat.secrets_changed()")
    before = await root.fetchrow("SELECT i.project, i.epoch, b.secrets FROM loquat.identity AS i, loquat.bots AS b")
    assert before is not None
    renewed = "SELECT loquat.renew_project($1, $2, $3)"
    assert await provisioner.fetchval(renewed, before["project"], before["epoch"] + 1, project.database) is True
    assert await sends_of(desk, event) is None
    secrets = await root.fetchval("SELECT secrets FROM loquat.bots")
    assert secrets not in {None, before["secrets"]}
    assert await provisioner.fetchval(renewed, before["project"], before["epoch"] + 1, project.database) is False
    assert await root.fetchval("SELECT secrets FROM loquat.bots") == secrets
    await root.execute("UPDATE loquat.identity SET epoch = $1", before["epoch"])


async def test_a_persons_conversations_are_found_whoever_was_merged_into_him(desk: Desk, project: Project) -> None:
    await desk.record(message("wa_id:491"), message("user_id:u2"), message("wa_id:493"))
    anna, other = await contact_of(project, "491"), await contact_of(project, "u2")
    assert await merge(desk, anna, other) == "done"
    of = "SELECT cardinality(loquat.conversations_of($1))"
    assert [await desk.runner.fetchval(of, c) for c in (other, anna, uuid4())] == [2, 0, 0]
