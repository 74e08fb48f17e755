"""Agents' tools by REST: seven of them, each with a schema, with the rights of the key."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING, Any

import pytest
from loquat_rest.operation import AUDITED

from tests.changing import control
from tests.desk import Desk
from tests.tenants import Project
from tests.tooling import READER, by_header, open_tools

if TYPE_CHECKING:
    from conftest import Platform

COLUMNS = [{"name": "title", "type": "text", "nullable": False}, {"name": "price", "type": "numeric(10,2)"}]


@pytest.fixture
async def tools(project: Project, platform: Platform) -> AsyncGenerator[Desk]:
    async with open_tools(project, await control(platform), by_header(project)) as made:
        yield made


async def call(tools: Desk, tool: str, **arguments: Any) -> dict[str, Any]:
    return await tools.good("POST", f"/tools/{tool}", arguments)


async def test_there_are_seven_and_each_says_what_it_takes_and_whether_it_takes_away(tools: Desk) -> None:
    listed = {t["name"]: t for t in (await tools.good("GET", "/tools"))["items"]}
    names = ["add_column", "create_table", "describe_table", "drop_table", "insert_rows", "list_tables", "query_table"]
    assert sorted(listed) == names
    assert [n for n in names if listed[n]["destructive"]] == ["drop_table"]
    assert [n for n in names if listed[n]["read_only"]] == ["describe_table", "list_tables", "query_table"]
    assert {t["scope"] for t in listed.values() if not t["read_only"]} == {"database:write"}
    assert listed["drop_table"]["input_schema"]["required"] == ["table"]
    assert "dry_run" in listed["drop_table"]["input_schema"]["properties"]


async def test_a_table_is_made_filled_asked_and_dropped_by_tools_alone(tools: Desk) -> None:
    made = await call(tools, "create_table", name="books", columns=COLUMNS)
    assert (made["state"], made["tables"]) == ("applied", ["books"])
    await call(tools, "add_column", table="books", column={"name": "stock", "type": "integer", "default": {"value": 3}})
    rows = [{"title": "a", "price": "1.10"}, {"title": "b", "price": 2, "stock": 0}]
    assert (await call(tools, "insert_rows", table="books", rows=rows))["inserted"] == 2
    page = await call(
        tools, "query_table", table="books", filter={"and": [{"column": "stock", "op": "gt", "value": 0}]}, columns=["title", "price"]
    )
    assert [r["values"] for r in page["items"]] == [{"title": "a", "price": "1.10"}]
    assert [c["name"] for c in (await call(tools, "describe_table", table="books"))["columns"]] == ["id", "title", "price", "stock"]
    assert [t["name"] for t in (await call(tools, "list_tables"))["items"]] == ["books", "contacts", "conversations", "messages"]
    tried = await call(tools, "drop_table", table="books", dry_run=True)
    assert (tried["state"], tried["statements"][0]["blocks"]) == ("dry_run", "everything")
    await call(tools, "drop_table", table="books")
    await tools.bad("POST", "/tools/describe_table", {"table": "books"}, status=404, code="not_found")


async def test_numbers_of_inserted_rows_stay_as_they_were_written_by_rest_and_by_mcp(tools: Desk) -> None:
    columns = [{"name": "price", "type": "numeric(40,20)"}, {"name": "extra", "type": "jsonb"}]
    await call(tools, "create_table", name="exact", id="none", columns=columns)
    price, extra = "12345678901234567890.12345678901234567890", '{"n": 123456789012345678901234567890, "x": [1, 1.10]}'
    arguments = b'{"table": "exact", "rows": [{"price": %s, "extra": %s}]}' % (price.encode(), extra.encode())
    assert (await tools.ask("POST", "/tools/insert_rows", raw=arguments)).status == 200
    asked = b'{"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": {"name": "insert_rows", "arguments": %s}}' % arguments
    headers = {"Accept": "application/json, text/event-stream", "MCP-Protocol-Version": "2025-11-25", "Content-Type": "application/json"}
    async with tools.http.post(tools.base.removesuffix("/database") + "/mcp", data=asked, headers=headers) as response:
        assert (await response.json())["result"]["isError"] is False
    page = await tools.ask("POST", "/tools/query_table", {"table": "exact"})
    assert (page.body.decode().count(f'"{price}"'), page.body.decode().count(extra)) == (2, 2)


async def test_what_was_changed_is_said_for_the_audit_record_and_what_was_not_is_not(tools: Desk) -> None:
    said = [
        (await tools.ask("POST", f"/tools/{tool}", arguments)).headers.get(AUDITED)
        for tool, arguments in (
            ("create_table", {"name": "t", "dry_run": True}),
            ("create_table", {"name": "t"}),
            ("create_table", {"name": "t"}),
            ("describe_table", {"table": "t"}),
            ("drop_table", {"table": "t"}),
        )
    ]
    assert said == [None, "tool create_table", None, None, "tool drop_table"]


async def test_a_key_that_only_reads_writes_by_no_tool(tools: Desk) -> None:
    headers = {"Authorization": f"Bearer {READER}"}
    for tool, arguments, status in (
        ("create_table", {"name": "t"}, 403),
        ("add_column", {}, 403),
        ("drop_table", {"table": "t", "dry_run": True}, 403),
        ("insert_rows", {}, 403),
        ("list_tables", {}, 200),
    ):
        async with tools.http.post(f"{tools.base}/tools/{tool}", json=arguments, headers=headers) as response:
            assert response.status == status, tool
            assert "database:write" in await response.text() or status == 200


async def test_wrong_arguments_are_named(tools: Desk) -> None:
    await tools.bad("POST", "/tools/run_anything", {}, status=404, code="not_found")
    cases: tuple[tuple[str, dict[str, Any], str], ...] = (
        ("describe_table", {}, "arguments.table"),
        ("describe_table", {"table": "x", "tabel": 1}, "arguments.tabel"),
        ("create_table", {"name": "a", "columns": [{"name": "b"}]}, "arguments.columns.0.type"),
        ("query_table", {"table": "contacts", "limit": 501}, "arguments.limit"),
        ("insert_rows", {"table": "contacts", "rows": []}, "arguments.rows"),
    )
    for tool, arguments, field in cases:
        problem = await tools.bad("POST", f"/tools/{tool}", arguments, status=422, code="invalid_request")
        assert [e["field"] for e in problem["errors"]] == [field]
    problem = await tools.bad("POST", "/tools/create_table", {"name": "a\0"}, status=422, code="invalid_request")
    assert problem["detail"] == "body.name has a NUL character"
    answer = await tools.ask("POST", "/tools/list_tables", raw=b"[]")
    assert answer.status == 422


async def test_system_tables_are_read_by_tools_and_changed_by_none(tools: Desk) -> None:
    assert (await call(tools, "query_table", table="contacts"))["items"] == []
    for tool, arguments in (
        ("drop_table", {"table": "contacts"}),
        ("add_column", {"table": "messages", "column": {"name": "x", "type": "text"}}),
        ("insert_rows", {"table": "conversations", "rows": [{"number_id": "1"}]}),
    ):
        await tools.bad("POST", f"/tools/{tool}", arguments, status=403, code="system_table")
