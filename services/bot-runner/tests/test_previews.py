"""Bots tried out with a simulated contact: on a clone as if it were live, in the live database where that is asked; told to nobody."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from uuid import UUID, uuid4

import pytest
from aiohttp.test_utils import TestClient, TestServer
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.clones import Clone, Clones, StagedCredentials
from loquat_bot_runner.adapters.credentials import Login
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.singles import Singles
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.limits import BotLimits
from loquat_bot_runner.domain.preview import BEGUN, Act, Asked, Seen, address
from loquat_bot_runner.handlers.previewing import Previews
from loquat_bot_runner.handlers.rehearsal import Rehearsal
from loquat_bot_runner.http.people import PeopleApi, Person
from loquat_bot_runner.http.preview import PreviewApi
from loquat_common.db import DatabaseAway
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api
from loquat_common.problems import Problem
from loquat_connector.domain.graph import Unsendable, recipient
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import INBOX, OUTBOX
from loquat_events.conversations import MessageQueued
from loquat_events.projects import ProjectListed
from loquat_provisioner.adapters import throwaway
from loquat_provisioner.adapters.previews import Preview
from loquat_provisioner.adapters.store import Project as Row
from loquat_provisioner.domain.life import Names
from loquat_rest.operation import OneProject
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, _as, bot, bundles_in, now, open_bench
from tests.bots import housing
from tests.tenants import PASSWORD, Tenants

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

SHOP = """
import asyncio, os
from datetime import timedelta

@bot.fallback
async def what(ctx):
    ctx.reply_text('what?')

@bot.text('order')
async def order(ctx):
    await ctx.db.execute("INSERT INTO orders VALUES ('tea')")
    count = await ctx.memory.increment('orders')
    await ctx.timers.set('remind', after=timedelta(hours=2))
    await ctx.contact.set(attributes={'vip': True})
    ctx.log.info('ordering')
    ctx.reply_text(f'{ctx.contact.name}: {count}')
    ctx.goto('asked')

@bot.button('yes')
async def yes(ctx):
    n = await ctx.db.fetchval('SELECT count(*) FROM orders')
    ctx.reply_text(f'{ctx.state} {n} {ctx.contact.attributes.get("vip")} {ctx.contact.language}')
    ctx.end()

@bot.text('fail')
async def fail(ctx):
    await ctx.db.execute("INSERT INTO orders VALUES ('never')")
    raise KeyError('drawer')

@bot.text('spin')
async def spin(ctx):
    while True: pass

@bot.text('die')
async def die(ctx):
    os._exit(3)

@bot.text('late')
async def late(ctx):
    from loquat.database import Database
    commit = Database.commit

    async def dying(self, *arguments):
        await commit(self, *arguments)
        os._exit(3)

    Database.commit = dying
    await ctx.db.execute("INSERT INTO orders VALUES ('late')")
    ctx.reply_text('taken')

@bot.text('slow')
async def slow(ctx):
    await asyncio.sleep(0.3)
    await ctx.reply_now('at once')
    await ctx.typing()
    ctx.reply_text('later')
    await ctx.handoff(note='please')

@bot.text('tell')
async def tell(ctx):
    ctx.log.warning(ctx.secrets['key'])
    ctx.reply_text(ctx.secrets['key'])
