"""Agents before the gateway: the MCP server and the tools with the project's API keys, their scopes and the audit record."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import httpx2
import pytest
from aiohttp.test_utils import TestServer
from loquat_common.client import InternalClient
from loquat_common.http import Api, internal_auth
from loquat_common.tokens import Signer, Verifier
from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access
from loquat_gateway.http.forward import Forward
from loquat_rest import tools
from mcp.types import TextContent
from yarl import URL

from services.gateway.tests.front import PRIVATE, PUBLIC, Front, open_front
from tests.changing import control
from tests.tenants import Tenants
from tests.tooling import open_client, open_tools

if TYPE_CHECKING:
    from conftest import Platform


@dataclass(slots=True)
class Town:
    """A gateway that forwards agents' tools to a schema-manager with one project."""

    front: Front
    base: str
    project: str

    @property
    def mcp(self) -> str:
        return f"{self.base}/v1/projects/{self.project}/mcp"

    async def audited(self) -> list[str]:
        rows = await self.front.pools["gateway"].fetch("SELECT action FROM audit_log WHERE project_id = $1 ORDER BY id", self.project)
        return [r["action"] for r in rows]


@pytest.fixture
async def town(platform: Platform, tenants: Tenants) -> AsyncGenerator[Town]:
    project = await tenants.project()
    auth = internal_auth(Verifier({"gateway": PUBLIC}, "schema-manager"))
    async with open_front(platform) as front, open_tools(project, await control(platform), auth) as desk, AsyncExitStack() as stack:
        await front.made(project.project_id)
        client = InternalClient(str(URL(desk.base).origin()), Signer("gateway", PRIVATE), "schema-manager")
        await client.start()
        stack.push_async_callback(client.stop)
        people = People(front.pools["gateway"])
        access = Access(people, front.directory, lambda: datetime.now(UTC))
        api = Api("public", "1", authenticate=access.authenticate)
        Forward(access, people, {"schema-manager": client}, {"schema-manager": tools.OPERATIONS}).add_to(api)
        server = await stack.enter_async_context(TestServer(api.app()))
        yield Town(front, str(server.make_url("")).rstrip("/"), project.project_id)
    await tenants.drop(project)


@pytest.mark.parametrize("mode", ["auto", "legacy"])
async def test_an_agent_works_with_an_api_key_and_what_it_changes_is_in_the_audit_record(town: Town, mode: str) -> None:
    async with open_client(town.mcp, await town.front.key(), mode) as client:
        assert len((await client.list_tools()).tools) == 7
        for tool, arguments in (("create_table", {"name": "t"}), ("list_tables", {}), ("drop_table", {"table": "t"})):
            result = await client.call_tool(tool, arguments)
            assert not result.is_error, result
    assert await town.audited() == ["tool create_table", "tool drop_table"]


async def test_a_key_without_the_scope_to_write_writes_nothing(town: Town) -> None:
    async with open_client(town.mcp, await town.front.key(scopes=["database:read"])) as client:
        assert len((await client.list_tools()).tools) == 3
        result = await client.call_tool("create_table", {"name": "t"})
        (content,) = result.content
        assert isinstance(content, TextContent)
        assert (result.is_error, json.loads(content.text)["code"]) == (True, "forbidden")
    assert await town.audited() == []


async def test_keys_of_others_and_without_the_scope_come_to_no_tool(town: Town) -> None:
    asked: dict[str, Any] = {"jsonrpc": "2.0", "id": 1, "method": "tools/list"}
    accept = {"Accept": "application/json, text/event-stream"}
    stranger, blind = await town.front.key("org_b"), await town.front.key(scopes=["numbers:read"])
    async with httpx2.AsyncClient() as http:
        for key, status in ((stranger, 404), (blind, 403), ("lq_nobody", 401)):
            headers = {"Authorization": f"Bearer {key}", **accept}
            for path, body in (("mcp", asked), ("database/tools/list_tables", {})):
                answer = await http.post(f"{town.base}/v1/projects/{town.project}/{path}", json=body, headers=headers)
                assert answer.status_code == status, (path, answer.text)


async def test_tools_by_rest_are_audited_by_their_name(town: Town) -> None:
    headers = {"Authorization": f"Bearer {await town.front.key()}"}
    async with httpx2.AsyncClient(base_url=f"{town.base}/v1/projects/{town.project}/database", headers=headers) as http:
        assert len((await http.get("/tools")).json()["items"]) == 7
        for tool, arguments in (("create_table", {"name": "t"}), ("describe_table", {"table": "t"})):
            answer = await http.post(f"/tools/{tool}", json=arguments)
            assert answer.status_code == 200, answer.text
            assert "Loquat-Audited" not in answer.headers
    assert await town.audited() == ["tool create_table"]
