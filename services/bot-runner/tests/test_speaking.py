"""What a bot says before its handler ends: there at once, once, in order, wherever the runner is cut off and whoever else moves the conversation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat import protocol
from loquat_bot_runner.adapters.speech import Speech
from loquat_bot_runner.domain.replies import MOST_NOW
from loquat_bot_runner.errors import BotError, ProtocolViolated, TimedOut, Unsaid
from loquat_common.bus.port import Dead, Done
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import OUTBOX
from loquat_events.conversations import HoldOrdered, MessageQueued, MessageReceived, TypingBegun
from loquat_events.elements import inbound
from loquat_events.envelope import Event, Payload
from loquat_events.replies import reply_id
from loquat_sandbox import Measured, Sandbox

from conftest import open_platform
from tests.botbench import Bench, bundles_in, now, open_bench
from tests.bots import started
from tests.system.world import until
from tests.tenants import Tenants

BOT = """import asyncio
from loquat import Bot
from loquat.database import DatabaseAway
bot = Bot()
tries = set()

@bot.text('wait')
async def wait(ctx):
    await ctx.typing()
    await ctx.reply_now('one moment')
    while not await ctx.pool.fetchval("SELECT count(*) FROM go WHERE event = $1", ctx.event.id):
        await asyncio.sleep(0.01)
    await ctx.reply_now('nearly')
    ctx.reply_text('done')

@bot.text('twice')
async def twice(ctx):
    await ctx.reply_now('one moment')
    if ctx.event.id not in tries:
        tries.add(ctx.event.id)
        raise KeyError('drawer')
    ctx.reply_text('done')

@bot.text('ask')
async def ask(ctx):
    await ctx.reply_now('looking')
    name = await ctx.ask('Who?')
    await ctx.reply_now(f'found {name}')

@bot.text('hopeless')
async def hopeless(ctx):
    try:
        await ctx.reply_now('one moment')
    except DatabaseAway:
        raise KeyError('drawer')

@bot.fallback
async def speak(ctx):
    await ctx.reply_now('one moment')
    ctx.reply_text('done')
"""
LAST = 2
"""Tries that failed before the last one."""


@pytest.fixture(scope="module")
async def bench(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    """One for all tests: each has contacts of its own."""
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        assert made.project is not None
        await (await made.project.login("editor")).execute("CREATE TABLE go (event uuid)")
        await made.deploy(files={"bot.py": BOT})
        yield made


async def rows(bench: Bench, query: str, *arguments: object) -> list[Any]:
    assert bench.project is not None
    return [r[0] for r in await (await bench.project.root()).fetch(query, *arguments)]


async def left(bench: Bench) -> int:
    """Messages that nobody has published."""
    return (await rows(bench, "SELECT count(*) FROM loquat.outbox"))[0]


async def written(bench: Bench, event: UUID) -> list[str]:
    """What was said in an event's conversation."""
    query = "SELECT m.text FROM public.messages AS m JOIN loquat.events AS e USING (conversation_id) WHERE e.id = $1 AND m.direction = 'out' ORDER BY m.sent_at"
    return await rows(bench, query, event)


def said(bench: Bench, *events: UUID) -> list[tuple[UUID, str | None]]:
    """In the order in which the contact gets them: what was published again is one."""
    queued = [e.data for e in bench.broker.events(OUTBOX) if isinstance(e.data, MessageQueued)]
    return list(dict.fromkeys((m.message_id, m.message.text) for m in queued if m.cause in events))


def texts(bench: Bench, *events: UUID) -> list[str | None]:
    return [text for _, text in said(bench, *events)]


async def heard(bench: Bench, event: UUID, text: str) -> None:
    async def there() -> bool:
        return text in texts(bench, event)

    await until(there, f"{text!r} was said", 10)


async def go(bench: Bench, event: UUID) -> None:
    await rows(bench, "INSERT INTO public.go VALUES ($1) RETURNING event", event)


