"""The REST API in a test: a real control database, the owning services' real internal APIs, the bus in memory, a clock that is set by hand."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID, uuid4

from aiohttp.test_utils import TestClient, TestServer
from loquat_bot_runner.adapters import store as bot_runner
from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.deployments import Publisher
from loquat_bot_runner.adapters.drafts import Drafts
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.secrets import Secrets
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.http import people as bot_people
from loquat_bot_runner.http.api import BotApi
from loquat_bot_runner.http.deployments import DeploymentsApi
from loquat_bot_runner.http.files import FilesApi
from loquat_bot_runner.http.runs import RunsApi
from loquat_bot_runner.http.settings import SettingsApi
from loquat_bot_runner.http.shelf import Shelf
from loquat_bot_runner.http.versions import VersionsApi
from loquat_common.bootstrap import schema_of
from loquat_common.bus import deferred
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.db import DatabaseAway
from loquat_common.deadletters import DeadLetterApi
from loquat_common.directory import Directory
from loquat_common.http import Api, Authenticate, internal_auth
from loquat_common.migrate import load, migrate
from loquat_common.tokens import Signer, Verifier, new_key
from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.people import ForgottenSends
from loquat_connector.http.api import NumberApi
from loquat_connector.http.people import PeopleApi
from loquat_conversation_log.adapters.orders import Orders
from loquat_conversation_log.http.api import RecordApi
from loquat_conversation_log.http.orders import OrdersApi
from loquat_events.catalog import DIRECTORY, NUMBERS, Service
from loquat_events.envelope import Event, Payload
from loquat_events.projects import CreateProject, ProjectListed, ProjectState
from loquat_gateway.adapters.people import People
from loquat_gateway.adapters.routing import Routing
from loquat_gateway.domain.scopes import ALL
from loquat_gateway.handlers.listed import Listed
from loquat_gateway.http.access import Access
from loquat_gateway.http.api import build
from loquat_gateway.http.contacts import Contacts
from loquat_gateway.http.deadletters import CONSUMERS, DeadLetters
from loquat_gateway.http.forward import Forward
from loquat_gateway.http.messages import Messages
from loquat_gateway.http.projects import Projects
from loquat_gateway.http.resources import Resources
from loquat_gateway.http.webhook import Webhook
from loquat_provisioner.adapters.store import Store
from loquat_provisioner.http.api import ProjectApi
from loquat_rest.catalog import BOT_RUNNER
from loquat_schema_manager.adapters.followed import FollowedRows
from loquat_schema_manager.http.api import SchemaApi
from loquat_schema_manager.http.followings import FollowingsApi

from conftest import Platform
from tests.system.world import until

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

PRIVATE, PUBLIC = new_key()
ANNA: Final = UUID("00000000-0000-7000-8000-0000000000aa")
_PACKAGES: Final[dict[Service, str]] = {
    "gateway": "loquat_gateway",
    "provisioner": "loquat_provisioner",
    "connector": "loquat_connector",
    "bot-runner": "loquat_bot_runner",
    "conversation-log": "loquat_conversation_log",
    "schema-manager": "loquat_schema_manager",
}


@dataclass(slots=True)
class Records:
    """What conversation-log would read from project databases."""

    away: set[str] = field(default_factory=set[str])
    held: set[tuple[str, UUID]] = field(default_factory=set[tuple[str, UUID]])
    changed: dict[UUID, dict[str, Any] | None] = field(default_factory=dict[UUID, "dict[str, Any] | None"])
    """Contacts that are not simply there: merged, erased, or none (None)."""

    async def has_conversation(self, project: ProjectListed, conversation: UUID) -> bool:
        if project.project_id in self.away:
            raise DatabaseAway("a test")
        return (project.project_id, conversation) in self.held

    async def events_of(self, _project: ProjectListed, contact: UUID) -> list[UUID]:
        """As bot-runner would."""
        return [contact]

    async def conversations_of(self, _project: ProjectListed, contact: UUID) -> list[UUID]:
        """As bot-runner would."""
        return [contact]

    async def messages(self, *_asked: object) -> list[Any]:
        return []

    async def conversations(self, *_asked: object, **_more: object) -> list[Any]:
        return []

    async def conversation(self, project: ProjectListed, conversation: UUID) -> dict[str, Any] | None:
        if (project.project_id, conversation) not in self.held:
            return None
        known: dict[str, Any] = dict.fromkeys(("contact_name", "closed_at", "last_message_at"))
        more = {"number_id": "106", "status": "open", "state": "unstructured", "holder": "bot", "opened_at": datetime.now(UTC)}
        return known | more | {"id": conversation, "contact_id": ANNA, "addresses": [{"kind": "phone", "value": "4915"}]}

    async def contacts(self, *_asked: object) -> list[Any]:
        return []

    async def contact(self, _project: ProjectListed, contact: UUID) -> dict[str, Any] | None:
        at, addresses = datetime.now(UTC), [{"kind": "phone", "value": "4915"}]
        known: dict[str, Any] = {
            "id": contact,
            "name": "Anna",
            "phone_number": "4915",
            "language": "de",
            "attributes": {},
            "created_at": at,
            "updated_at": at,
            "merged_into": None,
            "erased_at": None,
        }
        if (changed := self.changed.get(contact, {})) is None:
            return None
        return known | {"addresses": addresses, "open_conversations": []} | changed


@dataclass(slots=True)
class Front:
    """A gateway and what stands behind it."""

    api: Api
    client: TestClient[Any, Any]
    pools: dict[Service, Pool]
    store: Store
    broker: MemoryBroker
    directory: Directory
    records: Records
    moment: list[timedelta]

    async def key(self, organization: str = "org_a", scopes: Sequence[str] = ALL) -> str:
        """A key of an organization."""
        key, pool = f"lq_{uuid4().hex}", self.pools["gateway"]
        await pool.execute("INSERT INTO organizations VALUES ($1, $1) ON CONFLICT DO NOTHING", organization)
        await pool.execute(
            "INSERT INTO api_keys (organization_id, name, digest, scopes) VALUES ($1, 'k', $2, $3)",
            organization,
            hashlib.sha256(key.encode()).digest(),
            list(scopes),
        )
        return key

    async def ask(self, key: str, method: str, path: str, json: Any = None, **headers: str) -> tuple[int, Any]:
        """One call."""
        sent = {"Authorization": f"Bearer {key}", **{k.replace("_", "-"): v for k, v in headers.items()}}
        async with self.client.request(method, path, json=json, headers=sent) as response:
            return response.status, (await response.json() if response.content_length else None)

    async def made(self, project: str, organization: str = "org_a", state: ProjectState = "ready") -> None:
        """The provisioner has it in this state, and this gateway knows."""
        await self.store.accept(CreateProject(project_id=project, organization_id=organization, name=project, ordered_by="k"))
        await self.store.state(project, state)
        listed = ProjectListed(project_id=project, organization_id=organization, name=project, state=state, cluster="c", database=project)
        event = Event[Payload].of(listed, id=uuid4(), source="/provisioner", time=datetime.now(UTC), project=project, lane="project")
        await MemoryBus("provisioner", self.broker).publish(event)

        async def known() -> bool:
            entry = self.directory.get(project)
            return entry is not None and entry.state == state

        await until(known, "the directory lists it", 5)

    async def noted(self, project: str) -> None:
        """Until it stands in the gateway's own rows that the directory spoke of it."""

        async def look() -> bool:
            return bool(
                await self.pools["gateway"].fetchval("SELECT listed_at IS NOT NULL FROM project_requests WHERE project_id = $1", project)
            )

        await until(look, "the order is known as answered", 5)

    async def deleted(self, project: str) -> None:
        """It is gone, and this gateway knows."""
        await self.store.forget(project)
        await MemoryBus("provisioner", self.broker).remove(DIRECTORY, project=project, lane="project")

        async def unknown() -> bool:
            return self.directory.get(project) is None

        await until(unknown, "the directory lists it no more", 5)

    def later(self, **by: float) -> None:
        """Time goes by."""
        self.moment[0] += timedelta(**by)


