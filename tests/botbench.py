"""bot-runner in one test process: its real API, rows, workers and handler on a real project database; the bus is in memory."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, cast
from uuid import UUID, uuid4

from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.automations import Automations
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.canaries import Canaries
from loquat_bot_runner.adapters.configurations import Configurations
from loquat_bot_runner.adapters.deployments import Deployed, Publisher
from loquat_bot_runner.adapters.drafts import Drafts
from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.housing import Housing
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.syncing import Syncing
from loquat_bot_runner.adapters.usage import Usage
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.handlers.inbox import Inbox
from loquat_bot_runner.handlers.timed import Timed
from loquat_bot_runner.handlers.timers import Firing
from loquat_bot_runner.http.api import BotApi
from loquat_bot_runner.http.deployments import DeploymentsApi
from loquat_bot_runner.http.files import FilesApi
from loquat_bot_runner.http.runs import RunsApi
from loquat_bot_runner.http.schedules import SchedulesApi
from loquat_bot_runner.http.settings import SettingsApi
from loquat_bot_runner.http.shelf import Shelf
from loquat_bot_runner.http.tools import ToolsApi
from loquat_bot_runner.http.versions import VersionsApi
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Outcome, Received
from loquat_common.crypto import KeyRing
from loquat_common.db import ProjectPools, as_service
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api, Authenticate
from loquat_common.migrate import load, migrate
from loquat_common.settings import ClusterAddress
from loquat_common.tokens import Actor
from loquat_events.bots import BotDeployed
from loquat_events.catalog import DEPLOYMENTS, DIRECTORY, INBOX, OUTBOX
from loquat_events.conversations import MessageQueued, MessageReceived
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectListed
from loquat_sandbox import Sandbox
from pydantic import SecretStr

from conftest import Platform
from tests.bots import NOWHERE, housing, login_of
from tests.system.world import until
from tests.tenants import PASSWORD, Project, Tenants

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

ANNA: Final = "key_of_anna"


def now() -> datetime:
    return datetime.now(UTC)


def bot(reply: str, *more: str, state: str = "unstructured") -> dict[str, str]:
    """A bot that says one thing."""
    body = f"\n\n@bot.state({state!r})\nasync def handle(ctx):\n    ctx.reply_text({reply!r})\n"
    return {"bot.py": "from loquat import Bot\nbot = Bot()\n" + body + "\n".join(more)}


@dataclass(slots=True)
class Clock:
    """The service's time: the real one, and what a test adds."""

    ahead: timedelta = timedelta()

    def now(self) -> datetime:
        return now() + self.ahead


@dataclass(slots=True)
class Clockwork:
    """What fires, on two replicas, one batch when it is asked."""

    clock: Clock
    index: DueIndex
    syncing: Syncing
    replicas: list[Firing]
    failpoints: Path
    provisioner: MemoryBus
    directory: Directory
    listed: ProjectListed

    def fail(self, point: str) -> None:
        """The next pass of this point fails, as a process that ends there."""
        (self.failpoints / point).write_text("raise")

    async def relist(self, **changes: Any) -> None:
        """The directory says something else of the project."""
        self.listed = self.listed.model_copy(update=changes)
        event = Event[Payload].of(
            self.listed, id=uuid4(), source="/provisioner", time=now(), project=self.listed.project_id, lane="project"
        )
        await self.provisioner.publish(event)

        async def read() -> bool:
            return self.directory.get(self.listed.project_id) == self.listed

        await until(read, "the runner has read the directory", 5)


