"""The seven tools of agents: what tables, change sets and rows can do, in the form that a language model asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found, of_validation
from loquat_common.tokens import Actor
from loquat_rest import changes as change
from loquat_rest import tools as shapes
from loquat_rest.operation import AUDITED, JSON, OneProject
from loquat_rest.rows import Query
from pydantic import BaseModel, ValidationError

from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.domain.exact import reading
from loquat_schema_manager.http.tables import BELOW, Tables

_READ: Final = "database:read"
_WRITE: Final = "database:write"


@dataclass(frozen=True, slots=True)
class Tool:
    """A tool. `run(project, actor, arguments)` gives JSON; `arguments` are of the model of that name."""

    name: str
    title: str
    description: str
    arguments: type[BaseModel]
    scope: str
    run: Callable[[str, str, Any], Awaitable[bytes]]
    destructive: bool = False

    @property
    def read_only(self) -> bool:
        """Whether it changes nothing."""
        return self.scope == _READ

    def view(self) -> shapes.ToolView:
        """As it is listed."""
        return shapes.ToolView(
            name=self.name,
            title=self.title,
            description=self.description,
            scope=self.scope,
            read_only=self.read_only,
            destructive=self.destructive,
            idempotent=self.read_only,
            input_schema=self.arguments.model_json_schema(),
        )


@dataclass(frozen=True, slots=True)
class Result:
    """What a call gave, as JSON. `changed`: what is to stand in the audit record, if anything."""

    json: bytes
    changed: str | None


class Toolbox:
    """The tools, for whoever calls them: REST and MCP."""

    def __init__(self, tables: Tables, changes: ChangeSets, rows: Rows) -> None:
        self._tables, self._changes, self._rows = tables, changes, rows
        self.tools: Final = {t.name: t for t in (*self._reading(), *self._writing())}

    def _reading(self) -> tuple[Tool, ...]:
        return (
            Tool(
                "list_tables",
                "List tables",
                "All tables and views with columns, keys, indexes and sizes, by name. contacts, conversations and messages are the platform's:"
                " they can be read alone.",
                shapes.ListTables,
                _READ,
                self._list_tables,
            ),
            Tool(
                "describe_table",
                "Describe a table",
                "One table as list_tables shows it.",
                shapes.DescribeTable,
                _READ,
                self._describe_table,
            ),
            Tool(
                "query_table",
                "Query a table",
                "Rows, filtered, sorted, searched and in pages. bigint and numeric values are strings. To go on, give next_cursor as cursor.",
                shapes.QueryTable,
                _READ,
                self._query_table,
            ),
        )

    def _writing(self) -> tuple[Tool, ...]:
        return (
            Tool(
                "create_table",
                "Create a table",
                "A new table. It gets a primary key id unless told otherwise. Types: text, varchar(n), integer, bigint, numeric(p,s), boolean,"
                " date, timestamptz, uuid, jsonb, serial.",
                shapes.CreateTable,
                _WRITE,
                self._create_table,
            ),
            Tool("add_column", "Add a column", "A new column of a table of the project's own.", shapes.AddColumn, _WRITE, self._add_column),
            Tool(
                "drop_table",
                "Drop a table",
                "The table and all of its rows are gone. Try it with dry_run first.",
                shapes.DropTable,
                _WRITE,
                self._drop_table,
                destructive=True,
            ),
            Tool("insert_rows", "Insert rows", "Up to 1000 rows, all or nothing.", shapes.InsertRows, _WRITE, self._insert_rows),
        )

    async def call(self, project: str, actor: Actor, name: str, arguments: object, exact: object = None) -> Result:
        """Calls a tool with the caller's rights. `exact` are the arguments with their numbers as they were written, if a double rounds any.

        Raises:
            Problem: 404 no such tool; 403 the key's scopes do not reach; 422 what of the arguments is wrong; as the resources do.
        """
        tool = self.tools.get(name)
        if tool is None:
            raise not_found("tool")
        if tool.scope not in actor.scopes:
            raise Problem(403, "forbidden", "This key may not do that", f"It lacks the scope {tool.scope}")
        try:
            given = tool.arguments.model_validate(arguments)
        except ValidationError as error:
            raise of_validation("arguments", error) from None
        if isinstance(given, shapes.InsertRows) and isinstance(exact, dict):
            given = given.model_copy(update={"rows": exact["rows"]})
        changed = None if tool.read_only or getattr(given, "dry_run", False) else f"tool {name}"
        return Result(await tool.run(project, actor.subject, given), changed)

    async def _list_tables(self, project: str, _actor: str, given: shapes.ListTables) -> bytes:
        return _json(await self._tables.page(project, given.after, given.limit))

    async def _describe_table(self, project: str, _actor: str, given: shapes.DescribeTable) -> bytes:
        return _json(await self._tables.one(project, given.table))

    async def _query_table(self, project: str, _actor: str, given: shapes.QueryTable) -> bytes:
        query = Query.model_validate(given.model_dump(exclude={"table"}, exclude_unset=True, by_alias=True))
        return (await self._rows.query(project, given.table, query)).json()

    async def _create_table(self, project: str, actor: str, given: shapes.CreateTable) -> bytes:
        wish = change.CreateTable.model_validate(given.model_dump(exclude={"dry_run"}, exclude_unset=True))
        return _json(await self._changes.apply(project, [wish], actor=actor, dry_run=given.dry_run))

    async def _add_column(self, project: str, actor: str, given: shapes.AddColumn) -> bytes:
        wish = change.AddColumn(table=given.table, column=given.column)
        return _json(await self._changes.apply(project, [wish], actor=actor, dry_run=given.dry_run, force=given.force))

    async def _drop_table(self, project: str, actor: str, given: shapes.DropTable) -> bytes:
        return _json(await self._changes.apply(project, [change.DropTable(table=given.table)], actor=actor, dry_run=given.dry_run))

    async def _insert_rows(self, project: str, actor: str, given: shapes.InsertRows) -> bytes:
        return (await self._rows.insert(project, given.table, given.rows, actor)).json()


class ToolsApi:
    """The tools by REST."""

    def __init__(self, toolbox: Toolbox) -> None:
        self._toolbox = toolbox

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.LIST, self.list, below=BELOW)
        api.serve(shapes.CALL, self.call, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject) -> shapes.ToolList:  # noqa: ARG002  (the path is checked by it)
        """All of them, also those that the key's scopes do not reach."""
        return shapes.ToolList(items=[t.view() for t in self._toolbox.tools.values()])

    async def call(self, request: web.Request, *, path: shapes.OneTool, body: shapes.Arguments) -> web.Response:
        """One call."""
        exact = reading(await request.read())
        result = await self._toolbox.call(path.project_id, request[ACTOR], path.tool, body.root, exact)
        return web.Response(body=result.json, content_type=JSON, headers={AUDITED: result.changed} if result.changed else None)


def _json(model: BaseModel) -> bytes:
    return model.model_dump_json().encode()