async def test_it_is_said_while_the_handler_works_and_what_was_collected_comes_behind_it(bench: Bench) -> None:
    event = bench.message("1", "wait")
    taken = asyncio.ensure_future(bench.take(event))
    await heard(bench, event.id, "one moment")
    assert not taken.done()
    assert await written(bench, event.id) == ["one moment"]
    await go(bench, event.id)
    assert isinstance(await taken, Done)
    first, second, last = said(bench, event.id)
    assert [first[1], second[1], last[1]] == ["one moment", "nearly", "done"]
    assert [first[0], second[0], last[0]] == [reply_id(event.id, n) for n in (-2_000_000_001, -2_000_000_002, 1)]
    (run,) = await bench.runs(event=event.id)
    assert (run["replies"], await left(bench)) == (3, 0)
    assert isinstance(event.data, MessageReceived)
    typed = [e for e in bench.broker.events(OUTBOX) if isinstance(e.data, TypingBegun) and e.data.wamid == event.data.message.wamid]
    assert [e.lane for e in typed] == ["1"]


@pytest.mark.promise("P2")
async def test_it_is_said_once_wherever_the_runner_is_cut_off(bench: Bench) -> None:
    for point in ("before_say", "after_say", "after_now_publish", "after_now_clear", "after_handler", "after_commit"):
        event = bench.message(f"2 {point}")
        bench.time.fail(f"bot_runner.{point}")
        (first,) = await asyncio.gather(bench.take(event), return_exceptions=True)
        assert not isinstance(first, Done), point
        assert isinstance(await bench.take(event), Done), point
        assert texts(bench, event.id) == ["one moment", "done"], point
        assert await written(bench, event.id) == ["one moment", "done"], point
        assert await left(bench) == 0, point


@pytest.mark.promise("P2")
async def test_it_stays_said_when_the_handler_fails_and_the_next_try_does_not_say_it_again(bench: Bench) -> None:
    event = bench.message("3", "twice")
    assert not isinstance(await bench.take(event), Done)
    assert texts(bench, event.id) == ["one moment"]
    assert isinstance(await bench.take(event, attempts=1), Done)
    assert bench.answers(event.id) == ["one moment", "done"]


@pytest.mark.promise("P2")
async def test_what_the_last_try_has_said_and_nobody_has_published_goes_out_with_the_dead_event(bench: Bench) -> None:
    event = bench.message("4", "hopeless")
    bench.time.fail("bot_runner.after_say")
    assert isinstance(await bench.take(event, LAST), Dead)
    assert (texts(bench, event.id), await left(bench)) == (["one moment"], 0)


async def test_a_handler_that_asked_says_it_once_and_nothing_in_answer_to_what_another_contact_wrote(bench: Bench) -> None:
    first, second, other = bench.message("5", "ask"), bench.message("5", "Ada"), bench.message("50")
    for event in (other, first, second):
        await bench.take(event)
    assert texts(bench, first.id, second.id) == ["looking", "Who?", "found Ada"]
    third, voices, listed = bench.message("5"), bench.inbox._voices, bench.time.listed
    begun = await bench.inbox._runs.begin(listed, inbound(third) or {}, None)
    with pytest.raises(ProtocolViolated, match="not this contact's"):
        await voices.say(listed, third.id, begun.version, other.id, 3, {"type": "text", "text": "forged"})
    with pytest.raises(ProtocolViolated, match="cannot be sent"):
        await voices.say(listed, third.id, begun.version, third.id, 3, {"type": "hologram"})


async def test_a_run_that_somebody_has_overtaken_says_nothing_more(bench: Bench) -> None:
    event = bench.message("6", "wait")
    taken = asyncio.ensure_future(bench.take(event))
    await heard(bench, event.id, "one moment")
    (conversation,) = await rows(bench, "SELECT conversation_id FROM loquat.events WHERE id = $1", event.id)
    known = {"conversation_id": conversation, "number_id": "1", "addresses": [{"kind": "wa_id", "value": "6"}]}
    order = HoldOrdered.model_validate({**known, "holder": "person", "ordered_by": "anna"})
    await bench.take(Event[Payload].of(order, id=uuid4(), source="/gateway", time=now(), project=bench.project_id, lane="6"))
    await go(bench, event.id)
    assert isinstance(await taken, Done)
    assert texts(bench, event.id) == ["one moment"]
    assert await rows(bench, "SELECT outcome FROM loquat.events WHERE id = $1", event.id) == ["held"]
    observed, listed = bench.message("6"), bench.time.listed
    begun = await bench.inbox._runs.begin(listed, inbound(observed) or {}, None, observes=True)
    assert begun.todo == "observe"
    with pytest.raises(Unsaid, match="holds the conversation"):
        await bench.inbox._voices.say(listed, observed.id, begun.version, observed.id, 1, {"type": "text", "text": "psst"})