"""


class Attic(Clones):
    """Real clones, made by the provisioner's own code without its service."""

    def __init__(self, tenants: Tenants) -> None:
        self._tenants, self.made = tenants, dict[UUID, Clone]()

    async def make(self, project: ProjectListed, preview: UUID) -> Clone:
        names, at = Names.fresh(), now()
        row = Row(project.project_id, "o", "p", "ready", "tenants", project.database, project.epoch, None, at, at, None, None, None)
        copy = Preview(preview, project.project_id, "tenants", names.database, project.epoch + 1, "making", at, at, b"")
        await throwaway.make(self._tenants.databases, row, copy, PASSWORD, 64 << 20, Failpoints(None))
        server = self._tenants.cluster
        login = Login(server.host, server.port, names.database, names.login("bot"), PASSWORD)
        place = {"database": names.database, "epoch": project.epoch + 1}
        self.made[preview] = Clone(project.model_copy(update=place), login, at + timedelta(minutes=15))
        return self.made[preview]

    async def use(self, project: ProjectListed, preview: UUID) -> Clone:
        del project
        if preview not in self.made:
            raise Problem(404, "preview_gone", "The preview is gone")
        return self.made[preview]

    async def drop(self, project: str, preview: UUID) -> None:
        del project
        await self._tenants.databases.drop(Names(self.made.pop(preview).login.database))

    async def drop_all(self, project: str) -> None:
        for preview in list(self.made):
            await self.drop(project, preview)


@dataclass(slots=True)
class Stage:
    """The bench of one project, and previews beside it."""

    bench: Bench
    attic: Attic
    rehearsal: Rehearsal
    client: TestClient[Any, Any]
    open: list[Connection] = field(default_factory=list["Connection"])
    before: frozenset[UUID] = frozenset()

    async def ask(self, text: str | None = None, **body: Any) -> tuple[int, dict[str, Any]]:
        path = f"/internal/projects/{self.bench.project_id}/bot/preview"
        async with self.client.post(path, json={**({"message": {"text": text}} if text is not None else {}), **body}) as response:
            return response.status, await response.json()

    async def step(self, text: str | None = None, **body: Any) -> dict[str, Any]:
        status, seen = await self.ask(text, **body)
        assert status == 200, seen
        return seen

    async def refused(self, code: str, text: str | None = None, **body: Any) -> None:
        status, problem = await self.ask(text, **body)
        assert (status >= 400, problem["code"]) == (True, code)

    async def live(self) -> Connection:
        assert self.bench.project is not None
        return await self.bench.project.root()

    async def clone(self, seen: dict[str, Any]) -> Connection:
        key = UUID(seen["preview_id"].removeprefix("clone_"))
        self.open.append(
            await self.attic._tenants.connect(self.attic.made[key].login.database, "postgres", self.attic._tenants.cluster.password)
        )
        return self.open[-1]

    async def shop(self) -> None:
        await self.bench.deploy(files=bot("what?", SHOP))
        assert self.bench.project is not None
        editor = await self.bench.project.login("editor")
        await editor.execute("CREATE TABLE orders (what text)")

    async def told(self) -> list[Any]:
        """Everything that left the runner of conversations since the test began, and that will by itself."""
        said = [e for topic in (OUTBOX, INBOX) for e in self.bench.broker.events(topic) if e.projectid == self.bench.project_id]
        return [*(e for e in said if e.id not in self.before), *await self.bench.pool.fetch("SELECT * FROM due")]


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Stage]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as bench,
    ):
        attic, credentials = Attic(tenants), StagedCredentials(cast("Any", None))
        assert bench.project is not None
        server = tenants.cluster
        own = Login(server.host, server.port, bench.project.database, bench.project.names.login("bot"), PASSWORD)
        credentials._known[bench.project_id, 1] = own

        async def limits(_project: str) -> BotLimits:
            return BotLimits(processor_seconds=0.3)

        house = housing(measured.sandbox, own, limits)
        house._credentials = credentials
        singles = Singles(Bundles(bench.store, bundles_in(clusters_home)), house.beside(Room()))
        secrets = bench.inbox._secrets
        rehearsal = Rehearsal(cast("Any", bench.inbox._runs), singles, secrets, Failpoints(bench.time.failpoints), now)
        previews = Previews(rehearsal, attic, credentials, secrets.redacted)
        api = Api("Previews", "1", authenticate=_as("user"))
        PreviewApi(previews, Versions(bench.pool), bench.pointers, bench.store, bench.time.directory).add_to(api)
        async with TestClient(TestServer(api.app())) as client:
            yield Stage(bench, attic, rehearsal, client)