@dataclass(slots=True)
class Bench:
    """What a test works with."""

    project_id: str
    pool: Pool
    client: TestClient[Any, Any]
    broker: MemoryBroker
    deployed: Deployed
    store: Store
    pointers: Pointers
    inbox: Inbox
    project: Project | None
    time: Clockwork

    async def ask(self, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, Any]:
        """One call of the bot's API."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        async with self.client.request(method, f"/internal/projects/{self.project_id}/bot{path}", json=json, headers=named) as response:
            return response.status, (await response.json(content_type=None) if response.status != 204 else None)

    async def good(self, method: str, path: str, json: Any = None, **headers: str) -> Any:
        """One that must succeed."""
        status, body = await self.ask(method, path, json, **headers)
        assert status < 300, (method, path, status, body)
        return body

    async def bad(self, method: str, path: str, json: Any = None, *, code: str, **headers: str) -> dict[str, Any]:
        """One that must be refused."""
        status, body = await self.ask(method, path, json, **headers)
        assert status >= 400, (method, path, status, body)
        assert body["code"] == code, body
        return body

    async def save(self, files: dict[str, str], **more: Any) -> str:
        """A version."""
        return (await self.good("POST", "/versions", {"files": files, **more}))["version"]

    async def deploy(self, **body: Any) -> dict[str, Any]:
        """Deploys, and waits until this runner has heard of it."""
        made = await self.good("POST", "/deployments", body)
        await self.heard(made)
        return made

    async def anew(self) -> Bench:
        """As it was when it was made, for the next test."""
        await self.store.forget(self.project_id)
        if self.project is None:
            self.project_id = uuid4().hex
            return self
        await self.project.wipe()
        await MemoryBus("bot-runner", self.broker).remove(DEPLOYMENTS, project=self.project_id, lane="bot")

        async def nothing() -> bool:
            return self.deployed.pointer(self.project_id) is None

        await until(nothing, "the runner has forgotten what was deployed", 5)
        return self

    async def heard(self, made: dict[str, Any]) -> None:
        """Until the runner's table holds this deployment."""

        async def told() -> bool:
            pointer = self.deployed.pointer(self.project_id)
            return pointer is not None and pointer.deployment_id == made["id"]

        await until(told, "the runner has heard of the deployment", 5)

    def message(self, contact: str = "49", text: str = "hi") -> Event[Payload]:
        """One of a contact."""
        body = {"type": "text", "text": text, "wamid": uuid4().hex, "raw": "{}"}
        data = {"number_id": "1", "addresses": [{"kind": "wa_id", "value": contact}], "message": body, "sent_at": now()}
        received = MessageReceived.model_validate(data)
        return Event[Payload].of(received, id=uuid4(), source="/gateway", time=now(), project=self.project_id, lane=contact)

    async def take(self, event: Event[Payload], attempts: int = 0) -> Outcome:
        """The handler's answer."""
        return await self.inbox.handle(Received(event, INBOX.name, 0, 0, attempts))

    async def say(self, contact: str = "49", text: str = "hi") -> list[str]:
        """What the bot answers."""
        event = self.message(contact, text)
        await self.take(event)
        return self.answers(event.id)

    def answers(self, event: UUID) -> list[str]:
        """What was published in answer to an event."""
        said = [e.data for e in self.broker.events(OUTBOX) if isinstance(e.data, MessageQueued)]
        return [m.message.text or "" for m in said if m.cause == event]

    async def runs(self, **query: Any) -> list[dict[str, Any]]:
        """Rows of runs, newest first."""
        asked = "&".join(f"{k}={v}" for k, v in query.items())
        return (await self.good("GET", f"/runs?{asked}"))["items"]


def _as(kind: Literal["user", "service"]) -> Authenticate:
    async def authenticate(_request: web.Request) -> Actor:
        return Actor(kind, ANNA, "o", scopes=frozenset({"bots:read", "bots:write", "projects:read"}))

    return authenticate


async def migrated(platform: Platform) -> Pool:
    """bot-runner's schema of a fresh control database."""
    pool = await platform.pool("bot-runner")
    async with pool.acquire() as connection:
        migrations = load(files("loquat_bot_runner.migrations"))
        await migrate(connection, schema="bot_runner", component="bot-runner", migrations=migrations)
    return pool


def bundles_in(home: Path) -> Path:
    """A folder of this run whose contents bots can be shown."""
    folder = home / "bundles" / uuid4().hex
    folder.mkdir(parents=True)
    return folder