def _owners(pools: dict[Service, Pool], directory: Directory, records: Records, broker: MemoryBroker) -> tuple[Store, dict[Service, Api]]:
    def auth(service: Service) -> Authenticate:
        return internal_auth(Verifier({"gateway": PUBLIC}, service))

    ring, store = KeyRing.from_json(KeyRing.new()), Store(pools["provisioner"], KeyRing.from_json(KeyRing.new()))
    nothing = cast("Any", None)
    apis: dict[Service, Api] = {
        "provisioner": ProjectApi(store, {}, auth("provisioner")).api,
        "connector": NumberApi(Numbers(pools["connector"], ring), Accounts(pools["connector"]), 0, lambda: None, auth("connector")).api,
        "bot-runner": _bots(pools["bot-runner"], directory, cast("Any", records), broker, auth("bot-runner")),
        "conversation-log": RecordApi(cast("Any", records), directory, auth("conversation-log")).api,
        "schema-manager": SchemaApi(nothing, 0, auth("schema-manager")).api,
    }
    PeopleApi(ForgottenSends(pools["connector"]), lambda: None).add_to(apis["connector"])
    OrdersApi(Orders(pools["conversation-log"]), cast("Any", records), directory).add_to(apis["conversation-log"])
    FollowingsApi(FollowedRows(pools["schema-manager"], lambda: 0.5)).add_to(apis["schema-manager"])
    for name in CONSUMERS:
        DeadLetterApi(deferred.DeadLetters(pools[name])).add_to(apis[name])
    return store, apis