@pytest.fixture
async def stage(shared: Stage) -> AsyncGenerator[Stage]:
    await shared.bench.anew()
    shared.before = frozenset(e.id for topic in (OUTBOX, INBOX) for e in shared.bench.broker.events(topic))
    yield shared
    while shared.open:
        await shared.open.pop().close(timeout=5)
    for preview in list(shared.attic.made):
        await shared.attic.drop("", preview)


@pytest.mark.promise("P4")
async def test_on_a_clone_all_is_as_if_it_were_live_and_nobody_is_told(stage: Stage) -> None:
    await stage.shop()
    contact = {"name": "Ada", "language": "de", "attributes": {"city": "Ulm"}}
    seen = await stage.step("order", contact=contact)
    assert (seen["database"], seen["outcome"], seen["error"]) == ("clone", "handled", None)
    assert [r["text"] for r in seen["replies"]] == ["Ada: 1"]
    assert (seen["state_before"], seen["state"], seen["ended"], seen["holder"]) == ("unstructured", "asked", False, "bot")
    assert ([t["name"] for t in seen["timers"]], seen["noted"], seen["touched"]) == (
        ["remind"],
        {"attributes": {"vip": True}},
        {"orders": 1},
    )
    assert (seen["queries"], seen["log"], seen["duration_ms"] > 0) == (2, [{"level": "info", "line": "ordering"}], True)
    again = await stage.step(preview_id=seen["preview_id"], message={"button": "yes"})
    assert ([r["text"] for r in again["replies"]], again["ended"], again["contact_id"]) == (["asked 1 True de"], True, seen["contact_id"])
    clone, live = await stage.clone(seen), await stage.live()
    assert await clone.fetchval("SELECT count(*) FROM public.orders") == 1
    assert await clone.fetchval("SELECT count(*) FROM loquat.outbox") == 0
    assert await clone.fetchval("SELECT count(*) FROM loquat.events WHERE outcome IS NULL") == 0
    for table in ("public.orders", "public.contacts", "public.messages", "loquat.events", "loquat.timers", "loquat.bot_memories"):
        assert await live.fetchval(f"SELECT count(*) FROM {table}") == 0, table  # noqa: S608
    assert (await stage.told(), await stage.bench.runs()) == ([], [])
    await stage.open.pop().close()
    async with stage.client.delete(f"/internal/projects/{stage.bench.project_id}/bot/preview/{seen['preview_id']}") as response:
        assert response.status == 204
    await stage.refused("preview_gone", "order", preview_id=seen["preview_id"])


async def test_a_live_bot_whose_connections_at_rest_were_ended_for_a_copy_answers_the_next_message(stage: Stage) -> None:
    await stage.shop()
    assert (await stage.bench.say("49", "order"))[0].endswith(": 1")
    assert [r["text"] for r in (await stage.step("order"))["replies"]] == ["Preview: 2"]
    assert (await stage.bench.say("49", "order"))[0].endswith(": 2")


async def test_the_draft_another_version_and_the_deployed_one_are_tried_and_a_live_bot_goes_on(stage: Stage) -> None:
    await stage.refused("no_version", "hi")
    await stage.bench.deploy(files=bot("deployed"))
    assert await stage.bench.say("49") == ["deployed"]
    older = await stage.bench.save(bot("older"))
    first = await stage.step("hi")
    assert [r["text"] for r in first["replies"]] == ["deployed"]
    going = {"preview_id": first["preview_id"]}
    assert [r["text"] for r in (await stage.step("hi", version=older, **going))["replies"]] == ["older"]
    etag = (await stage.bench.good("GET", "/files"))["etag"]
    await stage.bench.good("PUT", "/files", {"files": bot("drafted")}, If_Match=f'"{etag}"')
    assert [r["text"] for r in (await stage.step("hi", draft=True, **going))["replies"]] == ["drafted"]
    assert (await stage.bench.good("GET", "/versions?limit=1"))["items"][0]["version"] == older, "nothing was saved"
    workers = cast("Any", stage.bench.inbox._bots)._workers
    assert len(workers) == 1, "a preview's worker is not among those that answer contacts"
    assert await stage.bench.say("49") == ["deployed"]
    await stage.refused("not_found", "hi", version="0" * 64)
    await stage.refused("invalid_request", "hi", draft=True, version=older)
    await stage.refused("invalid_request", database="live", message={"text": "hi"}, **going)
    await stage.refused("invalid_request", "hi", contact={"attributes": {"n": [-(1 << 63) - 1]}})
    await stage.refused("invalid_request", message={"type": "order", "content": {"n": 1 << 64}})


