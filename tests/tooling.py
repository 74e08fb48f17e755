"""The agents' tools of one project in a test, on the real engines; who asks is the test's to say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import asyncpg
import httpx2
from aiohttp import web
from loquat_common.http import Api, Authenticate
from loquat_common.lifecycle import Server
from loquat_common.tokens import Actor
from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.http.mcp import Mcp
from loquat_schema_manager.http.tables import Tables
from loquat_schema_manager.http.tools import Toolbox, ToolsApi
from mcp import Client
from mcp.client.streamable_http import streamable_http_client

from tests.desk import SCOPES, USER, Desk, open_desk
from tests.tenants import Project

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

READER: Final = "only-read"
"""A caller who says so has one scope alone."""


def by_header(project: Project) -> Authenticate:
    """Trusts what the request says of its key."""

    async def authenticate(request: web.Request) -> Actor:
        scopes = frozenset({"database:read"}) if request.headers.get("Authorization") == f"Bearer {READER}" else SCOPES
        return Actor("user", USER, "o", project.project_id, scopes)

    return authenticate


@asynccontextmanager
async def open_tools(project: Project, pool: Pool, authenticate: Authenticate) -> AsyncGenerator[Desk]:
    """A desk before the tools; `pool` is schema-manager's migrated schema. Its `base` ends in `/database`."""
    async with open_desk(project, lambda _api, _editors, _bus: None) as desk:
        api = Api("tools", "1", authenticate=authenticate)
        rows = Rows(desk.editors, lambda _project, _table, _count, _actor: None)
        toolbox = Toolbox(Tables(desk.editors), ChangeSets(desk.editors, Records(pool)), rows)
        mcp = Mcp(toolbox)
        ToolsApi(toolbox).add_to(api)
        mcp.add_to(api)
        running = asyncio.create_task(mcp.run())
        server = Server(api.app(), "127.0.0.1", 0, drain_seconds=0.1)
        await server.start()
        yield replace(desk, base=f"http://127.0.0.1:{server.port}/internal/projects/{project.project_id}/database")
        await server.stop()
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


@asynccontextmanager
async def open_client(url: str, key: str, mode: str = "auto") -> AsyncGenerator[Client]:
    """The official client. `mode`: the protocol's version, or `legacy` for those with a handshake."""
    async with (
        httpx2.AsyncClient(headers={"Authorization": f"Bearer {key}"}, timeout=20) as http,
        Client(streamable_http_client(url, http_client=http), mode=mode) as client,
    ):
        yield client