@asynccontextmanager
async def open_bench(
    platform: Platform, folder: Path, tenants: Tenants | None = None, sandbox: Sandbox | None = None
) -> AsyncGenerator[Bench]:
    """With `tenants` and `sandbox`, a project with a database of its own; else one that is still being made, whose bots nobody runs."""
    pool, broker = await migrated(platform), MemoryBroker()
    async with AsyncExitStack() as stack:
        project, pools, login = None, ProjectPools(as_service({}, "loquat_bot_runner")), NOWHERE
        if tenants is not None:
            project, login = await tenants.project(), NOWHERE
            stack.push_async_callback(tenants.drop, project)
            address = ClusterAddress(host=tenants.cluster.host, port=tenants.cluster.port, password=SecretStr(PASSWORD))
            pools, login = ProjectPools(as_service({"tenants": address}, "loquat_bot_runner")), login_of(tenants, project)
        stack.push_async_callback(pools.close)
        listed = _listed(project)
        event = Event[Payload].of(listed, id=uuid4(), source="/provisioner", time=now(), project=listed.project_id, lane="project")
        await MemoryBus("provisioner", broker).publish(event)
        bus = MemoryBus("bot-runner", broker)
        tables = [bus.table(DIRECTORY), bus.table(DEPLOYMENTS)]
        tasks = [asyncio.create_task(t.run()) for t in tables]
        stack.callback(lambda: [t.cancel() for t in tasks])
        for table in tables:
            await table.caught_up()
        secrets = Secrets(pool, KeyRing.from_json(KeyRing.new()))
        directory, deployed, store = Directory(tables[0]), Deployed(tables[1]), Store(pool, secrets.redacted)
        house = housing(sandbox, login) if sandbox is not None else cast("Housing", None)
        workers = Workers(store, Bundles(store, folder), house, most=10, idle=60, in_use=deployed.in_use)
        stack.push_async_callback(workers.close)
        pointers, runs = Pointers(pool), ProjectRuns(pools)
        publisher = Publisher(bus, pointers, now)
        canaries = Canaries(pool, pointers, publisher, deployed.suspects)
        clock, failpoints = Clock(), Failpoints(folder)
        index = DueIndex(pool)
        timed = Timed(index, runs, bus, failpoints, clock.now, store.log)
        inbox = Inbox(runs, workers, store, directory, deployed, bus, failpoints, clock.now, secrets, timed)
        api = BotApi(runs, cast("DeadLetters", None), directory, _as("user" if project is not None else "service")).api
        gate = Gate(workers, Usage(pools), Versions(pool))
        syncing = Syncing(index, Automations(pools), pointers, gate, directory, failpoints, clock.now)
        syncing.listens(*tables)
        SchedulesApi(Automations(pools), index, syncing, directory, bus, clock.now).add_to(api)
        _add(api, pool, gate, publisher, canaries, store, directory)
        SettingsApi(Configurations(pools), secrets, pointers, gate, directory).add_to(api)
        client = await stack.enter_async_context(TestClient(TestServer(api.app())))
        tasks += [asyncio.create_task(workers.write_logs()), asyncio.create_task(canaries.run())]
        replicas = [Firing(index, directory, bus, failpoints, clock.now) for _ in range(2)]
        clockwork = Clockwork(clock, index, syncing, replicas, folder, MemoryBus("provisioner", broker), directory, listed)
        yield Bench(listed.project_id, pool, client, broker, deployed, store, pointers, inbox, project, clockwork)


def _listed(project: Project | None) -> ProjectListed:
    if project is None:
        return ProjectListed(project_id=uuid4().hex, organization_id="o", name="p", state="creating")
    return ProjectListed(
        project_id=project.project_id, organization_id="o", name="p", state="ready", cluster="tenants", database=project.database
    )


def _add(api: Api, pool: Pool, gate: Gate, publisher: Publisher, canaries: Canaries, store: Store, directory: Directory) -> None:
    versions, drafts, pointers = Versions(pool), Drafts(pool), Pointers(pool)
    shelf = Shelf(versions, drafts, Aside())
    VersionsApi(versions, pointers, shelf).add_to(api)
    DeploymentsApi(versions, pointers, publisher, canaries, gate, shelf, directory).add_to(api)
    FilesApi(drafts).add_to(api)
    RunsApi(store).add_to(api)
    ToolsApi(pointers, versions, gate, store, directory).add_to(api)


def pointed(bench: Bench) -> BotDeployed:
    """What the runner believes."""
    pointer = bench.deployed.pointer(bench.project_id)
    assert pointer is not None
    return pointer
