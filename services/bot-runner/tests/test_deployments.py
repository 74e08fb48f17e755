"""Deployments on a real project: pointers and their history, what speaks against one, canaries, test contacts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import datetime
from pathlib import Path
from typing import cast
from uuid import UUID

import pytest
from loquat_bot_runner.adapters.canaries import Canaries
from loquat_bot_runner.adapters.deployments import Publisher, Suspects
from loquat_bot_runner.domain.pointer import share_of
from loquat_bot_runner.domain.pointing import deployed
from loquat_bot_runner.errors import ProtocolViolated
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Dead, Done, Retry
from loquat_embedded.postgres import Cluster
from loquat_events.bots import BotDeployed, Canary
from loquat_events.catalog import DEPLOYMENTS
from loquat_events.elements import inbound
from loquat_events.envelope import AnyEvent
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import ANNA, Bench, bot, bundles_in, now, open_bench, pointed
from tests.system.world import until
from tests.tenants import Tenants

FAILING = {"bot.py": "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    raise KeyError('drawer')\n"}


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    return await shared.anew()


async def test_a_deployment_answers_at_once_and_a_rollback_goes_back_step_by_step(bench: Bench) -> None:
    for reply in ("one", "two", "three"):
        await bench.deploy(files=bot(reply), message=reply)
    said = [await bench.say()]
    for _ in range(2):
        await bench.heard(await bench.good("POST", "/rollback", {"message": "oh"}))
        said.append(await bench.say())
    assert said == [["three"], ["two"], ["one"]]
    await bench.bad("POST", "/rollback", {}, code="nothing_before")
    history = (await bench.good("GET", "/deployments"))["items"]
    assert [(d["kind"], d["message"], d["deployed_by"]) for d in history] == [
        *[("rollback", "oh", ANNA)] * 2,
        *[("deploy", m, ANNA) for m in ("three", "two", "one")],
    ]
    page = await bench.good("GET", "/deployments?limit=2")
    assert len((await bench.good("GET", f"/deployments?limit=9&cursor={page['next_cursor']}"))["items"]) == 3


async def test_everything_that_speaks_against_a_deployment_is_told_at_once_and_can_be_overruled(bench: Bench) -> None:
    ask = "\n@bot.state('paying')\nasync def pay(ctx):\n    ctx.reply_text('paid')\n"
    await bench.deploy(files=bot("one", ask))
    await bench.say()
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET state = 'paying'")
    editor = await bench.project.login("editor")
    await editor.execute("CREATE TABLE bookings (id serial PRIMARY KEY, guest text)")
    needs = "bot.needs('bookings', ['guest', 'room'])\nbot.needs('rooms')\n"
    version = await bench.save(bot("two", needs))
    refused = await bench.bad("POST", "/deployments", {"version": version}, code="deployment_refused")
    assert [r["code"] for r in refused["reasons"]] == ["states_missing", "column_missing", "table_missing"]
    assert refused["reasons"][0]["states"] == [{"state": "paying", "conversations": 1}]
    assert (refused["reasons"][1]["table"], refused["reasons"][1]["columns"]) == ("bookings", ["room"])
    assert await bench.say() == ["paid"], "the deployed version answers as before"
    forced = await bench.deploy(version=version, force=True)
    assert forced["forced"] == ["states_missing", "column_missing", "table_missing"]
    await editor.execute("ALTER TABLE bookings ADD room text; CREATE TABLE rooms (id int)")
    await (await bench.project.root()).execute("UPDATE public.conversations SET state = 'unstructured'")
    assert (await bench.deploy(version=version))["forced"] == []


async def test_a_version_that_does_not_load_is_refused_with_its_own_frames_and_leaves_no_process(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    broken = {"bot.py": "import helper\n" + bot("two")["bot.py"], "helper.py": "def f():\n    raise KeyError('x')\n\nf()\n"}
    refused = await bench.bad("POST", "/deployments", {"files": broken}, code="deployment_refused")
    (reason,) = refused["reasons"]
    assert reason["code"] == "does_not_load"
    assert "helper.py" in reason["trace"]
    assert "loquat" not in reason["trace"]
    assert "bot lock" not in reason["advice"]
    refused = await bench.bad("POST", "/deployments", {"files": bot("two", "import nothing_of_the_kind\n")}, code="deployment_refused")
    assert "requirements.txt and write requirements.lock with `loquat bot lock`" in refused["reasons"][0]["advice"]
    assert await bench.say() == ["one"]


async def test_states_are_listed_declared_and_in_use_with_the_unknown_ones_marked(bench: Bench) -> None:
    await bench.deploy(files=bot("one", "\n@bot.state('paying')\nasync def pay(ctx): ...\n"))
    for contact in ("1", "2", "3"):
        await bench.say(contact)
    assert bench.project is not None
    root = await bench.project.root()
    await root.execute("UPDATE public.conversations SET state = 'lost' WHERE id IN (SELECT id FROM public.conversations LIMIT 2)")
    found = await bench.good("GET", "/states")
    assert [(s["state"], s["declared"], s["conversations"]) for s in found["items"]] == [
        ("lost", False, 2),
        ("paying", True, 0),
        ("unstructured", True, 1),
    ]
    assert found["unknown"] == ["lost"]


async def test_tools_are_told_of_what_is_deployed_of_a_version_and_of_the_draft(bench: Bench) -> None:
    tool = "\n@bot.tool\nasync def {}(ctx, day: str):\n    'Free tables.'\n"
    await bench.bad("GET", "/tools", code="nothing_deployed")
    await bench.deploy(files=bot("one", tool.format("look_up")))
    found = (await bench.good("GET", "/tools"))["items"]
    assert [(t["name"], t["description"], t["parameters"]["properties"]) for t in found] == [
        ("look_up", "Free tables.", {"day": {"type": "string"}})
    ]
    older = await bench.save(bot("two"))
    assert (await bench.good("GET", f"/tools?version={older}")) == {"version": older, "items": []}
    await bench.bad("GET", f"/tools?version={'0' * 64}", code="not_found")
    draft = await bench.good("PUT", "/files", {"files": bot("three", tool.format("book"))})
    told = await bench.good("GET", "/tools?version=draft")
    assert (told["version"], [t["name"] for t in told["items"]]) == (draft["etag"], ["book"])
    await bench.good("PUT", "/files", {"files": {"bot.py": "x = = 1\n"}}, If_Match="*")
    assert "bot.py, line 1" in (await bench.bad("GET", "/tools?version=draft", code="does_not_load"))["detail"]


async def contacts_of(bench: Bench, percent: int, version: str) -> tuple[str, str]:
    """A contact that the canary will take, and one that it will not; both have written once and have no open conversation."""
    assert bench.project is not None
    root, inside, outside = await bench.project.root(), "", ""
    for n in range(100, 200):
        event = bench.message(str(n))
        await bench.take(event)
        contact = await root.fetchval(
            "SELECT c.contact_id FROM loquat.events AS e JOIN public.conversations AS c ON c.id = e.conversation_id WHERE e.id = $1",
            event.id,
        )
        taken = share_of(Canary(version=version, steps=()), contact) < percent
        inside, outside = (str(n) if taken else inside), (outside if taken else str(n))
        if inside and outside:
            break
    await root.execute("UPDATE public.conversations SET status = 'closed'")
    return inside, outside


async def settle(bench: Bench) -> None:
    """As if conversations that are open now had been opened when every replica knew of the canary."""
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET opened_at = now() + interval '10 s' WHERE status = 'open'")


async def test_a_canary_takes_its_contacts_new_conversations_and_nobody_changes_in_the_middle_of_one(bench: Bench) -> None:
    await bench.deploy(files=bot("old"))
    version = await bench.save(bot("new"))
    inside, outside = await contacts_of(bench, 50, version)
    assert await bench.say(inside) == ["old"], "opens a conversation before the canary"
    made = await bench.deploy(version=version, canary=50)
    assert (made["kind"], made["canary"]["percent"], made["version"] != version) == ("canary", 50, True)
    assert await bench.say(inside) == ["old"], "pinned to what it began with"
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET status = 'closed'")
    assert [await bench.say(inside), await bench.say(outside)] == [["old"], ["old"]], "opened while a replica may not know of the canary"
    await settle(bench)
    assert [await bench.say(inside), await bench.say(outside)] == [["new"], ["old"]]
    await bench.heard(await bench.good("POST", "/canary/promote", {}))
    assert [await bench.say(inside), await bench.say(outside)] == [["new"], ["new"]]
    await bench.heard(await bench.good("POST", "/rollback", {}))
    assert [await bench.say(inside), await bench.say(outside)] == [["old"], ["old"]]


async def test_a_message_that_is_tried_again_is_the_same_versions_though_the_percentage_fell_meanwhile(bench: Bench) -> None:
    await bench.deploy(files=bot("old"))
    version = await bench.save(FAILING)
    inside, _ = await contacts_of(bench, 50, version)
    began = (await bench.deploy(version=version, canary=50))["canary"]["steps"][0]["since"]
    assert await bench.say(inside) == ["old"], "it opens the conversation while a replica may not know of the canary"
    assert bench.project is not None
    root = await bench.project.root()
    await root.execute("UPDATE public.conversations SET opened_at = $1 WHERE status = 'open'", datetime.fromisoformat(began))
    again = bench.message(inside)
    await bench.take(again)
    await bench.deploy(version=version, canary=1)
    await bench.take(again, attempts=1)
    tried = await bench.runs(event=again.id)
    assert [(r["version"], r["attempt"], r["outcome"]) for r in tried] == [(version, 2, "BotError"), (version, 1, "BotError")]


async def test_a_canary_is_promoted_only_if_it_fits_the_conversations_that_become_its(bench: Bench) -> None:
    await bench.deploy(files=bot("old", "\n@bot.state('paying')\nasync def pay(ctx):\n    ctx.reply_text('paid')\n"))
    await bench.say()
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE public.conversations SET state = 'paying'")
    await bench.bad("POST", "/canary/promote", {}, code="no_canary")
    await bench.bad("POST", "/deployments", {"files": bot("new"), "canary": 10, "open": True}, code="deployment_refused")
    await bench.deploy(files=bot("new"), canary=10)
    refused = await bench.bad("POST", "/canary/promote", {}, code="deployment_refused")
    assert [r["code"] for r in refused["reasons"]] == ["states_missing"]
    assert await bench.say() == ["paid"]
    made = await bench.good("POST", "/canary/promote", {"force": True, "message": "all of it"})
    assert (made["kind"], made["forced"], made["canary"]) == ("promote", ["states_missing"], None)
    await bench.heard(made)
    assert await bench.say() == ["new"], "what the version does not know goes to its fallback"
    await bench.heard(await bench.good("POST", "/rollback", {}))
    assert await bench.say() == ["paid"]


async def test_a_canary_that_fails_is_stopped_by_itself_and_the_history_says_why(bench: Bench) -> None:
    await bench.deploy(files=bot("old"))
    version = await bench.save(FAILING)
    await bench.deploy(version=version, canary=99, open=True)
    events = [bench.message(str(n)) for n in range(4)]
    for event in events:
        await bench.take(event)

    async def stopped() -> bool:
        return pointed(bench).canary is None

    await until(stopped, "the canary is stopped", 10)
    last = (await bench.good("GET", "/deployments"))["items"][0]
    assert (last["kind"], last["deployed_by"], last["canary"]) == ("stop", "loquat", None)
    assert "events failed (100%)" in last["message"]
    for event in events:
        await bench.take(event, attempts=1)
    assert [bench.answers(e.id) for e in events] == [["old"]] * 4, "tried again, they are answered by the stable version"


async def test_a_canary_that_does_not_start_is_stopped_at_once_and_blocks_nobody(bench: Bench) -> None:
    await bench.deploy(files=bot("old"))
    broken = {"bot.py": "raise SystemExit(0)\n"}
    await bench.deploy(files=broken, canary=99, open=True, force=True)
    event = bench.message("1")
    await bench.take(event)

    async def stopped() -> bool:
        return pointed(bench).canary is None

    await until(stopped, "the canary is stopped", 10)
    await bench.take(event, attempts=1)
    assert bench.answers(event.id) == ["old"]


async def test_what_failed_before_a_canary_was_replaced_is_not_held_against_the_next(bench: Bench) -> None:
    await bench.deploy(files=bot("old"))
    first, second = [(await bench.deploy(files=bot(reply), canary=10))["canary"]["version"] for reply in ("one", "two")]
    bus = MemoryBus("bot-runner", bench.broker)
    canaries = Canaries(bench.pool, bench.pointers, Publisher(bus, bench.pointers, now), Suspects())
    assert not await canaries.look(bench.project_id, first, "it does not start")
    assert (await bench.good("GET", ""))["deployment"]["canary"]["version"] == second
    assert await canaries.look(bench.project_id, second, "it does not start")


@pytest.mark.promise("P4")
async def test_an_error_with_a_nul_character_and_a_result_that_no_database_takes_are_the_bots_fault(bench: Bench) -> None:
    await bench.deploy(files={"bot.py": FAILING["bot.py"].replace("KeyError('drawer')", "ValueError('a\\0b')")})
    event = bench.message()
    assert isinstance(await bench.take(event), Retry)
    assert isinstance(await bench.take(event, attempts=2), Dead)
    assert {r["error"] for r in await bench.runs(event=event.id)} == {"ValueError: ab"}
    other, listed = bench.message("50"), bench.time.listed
    runs, element = bench.inbox._runs, inbound(other)
    assert element is not None
    begun = await runs.begin(listed, element, None)
    for state in ("a\0b", "x" * 61):
        with pytest.raises(ProtocolViolated):
            await runs.commit(listed, other.id, begun.version, {"replies": (), "state": state})


async def test_a_test_contact_gets_a_version_of_its_own_or_whatever_the_draft_holds(bench: Bench) -> None:
    await bench.deploy(files=bot("stable"))
    other = await bench.save(bot("other"))
    ids = dict[str, UUID]()
    assert bench.project is not None
    root = await bench.project.root()
    for phone in ("1", "2", "3"):
        await bench.say(phone)
        ids[phone] = await root.fetchval("SELECT contact_id FROM loquat.addresses WHERE value = $1", phone)
    made = await bench.good("PUT", "/testers", {"testers": {str(ids["1"]): other, str(ids["2"]): "draft"}})
    await bench.heard(made)
    draft = (await bench.good("PUT", "/files", {"files": bot("draft")}))["etag"]
    assert [await bench.say(p) for p in ("1", "2", "3")] == [["other"], ["draft"], ["stable"]]
    assert draft not in [v["version"] for v in (await bench.good("GET", "/versions"))["items"]], "nobody saved it"
    await bench.good("PUT", "/files", {"files": bot("draft, further")}, If_Match=draft)
    assert await bench.say("2") == ["draft, further"]
    await bench.good("PUT", "/files", {"files": {"bot.py": "x = = 1\n"}}, If_Match=(await bench.good("GET", "/files"))["etag"])
    assert await bench.say("2") == []
    assert (await bench.runs(outcome="failed"))[0]["error"] == "the draft is no bot: bot.py, line 1: invalid syntax"
    assert await bench.say("3") == ["stable"], "what is wrong with a draft is wrong for its test contacts alone"


@pytest.mark.promise("P1")
@pytest.mark.promise("P3")
async def test_no_message_is_dropped_or_answered_twice_while_versions_are_deployed(bench: Bench) -> None:
    slow = "\n@bot.text('slow')\nasync def slowly(ctx):\n    import asyncio\n    await asyncio.sleep(0.5)\n    ctx.reply_text('slow')\n"
    await bench.deploy(files=bot("0", slow))
    events = {str(c): [bench.message(str(c), "slow" if n % 3 == 0 else "hi") for n in range(6)] for c in range(6)}

    async def lane(contact: str) -> None:
        for event in events[contact]:
            assert isinstance(await bench.take(event), Done)

    async def deploying() -> None:
        for n in range(1, 5):
            made = await bench.good("POST", "/deployments" if n != 3 else "/rollback", {"files": bot(str(n), slow)} if n != 3 else {})
            await bench.heard(made)

    await asyncio.gather(deploying(), *(lane(c) for c in events))
    answered = [bench.answers(e.id) for sent in events.values() for e in sent]
    assert all(len(a) == 1 for a in answered)
    assert len(answered) == 36
    assert bench.project is not None
    marks = await (await bench.project.root()).fetch("SELECT outcome, count(*) AS n FROM loquat.events GROUP BY outcome")
    assert [(m["outcome"], m["n"]) for m in marks] == [("handled", 36)]
    assert {r["outcome"] for r in await bench.runs(limit=200)} == {"handled"}
    assert len({r["version"] for r in await bench.runs(limit=200)}) > 1


class Held:
    """A bus whose publisher is stopped before its first word."""

    def __init__(self, bus: MemoryBus) -> None:
        self._bus, self.begun, self.go = bus, asyncio.Event(), asyncio.Event()

    async def publish(self, event: AnyEvent) -> None:
        self.begun.set()
        await self.go.wait()
        await self._bus.publish(event)


async def test_of_two_replicas_that_deploy_the_slower_one_does_not_leave_its_older_word_on_the_bus(bench: Bench) -> None:
    first, second = [await bench.save(bot(reply)) for reply in ("one", "two")]
    bus = MemoryBus("bot-runner", bench.broker)
    held = Held(bus)
    slower, quicker = Publisher(cast("MemoryBus", held), bench.pointers, now), Publisher(bus, bench.pointers, now)
    before = len(bench.broker.events(DEPLOYMENTS))
    await bench.pointers.move(bench.project_id, "deploy", lambda at, _: deployed(at, first), by="one", message="")
    telling = asyncio.create_task(slower.publish(bench.project_id))
    await held.begun.wait()
    await bench.pointers.move(bench.project_id, "deploy", lambda at, _: deployed(at, second), by="another", message="")
    await quicker.publish(bench.project_id)
    held.go.set()
    await telling
    told = [e.data.version for e in bench.broker.events(DEPLOYMENTS)[before:] if isinstance(e.data, BotDeployed)]
    assert told == [second, first, second]
    assert await bench.pointers.unpublished() == []


@pytest.mark.promise("P1")
async def test_a_deployment_that_a_crash_left_untold_is_told_by_the_next_runner(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    version = await bench.save(bot("two"))
    await bench.pointers.move(bench.project_id, "deploy", lambda now, _at: deployed(now, version), by="a runner that died", message="")
    assert await bench.say() == ["one"]
    telling = asyncio.create_task(Publisher(MemoryBus("bot-runner", bench.broker), bench.pointers, now).run())

    async def told() -> bool:
        return pointed(bench).version == version

    await until(told, "the next runner has told it", 5)
    telling.cancel()
    assert await bench.say() == ["two"]


async def test_one_deployment_of_a_project_is_checked_at_a_time(bench: Bench) -> None:
    slow = {"bot.py": "import time\ntime.sleep(0.5)\n" + bot("x")["bot.py"]}
    asked = await asyncio.gather(*(bench.ask("POST", "/deployments", {"files": slow}) for _ in range(3)))
    assert sorted(status for status, _ in asked) == [201, 429, 429]


async def test_a_paused_bot_hears_nothing_stays_paused_when_it_is_deployed_and_does_not_answer_the_backlog(bench: Bench) -> None:
    await bench.bad("POST", "/pause", {}, code="nothing_deployed")
    await bench.deploy(files=bot("one"))
    assert await bench.say() == ["one"]
    paused = await bench.good("POST", "/pause", {"message": "holidays"})
    await bench.heard(paused)
    waiting = bench.message()
    await bench.take(waiting)
    assert (paused["kind"], paused["paused"], bench.answers(waiting.id)) == ("pause", True, [])
    deployed = await bench.deploy(files=bot("two"))
    status = await bench.good("GET", "")
    assert (deployed["paused"], status["paused"], status["deployment"]["version"]) == (True, True, deployed["version"])
    assert await bench.say() == []
    await bench.bad("POST", "/pause", {}, code="paused_already")
    await bench.heard(await bench.good("POST", "/resume", {}))
    await bench.bad("POST", "/resume", {}, code="not_paused")
    await bench.take(waiting)
    assert (await bench.say(), bench.answers(waiting.id)) == (["two"], [])
    assert bench.project is not None
    rows = await (await bench.project.root()).fetch("SELECT outcome FROM loquat.events ORDER BY recorded_at")
    assert [r["outcome"] for r in rows] == ["handled", "held", "held", "handled"]