async def test_what_a_bot_does_wrong_is_in_the_answer_and_ends_its_own_step_alone(stage: Stage) -> None:
    await stage.shop()
    failed = await stage.step("fail")
    going = {"preview_id": failed["preview_id"]}
    assert (failed["outcome"], failed["error"], failed["needs_attention"]) == ("BotError", "KeyError: 'drawer'", True)
    assert 'File "bot.py", line' in failed["trace"]
    assert "worker" not in failed["trace"]
    assert await (await stage.clone(failed)).fetchval("SELECT count(*) FROM public.orders") == 0
    spun, died = await stage.step("spin", **going), await stage.step("die", **going)
    assert (spun["outcome"], died["outcome"]) == ("TimedOut", "BotError")
    late = await stage.step("late", **going)
    assert ([r["text"] for r in late["replies"]], late["outcome"]) == (["taken"], "handled"), "it died behind its own commit"
    slow, busy = await asyncio.gather(stage.ask("slow", **going), stage.ask("order", **going))
    assert sorted([slow[0], busy[0]]) == [200, 429]
    assert ([r["text"] for r in slow[1]["replies"]], slow[1]["holder"]) == (["at once", "later"], "people")
    assert (await stage.step("order", **going))["outcome"] == "held"
    broken = await stage.bench.save({"bot.py": "from loquat import Bot\nbot = Bot()\n1 / 0\n"})
    unloaded = await stage.step("hi", version=broken, **going)
    assert (unloaded["outcome"], unloaded["contact_id"], "ZeroDivisionError" in unloaded["trace"]) == ("DoesNotStart", None, True)
    assert unloaded["replies"] == []


async def test_whoever_is_forgotten_is_in_no_copy_of_his_project_any_more(stage: Stage) -> None:
    await stage.shop()
    await stage.bench.say("49", "hi")
    seen = await stage.step("hi")
    contact = await (await stage.live()).fetchval("SELECT id FROM public.contacts")
    people = PeopleApi(stage.bench.store, cast("Any", stage.bench.inbox._runs), stage.bench.time.directory, stage.attic.drop_all)
    await people.forget(cast("Any", None), path=OneProject(project_id=stage.bench.project_id), body=Person(contact_id=contact))
    await stage.refused("preview_gone", "hi", preview_id=seen["preview_id"])


@pytest.mark.promise("P4")
async def test_a_project_whose_steps_last_has_one_turn_and_another_project_gets_its_own() -> None:
    begun, over = list[str](), asyncio.Event()

    class Lasting:
        async def of(self, stage: ProjectListed, *_: Any) -> Seen:
            begun.append(stage.project_id)
            await over.wait()
            return Seen()

    previews = Previews(cast("Any", Lasting()), cast("Any", None), cast("Any", None), lambda _project, text: text, most=2)
    projects = [ProjectListed(project_id=name, organization_id="o", name="p", state="creating") for name in "aab"]
    steps = [asyncio.create_task(previews.step(p, Asked("live", uuid4(), False, "0", Act("text")))) for p in projects]
    for _ in range(20):
        await asyncio.sleep(0)
    assert begun == ["a", "b"]
    over.set()
    await asyncio.gather(*steps)
    assert begun == ["a", "b", "a"]


