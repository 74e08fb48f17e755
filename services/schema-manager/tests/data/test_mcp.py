"""Agents' tools by MCP, with the official client, in the newest version of the protocol and in those with a handshake."""

from __future__ import annotations

import asyncio
import io
import json
from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
from loquat_rest.operation import AUDITED
from mcp import Client, MCPError
from mcp.types import TextContent

from tests.changing import control
from tests.desk import Desk
from tests.tenants import Project
from tests.tooling import READER, by_header, open_client, open_tools

if TYPE_CHECKING:
    from conftest import Platform

MODES = ("auto", "legacy", "2026-07-28")


@pytest.fixture
async def tools(project: Project, platform: Platform) -> AsyncGenerator[Desk]:
    async with open_tools(project, await control(platform), by_header(project)) as made:
        yield made


def url(tools: Desk) -> str:
    return tools.base.removesuffix("/database") + "/mcp"


async def call(client: Client, tool: str, **arguments: Any) -> tuple[bool, dict[str, Any]]:
    result = await client.call_tool(tool, arguments)
    (content,) = result.content
    assert isinstance(content, TextContent)
    return result.is_error, json.loads(content.text)


@pytest.mark.parametrize("mode", MODES)
async def test_an_agent_makes_fills_asks_and_drops_a_table(tools: Desk, mode: str) -> None:
    async with open_client(url(tools), "all", mode) as client:
        listed = {t.name: t for t in (await client.list_tools()).tools}
        assert len(listed) == 7
        destructive = [n for n, t in listed.items() if t.annotations and t.annotations.destructive_hint]
        assert destructive == ["drop_table"]
        assert listed["query_table"].input_schema["properties"]["table"]
        columns = [{"name": "title", "type": "text"}, {"name": "number", "type": "bigint"}]
        failed, made = await call(client, "create_table", name="books", columns=columns)
        assert (failed, made["state"]) == (False, "applied")
        await call(client, "insert_rows", table="books", rows=[{"title": "a", "number": str(1 << 60)}])
        _, page = await call(client, "query_table", table="books", columns=["number"])
        assert page["items"][0]["values"] == {"number": str(1 << 60)}
        _, tried = await call(client, "drop_table", table="books", dry_run=True)
        assert tried["state"] == "dry_run"
        await call(client, "drop_table", table="books")
        failed, problem = await call(client, "describe_table", table="books")
        assert (failed, problem["code"]) == (True, "not_found")


@pytest.mark.parametrize("mode", MODES)
async def test_a_key_that_only_reads_sees_and_calls_what_reads(tools: Desk, mode: str) -> None:
    async with open_client(url(tools), READER, mode) as client:
        assert sorted(t.name for t in (await client.list_tools()).tools) == ["describe_table", "list_tables", "query_table"]
        failed, problem = await call(client, "create_table", name="books")
        assert (failed, problem["code"], "database:write" in problem["detail"]) == (True, "forbidden", True)
        assert (await call(client, "list_tables"))[0] is False


@pytest.mark.parametrize("mode", MODES)
async def test_what_is_wrong_is_told_to_the_model_with_the_field(tools: Desk, mode: str) -> None:
    async with open_client(url(tools), "all", mode) as client:
        failed, problem = await call(client, "create_table", name="", columns=[])
        assert (failed, problem["errors"][0]["field"]) == (True, "arguments.name")
        failed, problem = await call(client, "drop_table", table="messages")
        assert (failed, problem["code"]) == (True, "system_table")
        with pytest.raises(MCPError):
            await client.call_tool("drop_database", {})


async def test_many_agents_at_once_get_their_own_answers(tools: Desk) -> None:
    async def one(n: int) -> list[str]:
        async with open_client(url(tools), "all") as client:
            await call(client, "create_table", name=f"t{n}", id="none", columns=[{"name": f"c{n}", "type": "text"}])
            return [c["name"] for c in (await call(client, "describe_table", table=f"t{n}"))[1]["columns"]]

    assert await asyncio.gather(*(one(n) for n in range(5))) == [[f"c{n}"] for n in range(5)]


async def test_the_bare_protocol_has_no_stream_no_session_and_a_bound(tools: Desk) -> None:
    asked = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "create_table", "arguments": {"name": "t"}}}
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25"}
    async with tools.http.post(url(tools), json=asked, headers=headers) as response:
        assert (response.status, response.content_type, response.headers[AUDITED]) == (200, "application/json", "tool create_table")
        assert "Mcp-Session-Id" not in response.headers
        assert (await response.json())["result"]["isError"] is False
    for method in ("GET", "DELETE"):
        async with tools.http.request(method, url(tools), headers=headers) as response:
            assert (response.status, response.headers["Allow"]) == (405, "POST")
    async with tools.http.post(
        url(tools), data=io.BytesIO(b"x" * (2 << 20)), headers={**headers, "Content-Type": "application/json"}
    ) as response:
        assert response.status == 413
    for body, status in ((b"{", 400), (b"[]", 400), (b'{"jsonrpc":"2.0","method":"notifications/initialized"}', 202)):
        async with tools.http.post(url(tools), data=body, headers={**headers, "Content-Type": "application/json"}) as response:
            assert response.status == status, body
