"""Who holds a conversation, on a real project database with a real bot: people, the phone app, the bot again."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from datetime import timedelta
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import pytest
from loquat_bot_runner.adapters.lapses import LEASE
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.handlers.lapsing import Lapsing
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import CHANGES, INBOX
from loquat_events.conversations import ConversationChanged, HoldOrdered, SendOrdered
from loquat_events.envelope import Event, Payload
from loquat_events.meta import split_change
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, bundles_in, now, open_bench
from tests.tenants import Tenants

BOT = """from loquat import Bot
bot = Bot()

@bot.text('help')
async def helps(ctx):
    ctx.reply_text('Somebody will write to you.')
    await ctx.handoff(timeout=600, note='wants help')

@bot.text('book')
async def book(ctx):
    await ctx.db.execute("INSERT INTO notes VALUES ('begun')")
    name = await ctx.ask('Your name?')
    ctx.reply_text(f'Booked for {name}')

@bot.fallback
async def other(ctx):
    ctx.reply_text('a')
    ctx.reply_text('b')
"""
OBSERVER = """
@bot.observe
async def watch(ctx):
    await ctx.db.execute("INSERT INTO notes VALUES ($1)", ctx.event.text)
    if ctx.event.text == 'break':
        raise KeyError('drawer')
"""
NUMBER = "1"


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
    assert bench.project is not None
    await (await bench.project.login("editor")).execute("CREATE TABLE notes (note text)")
    return bench


async def rows(bench: Bench, query: str) -> list[dict[str, Any]]:
    assert bench.project is not None
    return [dict(r) for r in await (await bench.project.root()).fetch(query)]


async def conversation(bench: Bench) -> dict[str, Any]:
    (found,) = await rows(bench, "SELECT * FROM public.conversations WHERE status = 'open'")
    return found


async def notes(bench: Bench) -> list[str]:
    return [r["note"] for r in await rows(bench, "SELECT note FROM notes")]


async def outcomes(bench: Bench) -> list[str]:
    return [r["outcome"] for r in await rows(bench, "SELECT outcome FROM loquat.events ORDER BY recorded_at")]


def event(bench: Bench, data: Payload, key: UUID | None = None) -> Event[Payload]:
    return Event[Payload].of(data, id=key or uuid4(), source="/gateway", time=now(), project=bench.project_id, lane="49")


async def order(bench: Bench, **more: Any) -> Outcome:
    known = {"conversation_id": (await conversation(bench))["id"], "number_id": NUMBER, "addresses": [{"kind": "wa_id", "value": "49"}]}
    return await bench.take(event(bench, HoldOrdered.model_validate({**known, "ordered_by": "anna", **more})))


async def send(bench: Bench, text: str, **more: Any) -> Outcome:
    known = {"number_id": NUMBER, "addresses": [{"kind": "wa_id", "value": "49"}], "message": {"type": "text", "text": text}}
    return await bench.take(event(bench, SendOrdered.model_validate({**known, "ordered_by": "anna", **more})))


def echo(bench: Bench, text: str = "from the phone", to: str = "49") -> Event[Payload]:
    sent = {
        "from": "1555",
        "to": to,
        "id": f"wamid.{uuid4().hex}",
        "timestamp": str(int(now().timestamp())),
        "type": "text",
        "text": {"body": text},
    }
    value = {"metadata": {"phone_number_id": NUMBER}, "message_echoes": [sent]}
    (fact,) = split_change({"field": "smb_message_echoes", "value": value}, "waba")
    return Event[Payload].of(fact.payload, id=fact.id, source="/gateway", time=now(), project=bench.project_id, lane=fact.lane)


def changed(outcome: Outcome) -> ConversationChanged:
    assert isinstance(outcome, Done)
    (found,) = [e.data for e in outcome.publish if isinstance(e.data, ConversationChanged)]
    return found


async def test_what_a_person_holds_the_bot_does_not_hear_and_handing_back_does_not_answer_the_backlog(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    assert await bench.say() == ["a", "b"]
    told = changed(await order(bench, holder="person", note="mine"))
    assert (told.holder, told.holder_id, told.version) == ("person", "anna", 2)
    held = await conversation(bench)
    assert (held["holder"], held["holder_id"], held["hold_note"], held["held_since"] is None) == ("person", "anna", "mine", False)
    assert await bench.say(text="are you there?") == []
    assert changed(await order(bench, holder="bot")).holder == "bot"
    assert await bench.say() == ["a", "b"]
    assert await outcomes(bench) == ["handled", "handled", "held", "handled", "handled"]
    assert [r["version"] is None for r in await bench.runs()] == [False, True, True, False], "nobody was called for what was held"


async def test_a_handoff_comes_with_its_replies_and_ends_by_itself(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    assert await bench.say(text="help") == ["Somebody will write to you."]
    held = await conversation(bench)
    assert (held["holder"], held["holder_id"], held["hold_note"]) == ("people", None, "wants help")
    assert held["held_until"] - held["held_since"] == timedelta(minutes=10)
    assert await bench.say() == []
    await rows(bench, "UPDATE public.conversations SET held_until = now() RETURNING id")
    assert await bench.say() == ["a", "b"]
    back = await conversation(bench)
    assert (back["holder"], back["held_until"], back["hold_note"]) == ("bot", None, None)


async def test_a_persons_message_takes_over_if_it_says_so_or_the_project_does(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await send(bench, "hello")
    assert (await conversation(bench))["holder"] == "bot"
    await bench.good("PUT", "/settings", {"take_over": True})
    await send(bench, "hello", take_over=False)
    await send(bench, "hello", ordered_by="schedule", sender="automation")
    assert (await conversation(bench))["holder"] == "bot"
    assert changed(await send(bench, "hello")).holder_id == "anna"
    assert await bench.say() == []
    await order(bench, holder="bot")
    await send(bench, "hello", take_over=True)
    assert (await conversation(bench))["holder"] == "person"


async def test_an_order_that_meant_a_conversation_which_is_closed_leaves_the_next_one_alone(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await bench.say()
    await order(bench, conversation_id=uuid4(), holder="person", resolved=True)
    assert (await conversation(bench))["holder"] == "bot"


async def test_who_answers_in_the_phone_app_holds_the_conversation_and_his_words_are_recorded(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await bench.say()
    told = echo(bench)
    assert (told.lane, changed(await bench.take(told)).holder) == ("49", "phone")
    assert changed(await bench.take(told)).holder == "phone"  # it comes again
    held = await conversation(bench)
    assert (held["holder"], held["version"], held["held_until"] - held["held_since"]) == ("phone", 2, timedelta(days=1))
    said = await rows(bench, "SELECT text, sender, status FROM public.messages WHERE direction = 'out' AND sender <> 'bot'")
    assert said == [{"text": "from the phone", "sender": "person", "status": "sent"}]
    assert await bench.say() == []
    await bench.good("PUT", "/settings", {"phone_hold": 60})
    await bench.take(echo(bench, to="50"))  # he writes first
    first = await rows(
        bench, "SELECT holder, held_until - held_since AS time FROM public.conversations WHERE holder = 'phone' ORDER BY held_until"
    )
    assert first[0]["time"] == timedelta(minutes=1)


async def test_an_echo_waits_for_a_result_that_the_bot_has_recorded_at_this_version(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT.replace("ctx.reply_text('a')", "await ctx.db.execute(\"INSERT INTO notes VALUES ('n')\")")})
    asked = bench.message()
    bench.time.fail("bot_runner.after_handler")
    with pytest.raises(FailpointError):
        await bench.take(asked)
    assert changed(await bench.take(echo(bench))).holder == "phone"
    assert (bench.answers(asked.id), await outcomes(bench)) == (["b"], ["handled", "handled"])
    assert isinstance(await bench.take(asked), Done)
    assert (bench.answers(asked.id), await notes(bench)) == (["b"], ["n"])


async def test_an_observer_sees_what_is_held_once_and_what_it_says_is_not_said(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT + OBSERVER})
    await bench.say()
    await order(bench, holder="person")
    seen = bench.message(text="seen")
    bench.time.fail("bot_runner.after_handler")
    with pytest.raises(FailpointError):
        await bench.take(seen)
    await bench.take(seen)
    await bench.take(seen)
    assert isinstance(await bench.take(bench.message(text="break")), Done)
    assert (await notes(bench), await outcomes(bench)) == (["seen"], ["handled", "handled", "held", "held"])
    assert (bench.answers(seen.id), (await conversation(bench))["holder"]) == ([], "person")


async def test_a_result_of_a_bot_that_has_recorded_replies_while_it_observed_says_nothing(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT + OBSERVER})
    await bench.say()
    await order(bench, holder="person")
    seen, project = bench.message(text="seen"), bench.project
    assert project is not None
    bench.time.fail("bot_runner.after_begin")
    with pytest.raises(FailpointError):
        await bench.take(seen)
    lie = {"replies": [{"type": "text", "text": "forged"}], "state": "elsewhere", "end": True, "hold": {"seconds": 1, "note": None}}
    await (await project.login("bot")).execute("SELECT loquat.record_result($1, 2, $2)", seen.id, lie)
    await bench.take(seen)
    held = await conversation(bench)
    assert (bench.answers(seen.id), held["state"], held["holder"], held["version"]) == ([], "unstructured", "person", 3)


async def test_a_question_is_kept_through_crashes_and_deployments_and_is_gone_when_a_person_takes_over(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    asked = bench.message(text="book")
    for point in ("bot_runner.after_handler", "bot_runner.after_commit", "bot_runner.after_publish"):
        bench.time.fail(point)
        with pytest.raises(FailpointError):
            await bench.take(asked)
    await bench.take(asked)
    assert (bench.answers(asked.id)[-1], await notes(bench)) == ("Your name?", [])
    await bench.deploy(files={"bot.py": BOT.replace("Booked", "Noted")})
    answer = bench.message(text="Ada")
    bench.time.fail("bot_runner.after_handler")
    with pytest.raises(FailpointError):
        await bench.take(answer)
    await bench.take(answer)
    assert (bench.answers(answer.id), await notes(bench)) == (["Noted for Ada"], ["begun"])
    assert await rows(bench, "SELECT * FROM loquat.asks") == []
    await bench.say(text="book")
    await send(bench, "Let me help", take_over=True)
    await order(bench, holder="bot")
    assert await bench.say(text="Ada") == ["a", "b"]


async def test_texts_are_joined_where_the_project_wants_it(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    assert await bench.say() == ["a", "b"]
    await bench.good("PUT", "/settings", {"join_texts": True})
    assert await bench.say() == ["a\nb"]


async def test_settings_are_set_as_a_whole_and_what_makes_no_sense_is_refused(bench: Bench) -> None:
    first = await bench.good("GET", "/settings")
    assert first == {
        "on_failure": "silent",
        "apology": None,
        "stale_after": 86400,
        "take_over": False,
        "phone_hold": 86400,
        "join_texts": False,
    }
    assert await bench.good("PUT", "/settings", {"stale_after": 60}) == first | {"stale_after": 60}
    assert await bench.good("PUT", "/settings", {}) == first
    for wrong in ({"on_failure": "apologise"}, {"stale_after": 59}, {"on_failure": "shrug"}, {"apology": "a\0"}, {"unknown": 1}):
        assert "body" in json.dumps(await bench.bad("PUT", "/settings", wrong, code="invalid_request"))


async def test_how_old_a_message_may_be_is_the_projects_to_say_unless_a_person_wants_it_answered(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await bench.good("PUT", "/settings", {"stale_after": 3600})
    bench.time.clock.ahead = timedelta(hours=2)
    try:
        assert await bench.say() == []
        again = bench.message()
        await bench.inbox.handle(Received(again, INBOX.name, 0, 0, redriven=True))
        assert (bench.answers(again.id), await outcomes(bench)) == (["a", "b"], ["expired", "handled"])
        await bench.good("PUT", "/settings", {"stale_after": 3 * 3600})
        assert await bench.say() == ["a", "b"]
    finally:
        bench.time.clock.ahead = timedelta()


def lapsing(bench: Bench) -> Lapsing:
    time, runs = bench.time, cast("ProjectRuns", bench.inbox._runs)
    bus = MemoryBus("bot-runner", bench.broker)
    return Lapsing(time.index.lapses, runs, time.directory, bus, Failpoints(time.failpoints), time.clock.now)


def lapsed(bench: Bench) -> list[tuple[UUID, str | None]]:
    told = [e for e in bench.broker.events(CHANGES) if e.projectid == bench.project_id]
    return [(e.id, e.data.holder) for e in told if isinstance(e.data, ConversationChanged)]


async def ends_now(bench: Bench) -> None:
    """As if the hold had been given that much less time."""
    (row,) = await rows(bench, "UPDATE public.conversations SET held_until = now() - interval '1 minute' RETURNING held_until")
    await bench.pool.execute("UPDATE lapses SET held_until = $2, look_at = $2 WHERE project_id = $1", bench.project_id, row["held_until"])


async def test_a_hold_that_ends_by_itself_is_told_of_under_one_id_wherever_it_is_cut_off(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    help_ = bench.message(text="help")
    bench.time.fail("bot_runner.after_commit")
    with pytest.raises(FailpointError):
        await bench.take(help_)
    await bench.take(help_)
    before, watch = lapsed(bench), lapsing(bench)
    assert await watch.once() == 0, "it is not over"
    await ends_now(bench)
    bench.time.fail("bot_runner.after_lapse")
    with pytest.raises(FailpointError):
        await watch.once()
    assert await watch.once() == 0, "whoever took it may still be at it"
    bench.time.clock.ahead = LEASE
    assert (await watch.once(), await watch.once()) == (1, 0)
    bench.time.clock.ahead = timedelta()
    first, second = lapsed(bench)[len(before) :]
    assert first == second
    assert first[1] == "bot"


async def test_a_hold_that_was_moved_or_made_longer_meanwhile_is_not_told_of(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await bench.say(text="help")
    before, watch = lapsed(bench), lapsing(bench)
    await bench.pool.execute("UPDATE lapses SET look_at = now()")
    assert (await watch.once(), await watch.once()) == (1, 0), "the clock of its own database says that it is not over"
    await ends_now(bench)
    await order(bench, holder="person", seconds=900)
    assert await watch.once() == 0
    await bench.pool.execute("UPDATE lapses SET look_at = now()")
    await order(bench, holder="bot")
    assert await watch.once() == 1
    assert (lapsed(bench), await bench.pool.fetchval("SELECT count(*) FROM lapses")) == (before, 0)


async def test_when_a_hold_ends_is_forgotten_with_its_person(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": BOT})
    await bench.say(text="help")
    left: list[int] = []
    for person in (uuid4(), (await conversation(bench))["id"]):
        await bench.store.forget_timers(bench.project_id, [person])
        left.append(await bench.pool.fetchval("SELECT count(*) FROM lapses"))
    assert left == [1, 0]
