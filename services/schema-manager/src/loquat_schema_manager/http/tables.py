"""Tables as they are."""

from __future__ import annotations

from typing import Final

from aiohttp import web
from loquat_common.http import Api
from loquat_common.problems import not_found
from loquat_rest import tables as shapes
from loquat_rest.operation import OneProject

from loquat_schema_manager.adapters import catalog
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.refusals import refusals
from loquat_schema_manager.domain import links
from loquat_schema_manager.domain.tables import Table, TableColumn

BELOW: Final = "/internal/projects/{project_id}"
_LOOK: Final = Session(statement_ms=5_000, read_only=True)
_KINDS: Final = {"r": "table", "p": "partitioned table", "v": "view", "m": "materialized view", "f": "foreign table"}


class Tables:
    """What tables there are and what they look like."""

    def __init__(self, editors: Editors) -> None:
        self._editors = editors

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.LIST, self.list, below=BELOW)
        api.serve(shapes.DESCRIBE, self.describe, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject, query: shapes.TableQuery) -> shapes.TableList:
        """Tables and views of schema public."""
        return await self.page(path.project_id, query.after, query.limit)

    async def page(self, project: str, after: str | None, limit: int) -> shapes.TableList:
        """Tables behind the name `after`, at most `limit`.

        Raises:
            Problem: 409 `locked`: somebody holds one of them so that nobody may look.
        """
        async with self._editors.session(project, _LOOK) as editor:
            with refusals():
                found, more = await catalog.page(editor, after, limit)
        return shapes.TableList(items=[view(t) for t in found], next=found[-1].name if more else None)

    async def describe(self, _request: web.Request, *, path: shapes.OneTable) -> shapes.TableView:
        """One table."""
        return await self.one(path.project_id, path.table)

    async def one(self, project: str, name: str) -> shapes.TableView:
        """A table by its name.

        Raises:
            Problem: 404 when there is none, 409 `locked`.
        """
        async with self._editors.session(project, _LOOK) as editor:
            with refusals():
                found = await catalog.one(editor, name)
        if found is None:
            raise not_found("table")
        return view(found)


def view(table: Table) -> shapes.TableView:
    """A table as the API shows it."""
    key = table.key.columns if table.key else ()
    return shapes.TableView(
        name=table.name,
        kind=_KINDS[table.kind],  # pyright: ignore[reportArgumentType]  (one of the five words)
        system=table.is_system,
        allowed=table.allowed,
        comment=table.comment,
        rows=table.rows,
        size_bytes=table.size,
        primary_key=list(key),
        columns=[_column(table, c) for c in table.columns],
        unique=[shapes.Unique(name=c.name, columns=list(c.columns)) for c in table.constraints if c.kind == "u"],
        foreign_keys=[
            shapes.ForeignKey(
                name=c.name,
                columns=list(c.columns),
                to_table=c.to_table or "",
                to_columns=list(c.to_columns),
                on_delete=c.on_delete,
            )
            for c in table.constraints
            if c.kind == "f"
        ],
        referenced_by=list(table.referenced_by),
        indexes=[
            shapes.Index(
                name=i.name,
                method=i.method,
                unique=i.unique,
                columns=list(i.columns),
                constraint=i.constraint,
                valid=i.valid,
                definition=i.definition,
            )
            for i in table.indexes
        ],
    )


def _column(table: Table, column: TableColumn) -> shapes.Column:
    link, comment = links.read(column.comment) if column.written == "uuid" else (None, column.comment)
    kind = column.type
    written = str(kind) if kind else column.written
    alone = (column.name,)
    return shapes.Column(
        name=column.name,
        type="serial" if column.serial and written == "integer" else written,
        settable=kind is not None,
        nullable=not column.not_null,
        default=column.default,
        generated=column.generated,
        primary_key=table.key is not None and column.name in table.key.columns,
        unique=any(i.unique and i.valid and not i.partial and i.names == alone for i in table.indexes),
        references=next(
            (
                shapes.Reference(constraint=c.name, table=c.to_table or "", column=c.to_columns[0])
                for c in table.constraints
                if c.kind == "f" and c.columns == alone
            ),
            None,
        ),
        link=link,
        comment=comment,
    )
