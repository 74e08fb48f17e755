"""The database API of one project in a test: real HTTP, a real project database, the editor's own login; the bus is in memory."""

from __future__ import annotations

import io
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import quote
from uuid import uuid4

import aiohttp
import asyncpg
import orjson
from aiohttp import web
from loquat_common.bus.memory import MemoryBus
from loquat_common.db import GONE, DatabaseAway, Place, ProjectPools
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.lifecycle import Server
from loquat_common.tokens import Actor
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import ProjectListed
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.sizes import Size

from tests.tenants import PASSWORD, Project

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

USER: Final = "key_of_anna"
SIZE: Final = Size(2_000_000, 1_000_000)
"""Of every project, when the provisioner is asked."""
SCOPES: Final = frozenset({"database:read", "database:write", "database:sql", "database:own"})


def now() -> datetime:
    return datetime.now(UTC)


@dataclass(slots=True)
class Listing:
    """The directory's table, as far as it is asked."""

    entries: dict[str, AnyEvent] = field(default_factory=dict[str, AnyEvent])

    def get(self, key: str) -> AnyEvent | None:
        return self.entries.get(key)

    def values(self) -> dict[str, AnyEvent]:
        return self.entries

    def list(self, project: Project) -> None:
        listed = ProjectListed(
            project_id=project.project_id, organization_id="o", name="p", state="ready", cluster="tenants", database=project.database
        )
        event = Event[Payload].of(listed, id=uuid4(), source="/provisioner", time=now(), project=project.project_id, lane="project")
        self.entries[f"{project.project_id}:project"] = event


@dataclass(slots=True)
class Answer:
    """What came back. `json` of a problem has its `code`, `title`, `detail`."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return orjson.loads(self.body)


@dataclass(slots=True)
class Desk:
    """Asks the API below `/internal/projects/{project}/database` of one project."""

    project: Project
    base: str
    http: aiohttp.ClientSession
    editors: Editors
    bus: MemoryBus

    async def ask(
        self, method: str, path: str, body: Any = None, *, raw: bytes | None = None, kind: str | None = None, **query: Any
    ) -> Answer:
        """One request; `path` such as `/tables/x`. A JSON `body`, or `raw` bytes of a media type `kind`."""
        data = orjson.dumps(body) if body is not None else io.BytesIO(raw) if raw is not None and len(raw) > 1 << 19 else raw
        headers = {"Content-Type": kind or "application/json"} if data is not None else {}
        params = {k: str(v) for k, v in query.items()}
        async with self.http.request(method, f"{self.base}{path}", data=data, headers=headers, params=params) as response:
            return Answer(response.status, await response.read(), dict(response.headers))

    async def good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        """The JSON of an answer that must be good; None for 204."""
        answer = await self.ask(method, path, body, **query)
        assert answer.status < 300, answer.body
        return answer.json if answer.body else None

    async def bad(self, method: str, path: str, body: Any = None, *, status: int, code: str, **query: Any) -> dict[str, Any]:
        """The problem of an answer that must be one."""
        answer = await self.ask(method, path, body, **query)
        assert (answer.status, answer.json.get("code")) == (status, code), answer.body
        return answer.json

    def path(self, table: str, tail: str = "") -> str:
        """Of a table, whatever its name is."""
        return f"/tables/{quote(table, safe='')}{tail}"

    async def bot(self) -> Connection:
        """As the bot's own login."""
        return await self.project.login("bot")


@asynccontextmanager
async def open_desk(project: Project, add: Callable[[Api, Editors, MemoryBus], None]) -> AsyncGenerator[Desk]:
    """`add` puts the operations under test onto the API."""
    listing = Listing()
    listing.list(project)

    async def dial(place: Place) -> Connection:
        cluster = project.tenants.cluster
        try:
            return await asyncpg.connect(
                host=cluster.host,
                port=cluster.port,
                database=place.database,
                user=project.names.login("editor"),
                password=PASSWORD,
                statement_cache_size=0,
            )
        except GONE as error:
            raise DatabaseAway(type(error).__name__) from error

    pools = ProjectPools(dial, cap=8, per_project=3)

    async def size(_project: str) -> Size:
        return SIZE

    directory = Directory(listing)  # pyright: ignore[reportArgumentType]  (a part of a table)
    editors, bus = Editors(directory, pools, size), MemoryBus("schema-manager")

    async def authenticate(_request: web.Request) -> Actor:
        return Actor("user", USER, "o", project.project_id, SCOPES)

    api = Api("data", "1", authenticate=authenticate)
    add(api, editors, bus)
    server = Server(api.app(), "127.0.0.1", 0, drain_seconds=0.1)
    await server.start()
    async with aiohttp.ClientSession() as http:
        yield Desk(project, f"http://127.0.0.1:{server.port}/internal/projects/{project.project_id}/database", http, editors, bus)
    await server.stop()
    await editors.close()
    await pools.close()