class Listening:
    """A voice that says nothing until it is let."""

    def __init__(self, *, loud: bool = True) -> None:
        self.said = 0
        self.heard: list[tuple[UUID, int, str]] = []
        self.let = asyncio.Event()
        if loud:
            self.let.set()

    async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        await self.let.wait()
        self.heard.append((answered, place, reply["text"]))
        self.said += 1

    async def typing(self) -> None:
        await self.let.wait()


def say(place: int = 1, answered: str = str(UUID(int=1)), reply: dict[str, Any] | None = None) -> protocol.Say:
    return protocol.Say(7, place, answered, reply or {"type": "text", "text": "hi"})


async def test_a_worker_that_says_what_the_sdk_would_not_say_is_found_out() -> None:
    flood = [say(n) for n in range(1, MOST_NOW + 2)]
    kinds = [
        {"type": "hologram"},
        {"type": "text", "text": "x" * 5000},
        {"type": "text", "text": "\0"},
        {"type": "image", "content": {"link": "x" * 70_000}},
    ]
    odd = [[say(reply=r)] for r in kinds]
    for frames in (flood, *odd, [say(), say()], [say(0)], [say(99)], [say(answered="me")], [protocol.Typing(7)] * 101):
        speech = Speech(7, Listening(), 50, lambda _: None)
        with pytest.raises(ProtocolViolated):
            for frame in frames:
                speech.heard(frame)
        speech.cancel()


async def test_a_call_that_is_over_waits_for_what_it_says_and_not_for_what_it_shows() -> None:
    told: list[protocol.Said] = []
    quiet = Listening(loud=False)
    speech = Speech(7, quiet, 1, told.append)
    speech.heard(protocol.Typing(7))
    speech.heard(say(1))
    speech.heard(say(2))
    over = asyncio.ensure_future(speech.over())
    await asyncio.sleep(0)
    assert not over.done()
    quiet.let.set()
    await over
    assert quiet.heard == [(UUID(int=1), 1, "hi")]
    assert [(s.place, s.kind) for s in told] == [(2, "refused"), (1, "said")], "the project may say one message in a call"


async def test_what_a_handler_says_all_at_once_is_said_in_its_order_one_after_the_other() -> None:
    begun: list[int] = []

    class Slow(Listening):
        async def say(self, answered: UUID, place: int, reply: dict[str, Any]) -> None:
            begun.append(place)
            await super().say(answered, place, reply)

    speech = Speech(7, voice := Slow(loud=False), 50, lambda _: None)
    for place in (2, 1, 3):
        speech.heard(say(place))
    await asyncio.sleep(0)
    assert begun == [2]
    voice.let.set()
    await speech.over()
    assert [place for _, place, _ in voice.heard] == [2, 1, 3]


HEAD = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n"


async def test_several_calls_speak_at_once_and_one_that_is_cancelled_takes_nobody_along(sandbox: Sandbox, bundles: Path) -> None:
    folder = bundles / "speaks"
    folder.mkdir()
    (folder / "bot.py").write_text(HEAD + "    await ctx.reply_now(ctx.event.text)\n    ctx.reply_text('said ' + ctx.event.text)\n")
    worker = await started(sandbox, folder, lambda _event, _level, _text: None)

    def call(text: str, voice: Listening | None, limit: float = 5.0) -> Any:
        one = str(UUID(int=1))
        fields: dict[str, Any] = {
            "contact": {"id": one},
            "conversation": {"id": one, "number_id": "1"},
            "state": "unstructured",
            "version": 0,
        }
        return worker.handled(limit, voice, event={"id": one, "type": "text", "text": text, "content": {}}, **fields)

    voices = [Listening() for _ in range(5)]
    nobody, stuck = asyncio.ensure_future(call("nobody", None)), asyncio.ensure_future(call("stuck", Listening(loud=False), 0.3))
    answers: list[protocol.Handled] = await asyncio.gather(*(call(f"{n}", v) for n, v in enumerate(voices)))
    assert [a.result["replies"][0]["text"] for a in answers] == [f"said {n}" for n in range(5)]
    assert [v.heard for v in voices] == [[(UUID(int=1), 1, f"{n}")] for n in range(5)]
    with pytest.raises(BotError, match="NotSaid: nobody is there"):
        await nobody
    with pytest.raises(TimedOut):
        await stuck
    assert (worker.dead, worker._speeches) == (False, {})
    await worker.kill()
