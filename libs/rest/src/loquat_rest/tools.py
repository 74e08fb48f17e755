"""Shapes of the database API: tools of agents, by REST and by MCP."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field, JsonValue, RootModel

from loquat_rest.changes import SECONDS, NewColumn, TableOptions
from loquat_rest.names import Name
from loquat_rest.operation import JSON, OneProject, Operation
from loquat_rest.rows import Insert, Query
from loquat_rest.tables import TableQuery


class _Tried(BaseModel):
    dry_run: bool = Field(default=False, description="does it and takes it back; says which SQL, which locks, what would fail")


class ListTables(TableQuery):
    """Of `list_tables`."""


class DescribeTable(BaseModel, extra="forbid"):
    """Of `describe_table`."""

    table: Name


class CreateTable(TableOptions, _Tried):
    """Of `create_table`."""


class AddColumn(_Tried, extra="forbid"):
    """Of `add_column`."""

    table: Name
    column: NewColumn
    force: bool = Field(default=False, description="also when it holds a large table up for long")


class DropTable(_Tried, extra="forbid"):
    """Of `drop_table`."""

    table: Name


class QueryTable(Query):
    """Of `query_table`."""

    table: Name


class InsertRows(Insert):
    """Of `insert_rows`."""

    table: Name


class ToolView(BaseModel):
    """A tool. The hints are those of MCP."""

    name: str
    title: str
    description: str
    scope: str = Field(description="what the key needs")
    read_only: bool
    destructive: bool = Field(description="it can take something away; it has `dry_run` to try it")
    idempotent: bool
    input_schema: dict[str, Any] = Field(description="JSON Schema of the arguments")


class ToolList(BaseModel):
    """All tools."""

    items: list[ToolView]


class OneTool(OneProject):
    """A tool in the path."""

    tool: str = Field(max_length=80)


class Arguments(RootModel[dict[str, JsonValue]]):
    """The arguments, as the tool's schema says."""


class ToolResult(RootModel[dict[str, Any]]):
    """What the tool gives: tables, a change set, rows, as the resources of the same names do."""


_HEADERS: Final = ("MCP-Protocol-Version", "Mcp-Method", "Mcp-Name")
LIST: Final = Operation("GET", "/database/tools", "List the tools of agents", "database:read", answer=ToolList)
CALL: Final = Operation(
    "POST",
    "/database/tools/{tool}",
    "Call a tool; one that writes needs `database:write`",
    "database:read",
    OneTool,
    body=Arguments,
    answer=ToolResult,
    errors=(403, 404, 409, 503),
    seconds=SECONDS,
)
MCP: Final = Operation(
    "POST",
    "/mcp",
    "The same tools by MCP: streamable HTTP, without sessions; a tool that writes needs `database:write`",
    "database:read",
    takes=(JSON,),
    gives=(JSON,),
    headers=_HEADERS,
    errors=(403, 404, 406, 409),
    seconds=SECONDS,
)
OPERATIONS: Final[tuple[Operation, ...]] = (LIST, CALL, MCP)

QueryTable.model_rebuild()