@pytest.mark.promise("P8")
async def test_secrets_are_the_projects_own_as_they_are_now_and_do_not_leave(stage: Stage) -> None:
    await stage.shop()
    await stage.bench.good("PUT", "/secrets/key", {"value": "first-secret-value"})
    seen = await stage.step("tell")
    await stage.bench.good("PUT", "/secrets/key", {"value": "second-secret-value"})
    again = await stage.step("tell", preview_id=seen["preview_id"])
    for one in (seen, again):
        assert "secret-value" not in str(one)
        assert "key" in one["replies"][0]["text"]


@pytest.mark.promise("P2")
async def test_in_the_live_database_it_is_true_for_a_contact_who_is_seen_to_be_simulated_and_can_be_erased(stage: Stage) -> None:
    await stage.shop()
    seen = await stage.step("order", database="live", contact={"attributes": {"city": "Ulm"}})
    assert (seen["database"], seen["touched"], [t["name"] for t in seen["timers"]]) == ("live", {"orders": 1}, ["remind"])
    live, contact = await stage.live(), UUID(seen["contact_id"])
    noted = await live.fetchrow("SELECT name, attributes FROM public.contacts WHERE id = $1", contact)
    assert tuple(noted or ()) == ("Preview", {"city": "Ulm", "vip": True, "preview": seen["preview_id"]})
    assert [r["text"] for r in await live.fetch("SELECT text FROM public.messages ORDER BY sent_at")] == [BEGUN, "order", "Preview: 1"]
    assert await live.fetchval("SELECT array_agg(armed) FROM loquat.timers") == [True], "no later event tells the index of it"
    await stage.refused("invalid_request", "hi", preview_id=seen["preview_id"], database="clone")
    async with stage.client.delete(f"/internal/projects/{stage.bench.project_id}/bot/preview/{seen['preview_id']}") as response:
        assert (response.status, (await response.json())["code"]) == (409, "live_preview")
    assert await stage.told() == []
    assert stage.bench.project is not None
    log = await stage.bench.project.service("conversation-log")
    while await log.fetchval("SELECT more FROM loquat.erase_contact($1, 1000)", contact):
        pass
    assert await live.fetchval("SELECT count(*) FROM public.messages WHERE text IS NOT NULL") == 0


class Dead:
    """Runs of a process that ends at a point: from then on nothing of it reaches the database."""

    def __init__(self, runs: Any, point: Path) -> None:
        self._runs, self._point = runs, point

    def __getattr__(self, name: str) -> Any:
        if not self._point.exists():
            raise DatabaseAway("the runner is dead")
        return getattr(self._runs, name)


@pytest.mark.promise("P2")
async def test_a_runner_that_dies_in_a_live_step_sends_nothing_ever_and_the_preview_goes_on(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.shop()
    seen = await stage.step("hi", database="live")
    going = {"preview_id": seen["preview_id"]}
    for point, left in (("begun", []), ("handled", ["Preview: 1"]), ("committed", [])):
        stage.bench.time.fail(f"bot_runner.preview.{point}")
        monkeypatch.setattr(
            stage.rehearsal, "_runs", Dead(stage.rehearsal._runs, stage.bench.time.failpoints / f"bot_runner.preview.{point}")
        )
        assert (await stage.ask("order", **going))[0] >= 500
        monkeypatch.undo()
        assert [r["text"] for r in (await stage.step("hi", **going))["replies"]] == [*left, "what?"]
    live = await stage.live()
    assert await live.fetchval("SELECT count(*) FROM public.orders") == 2
    (row,) = await live.fetchval("SELECT loquat.outbox_of(event_id) FROM loquat.outbox")
    assert row["addresses"] == [address(UUID(seen["preview_id"].removeprefix("live_"))).model_dump()]
    with pytest.raises(Unsendable):
        recipient(MessageQueued.model_validate({**row, "cause": row["event_id"], "message": row["body"]}).addresses)
    assert await stage.bench.say("49", "hi") == ["what?"]
    assert [e.lane for e in stage.bench.broker.events(OUTBOX) if e.id not in stage.before] == ["49"]
