"""The owner's API in a test: real HTTP to a provisioner at work on real clusters, asked as somebody's key of the project."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import aiohttp
import orjson
from aiohttp import web
from loquat_common.http import Api
from loquat_common.lifecycle import Server
from loquat_common.settings import ClusterAddress
from loquat_common.tokens import Actor
from loquat_embedded.binaries import programs
from loquat_events.catalog import PROJECTS
from loquat_events.envelope import Payload
from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.dumps import Programs
from loquat_provisioner.adapters.limits import LimitsStore
from loquat_provisioner.adapters.reaper import Ages, Reaper
from loquat_provisioner.adapters.reservations import Reservations
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.domain.life import Names
from loquat_provisioner.domain.limits import Limits
from loquat_provisioner.http.backups import Keeping
from loquat_provisioner.http.dumps import Dumps, Turns
from loquat_provisioner.http.ownership import Ownership
from loquat_provisioner.http.pace import Pace
from loquat_provisioner.http.places import Places, Sayings
from loquat_provisioner.http.uploads import Uploads
from pydantic import SecretStr

from services.provisioner.tests.workshop import Workshop, now
from tests.tenants import PASSWORD

USER: Final = "key_of_anna"
MOST: Final = Limits(4 << 30, 10, 10, 10, 300, 600)
SHOWN: Final = ("db.example.org", 6432)


@dataclass(slots=True)
class Counter:
    """Asks below `/internal/projects/{project}/database`. `file` with pieces answers what a stream gave before it ended or was cut off."""

    shop: Workshop
    project: Project
    base: str
    http: aiohttp.ClientSession
    databases: ProjectDatabases
    chosen: LimitsStore
    turns: Turns

    @property
    def names(self) -> Names:
        assert self.project.database is not None
        return Names(self.project.database)

    async def ask(self, method: str, path: str, body: Any = None, **query: Any) -> tuple[int, Any]:
        """Status and JSON, None for no body."""
        data = json.dumps(body).encode() if body is not None else None
        headers = {"Content-Type": "application/json"} if data is not None else {}
        async with self.http.request(method, self.base + path, data=data, headers=headers, params=query) as response:
            answer = await response.read()
        return response.status, orjson.loads(answer) if answer else None

    async def good(self, method: str, path: str, body: Any = None, **query: Any) -> Any:
        status, answer = await self.ask(method, path, body, **query)
        assert status < 300, answer
        return answer

    async def bad(self, method: str, path: str, body: Any = None, *, status: int, code: str, **query: Any) -> dict[str, Any]:
        got, answer = await self.ask(method, path, body, **query)
        assert (got, answer["code"]) == (status, code), answer
        return answer

    async def file(self, path: str, **query: Any) -> bytes:
        async with self.http.get(self.base + path, params=query) as response:
            assert response.status == 200, await response.read()
            return await response.read()

    def said(self, kind: type[Payload]) -> list[Any]:
        """The events of one kind about the project, in order."""
        return [
            e.data for e in self.shop.bus.broker.events(PROJECTS) if isinstance(e.data, kind) and e.projectid == self.project.project_id
        ]

    async def sweep(self, ages: Ages | None = None) -> list[str]:
        return await Reaper(self.databases, ages).sweep(await self.databases.admin())

    async def weigh(self) -> list[str]:
        return await Reaper(self.databases).weigh(await self.databases.admin())


@asynccontextmanager
async def open_counter(
    shop: Workshop,
    *,
    folder: Path | None = None,
    silence: float = 30,
    at_once: int = 2,
    project: Project | None = None,
    pace: Pace | None = None,
) -> AsyncGenerator[Counter]:
    """For one ready project. `folder` holds the programs in place of PostgreSQL's own."""
    made = project or await shop.project()
    cluster, databases, chosen = shop.tenants.cluster, shop.databases(), LimitsStore(shop.pool)
    addresses = {"tenants": ClusterAddress(host=cluster.host, port=cluster.port, password=SecretStr(PASSWORD))}
    places = Places(shop.store, {"tenants": databases}, addresses, {"tenants": SHOWN})

    async def authenticate(_request: web.Request) -> Actor:
        return Actor("user", USER, made.organization_id, made.project_id, frozenset({"database:read", "database:own"}))

    api = Api("provisioner", "1", authenticate=authenticate)
    sayings, chosen_programs, turns = Sayings(shop.bus, now), Programs(folder or programs(), silence=silence), Turns(at_once)
    for part in (
        Ownership(places, chosen, MOST, sayings),
        Dumps(places, chosen_programs, turns, pace or Pace()),
        Uploads(places, chosen, chosen_programs, turns, pace or Pace()),
        Keeping(places, BackupStore(shop.pool), Reservations(shop.pool), sayings, 2),
    ):
        part.add_to(api)
    server = Server(api.app(), "127.0.0.1", 0, drain_seconds=0.1)
    await server.start()
    async with aiohttp.ClientSession() as http:
        base = f"http://127.0.0.1:{server.port}/internal/projects/{made.project_id}/database"
        yield Counter(shop, made, base, http, databases, chosen, turns)
    await server.stop()
    await databases.close()
