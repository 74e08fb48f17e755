"""When a bot fails for good: what the project wants to follow becomes true once, wherever the runner is cut off, and the event may be tried again."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from loquat_common.bus.port import Dead, Defer, Done, Outcome, Received, Retry
from loquat_common.failpoints import FailpointError
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import CHANGES, INBOX, OUTBOX
from loquat_events.conversations import ConversationChanged, MessageQueued
from loquat_events.envelope import Event, Payload
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, bundles_in, open_bench
from tests.tenants import Tenants

BROKEN = """from loquat import Bot
bot = Bot()

@bot.fallback
async def fails(ctx):
    raise KeyError('drawer ' + ctx.secrets.get('api', ''))
"""
MENDED = BROKEN.replace("raise KeyError('drawer ' + ctx.secrets.get('api', ''))", "ctx.reply_text('mended')")
SORRY = {"on_failure": "apologise", "apology": "Sorry!"}
PEOPLE = {"on_failure": "hand_over"}
LAST = 2
"""Tries that failed before the last one."""
POINTS = ("before_fail", "after_fail", "after_publish", "after_clear")


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    bench = await shared.anew()
    await bench.deploy(files={"bot.py": BROKEN})
    return bench


async def row(bench: Bench, query: str) -> dict[str, Any]:
    assert bench.project is not None
    found = await (await bench.project.root()).fetchrow(query)
    return dict(found or {})


async def conversation(bench: Bench) -> dict[str, Any]:
    return await row(bench, "SELECT * FROM public.conversations")


def said(bench: Bench, event: UUID) -> set[tuple[UUID, str | None, str]]:
    """By id, so what was published twice is one."""
    queued = [e.data for e in bench.broker.events(OUTBOX) if isinstance(e.data, MessageQueued)]
    return {(m.message_id, m.message.text, m.sender) for m in queued if m.cause == event}


async def redrive(bench: Bench, event: Event[Payload], attempts: int = 0) -> Outcome:
    return await bench.inbox.handle(Received(event, INBOX.name, 0, 0, attempts, redriven=True))


async def test_a_contact_whose_attributes_are_too_deep_for_any_reader_is_answered(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": MENDED.replace("'mended'", "str(sorted(ctx.contact.attributes))")})
    assert await bench.say() == ["[]"]
    await row(bench, f"UPDATE public.contacts SET attributes = '{{\"vip\": {'[' * 5000 + ']' * 5000}}}' RETURNING id")  # noqa: S608
    assert await bench.say() == ["['vip']"]


async def test_the_conversation_is_flagged_with_the_run_that_failed_and_nothing_is_said_where_nothing_is_set(bench: Bench) -> None:
    event = bench.message()
    assert not isinstance(await bench.take(event, 0), Dead)
    assert not (await conversation(bench)).get("needs_attention")
    assert isinstance(await bench.take(event, LAST), Dead)
    flagged, (last, _) = await conversation(bench), await bench.runs()
    assert (flagged["needs_attention"], flagged["attention_event"], str(flagged["attention_run"])) == (True, event.id, last["id"])
    assert (flagged["holder"], said(bench, event.id)) == ("bot", set())
    told = [e.data for e in bench.broker.events(CHANGES) if isinstance(e.data, ConversationChanged)][-1]
    assert (told.conversation_id, told.needs_attention, told.version) == (flagged["id"], True, 1)
    await bench.deploy(files={"bot.py": MENDED})
    assert await bench.say(text="next") == ["mended"]
    assert (await conversation(bench))["needs_attention"] is True, "that another message was answered helps nobody who wrote the first"


@pytest.mark.promise("P2")
@pytest.mark.parametrize("point", POINTS)
async def test_the_apology_is_said_once_wherever_the_runner_is_cut_off(bench: Bench, point: str) -> None:
    await bench.good("PUT", "/settings", SORRY)
    event = bench.message()
    bench.time.fail(f"bot_runner.{point}")
    with pytest.raises(FailpointError):
        await bench.take(event, LAST)
    calls = len(await bench.runs())
    await bench.deploy(files={"bot.py": MENDED})  # a call would succeed now, and there must be none once the consequences are true
    if point == "before_fail":
        assert isinstance(await bench.take(event, LAST), Done)
        assert {text for _, text, _ in said(bench, event.id)} == {"mended"}
        return
    assert isinstance(await bench.take(event, LAST), Dead)
    assert isinstance(await bench.take(event, LAST), Dead)
    assert [(text, sender) for _, text, sender in said(bench, event.id)] == [("Sorry!", "automation")]
    assert len(await bench.runs()) == calls
    state = await row(
        bench, "SELECT count(*) AS messages, (SELECT count(*) FROM loquat.outbox) AS left FROM public.messages WHERE direction = 'out'"
    )
    assert state == {"messages": 1, "left": 0}


@pytest.mark.promise("P7")
async def test_a_dead_event_is_open_in_the_ledger_until_it_is_redriven_and_that_clears_what_it_left(bench: Bench) -> None:
    await bench.good("PUT", "/settings", PEOPLE)
    event = bench.message()
    await bench.take(event, LAST)
    ledger = await row(bench, "SELECT * FROM loquat.ledger()")
    assert (ledger["accepted"], ledger["open"]) == (1, 1)
    held = await conversation(bench)
    assert (held["holder"], held["hold_note"], held["version"]) == ("people", "the bot failed", 1)
    assert await bench.say(text="hello?") == []
    await bench.deploy(files={"bot.py": MENDED})
    assert isinstance(await redrive(bench, event), Done)
    assert {text for _, text, _ in said(bench, event.id)} == {"mended"}
    back = await conversation(bench)
    assert (back["holder"], back["needs_attention"], back["attention_event"]) == ("bot", False, None)
    ledger = await row(bench, "SELECT * FROM loquat.ledger()")
    assert (ledger["handled"], ledger["held"], ledger["open"]) == (1, 1, 0)


async def test_a_redriven_event_that_fails_again_is_dead_again_and_apologises_no_second_time(bench: Bench) -> None:
    await bench.good("PUT", "/settings", {**PEOPLE, "apology": "Sorry!"})
    event = bench.message()
    await bench.take(event, LAST)
    assert isinstance(await redrive(bench, event, LAST), Dead)
    assert [text for _, text, _ in said(bench, event.id)] == ["Sorry!"]
    held, (last, *_) = await conversation(bench), await bench.runs()
    assert (held["holder"], held["needs_attention"], str(held["attention_run"])) == ("people", True, last["id"])


async def test_a_conversation_that_a_person_has_taken_meanwhile_stays_his(bench: Bench) -> None:
    await bench.good("PUT", "/settings", PEOPLE)
    event = bench.message()
    await bench.take(event, LAST)
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET holder = 'person', holder_id = 'anna'")
    await bench.deploy(files={"bot.py": MENDED})
    assert isinstance(await redrive(bench, event), Done)
    assert (said(bench, event.id), (await conversation(bench))["holder"]) == (set(), "person")


async def test_a_bot_that_has_committed_after_all_is_no_failure(bench: Bench) -> None:
    event, project = bench.message(), bench.project
    assert project is not None
    bench.time.fail("bot_runner.before_fail")
    with pytest.raises(FailpointError):
        await bench.take(event, LAST)
    late = {"replies": [{"type": "text", "text": "late"}]}
    bot = await project.login("bot")
    await bot.execute("BEGIN")
    await bot.execute("SELECT loquat.record_result($1, 0, $2)", event.id, late)
    runner = await project.service("bot-runner")
    with pytest.raises(Exception, match="lock timeout"):
        await runner.fetch("SELECT * FROM loquat.fail_event($1, NULL, 'failed')", event.id)
    await bot.execute("COMMIT")
    failed = await runner.fetchrow("SELECT * FROM loquat.fail_event($1, NULL, 'failed')", event.id)
    assert failed is not None
    assert failed["status"] == "superseded"
    assert isinstance(await bench.take(event, LAST), Done)
    assert {text for _, text, _ in said(bench, event.id)} == {"late"}
    assert (await conversation(bench))["needs_attention"] is False


async def test_a_failure_at_a_version_that_another_result_holds_begins_again(bench: Bench) -> None:
    event, other, project = bench.message(), bench.message(), bench.project
    assert project is not None
    bench.time.fail("bot_runner.after_begin")
    with pytest.raises(FailpointError):
        await bench.take(other)
    bench.time.fail("bot_runner.before_fail")
    with pytest.raises(FailpointError):
        await bench.take(event, LAST)
    await (await project.login("bot")).execute("SELECT loquat.record_result($1, 0, '{}')", other.id)
    failed = await (await project.service("bot-runner")).fetchrow("SELECT * FROM loquat.fail_event($1, NULL, 'failed')", event.id)
    assert failed is not None
    assert failed["status"] == "superseded"
    assert not isinstance(await bench.take(event, LAST), Defer)
    assert (await conversation(bench))["version"] == 2


async def test_a_dead_letter_that_is_discarded_needs_no_attention_any_more(bench: Bench) -> None:
    event = bench.message()
    await bench.take(event, LAST)
    assert bench.project is not None
    element = {"id": str(event.id), "kind": "message"}
    runner = await bench.project.service("bot-runner")
    await runner.fetch("SELECT * FROM loquat.begin_event($1, 'discarded', NULL, false, false)", element)
    assert (await conversation(bench))["needs_attention"] is False


async def test_in_a_database_that_is_behind_a_failure_is_dead_and_a_message_is_answered_as_before(bench: Bench) -> None:
    assert bench.project is not None
    root = await bench.project.root()
    for name in ("begin_event", "fail_event", "holder_of"):
        await root.execute(f"ALTER FUNCTION loquat.{name} RENAME TO later_{name}")
    try:
        assert isinstance(await bench.take(bench.message(), LAST), Dead)
        await bench.deploy(files={"bot.py": MENDED})
        assert await bench.say() == ["mended"]
        assert (await conversation(bench))["needs_attention"] is False
    finally:
        for name in ("begin_event", "fail_event", "holder_of"):
            await root.execute(f"ALTER FUNCTION loquat.later_{name} RENAME TO {name}")


@pytest.mark.promise("P8")
async def test_what_is_kept_of_a_failure_in_the_projects_database_holds_none_of_its_words(bench: Bench) -> None:
    await bench.good("PUT", "/secrets/api", {"value": "s3cr3t-of-anna"})
    event = bench.message()
    await bench.take(event, LAST)
    kept = await row(bench, "SELECT l.kind, l::text || c::text AS all FROM loquat.failures AS l, public.conversations AS c")
    assert (kept["kind"], "s3cr3t" in kept["all"], "drawer" in kept["all"]) == ("BotError", False, False)


@pytest.mark.promise("P4")
async def test_a_bot_that_says_another_run_was_first_is_believed_only_where_its_database_knows_of_one(bench: Bench) -> None:
    forged = "from loquat.database import Superseded\n" + BROKEN.replace(
        "raise KeyError('drawer ' + ctx.secrets.get('api', ''))", "raise Superseded"
    )
    await bench.deploy(files={"bot.py": forged})
    event = bench.message()
    assert isinstance(await bench.take(event, 0), Retry)
    assert isinstance(await bench.take(event, LAST), Dead)
    assert {r["error"] for r in await bench.runs(event=event.id)} == {
        "the bot says that another run was first, and its database knows of none"
    }