def _bots(pool: Pool, directory: Directory, records: Any, broker: MemoryBroker, authenticate: Authenticate) -> Api:
    """bot-runner's, without bots: what is kept is real."""
    nothing = cast("Any", None)
    versions, pointers, drafts = Versions(pool), Pointers(pool), Drafts(pool)
    shelf, api = Shelf(versions, drafts, Aside()), BotApi(records, nothing, directory, authenticate).api
    VersionsApi(versions, pointers, shelf).add_to(api)
    publisher = Publisher(MemoryBus("bot-runner", broker), pointers, lambda: datetime.now(UTC))
    DeploymentsApi(versions, pointers, publisher, nothing, nothing, shelf, directory).add_to(api)
    FilesApi(drafts).add_to(api)
    RunsApi(bot_runner.Store(pool)).add_to(api)

    async def no_copies(_project: str) -> None:
        """Nobody tries a bot out here."""

    bot_people.PeopleApi(bot_runner.Store(pool), records, directory, no_copies).add_to(api)
    SettingsApi(nothing, Secrets(pool, KeyRing.from_json(KeyRing.new())), pointers, nothing, directory).add_to(api)
    return api


@asynccontextmanager
async def open_front(platform: Platform, broker: MemoryBroker | None = None) -> AsyncGenerator[Front]:
    """A gateway; with `broker`, another one on the same bus and database."""
    pools: dict[Service, Pool] = {name: await platform.pool(name) for name in _PACKAGES}
    for name, pool in pools.items():
        async with pool.acquire() as connection:
            await migrate(connection, schema=schema_of(name), component="bus", migrations=deferred.migrations())
            await migrate(connection, schema=schema_of(name), component=name, migrations=load(files(f"{_PACKAGES[name]}.migrations")))
    broker, people, moment = broker or MemoryBroker(), People(pools["gateway"]), [timedelta()]
    bus = MemoryBus("gateway", broker)
    numbers, table, listed = bus.table(NUMBERS), bus.table(DIRECTORY), Listed(people)
    table.on_change(listed.heard)
    tasks = [asyncio.create_task(work) for work in (numbers.run(), table.run(), listed.run())]
    await table.caught_up()
    directory, records = Directory(table), Records()
    store, apis = _owners(pools, directory, records, broker)

    def clock() -> datetime:
        return datetime.now(UTC) + moment[0]

    async with AsyncExitStack() as stack:
        clients = dict[Service, InternalClient]()
        for name, api in apis.items():
            server = await stack.enter_async_context(TestServer(api.app()))
            clients[name] = InternalClient(str(server.make_url("")), Signer("gateway", PRIVATE), name)
            await clients[name].start()
            stack.push_async_callback(clients[name].stop)
        access = Access(people, directory, clock)
        public = build(
            access,
            Webhook({}, cast("Any", None)),
            Projects(people, access, clients["provisioner"], bus, clock),
            Resources(access, people, Routing(numbers), clients),
            Messages(access, clients["conversation-log"], clients["connector"], bus, clock),
            DeadLetters(access, people, clients),
            Contacts(access, people, clients, bus, clock),
            Forward(access, people, clients, {"bot-runner": BOT_RUNNER}),
        )
        client = await stack.enter_async_context(TestClient(TestServer(public.app())))
        yield Front(public, client, pools, store, broker, directory, records, moment)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
