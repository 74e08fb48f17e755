"""Changes of tables: in sets, or one at a time as sets of one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

from aiohttp import web
from loquat_common import cursors
from loquat_common.http import ACTOR, Api, idempotency_key
from loquat_common.problems import Problem
from loquat_rest import changes as shapes
from loquat_rest import tables
from loquat_rest.operation import OneProject
from pydantic import BaseModel

from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.domain.expansion import patched
from loquat_schema_manager.http.tables import BELOW

C = TypeVar("C", bound=BaseModel)


class Changes:
    """Applying, listing and undoing change sets."""

    def __init__(self, changes: ChangeSets) -> None:
        self._changes = changes

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for operation, handler in (
            (shapes.APPLY, self.apply),
            (shapes.HISTORY, self.list),
            (shapes.ONE, self.one),
            (shapes.REVERT, self.revert),
            (shapes.CREATE_TABLE, self.create_table),
            (shapes.PATCH_TABLE, self.patch_table),
            (shapes.DROP_TABLE, self.drop_table),
            (shapes.CLEAR_TABLE, self.clear_table),
            (shapes.ADD_COLUMN, self.add_column),
            (shapes.PATCH_COLUMN, self.patch_column),
            (shapes.DROP_COLUMN, self.drop_column),
            (shapes.SET_KEY, self.set_key),
            (shapes.ADD_UNIQUE, self.add_unique),
            (shapes.ADD_REFERENCE, self.add_reference),
            (shapes.DROP_CONSTRAINT, self.drop_constraint),
            (shapes.CREATE_INDEX, self.create_index),
            (shapes.DROP_INDEX, self.drop_index),
        ):
            api.serve(operation, handler, below=BELOW)

    async def apply(self, request: web.Request, *, path: OneProject, body: shapes.ChangeRequest) -> shapes.ChangeSet:
        """Several changes."""
        return await self._changes.apply(
            path.project_id,
            body.changes,
            actor=request[ACTOR].subject,
            message=body.message,
            dry_run=body.dry_run,
            force=body.force,
            key=idempotency_key(request),
        )

    async def list(self, _request: web.Request, *, path: OneProject, query: shapes.ChangeSetQuery) -> shapes.ChangeSetList:
        """A project's history."""
        items, more = await self._changes.page(path.project_id, cursors.decode(query.cursor), query.limit)
        last = items[-1] if more and items else None
        return shapes.ChangeSetList(items=items, next_cursor=cursors.encode(last.created_at, last.id) if last and last.id else None)

    async def one(self, _request: web.Request, *, path: shapes.OneChangeSet) -> shapes.ChangeSet:
        """A change set."""
        return await self._changes.get(path.project_id, path.change_set)

    async def revert(self, request: web.Request, *, path: shapes.OneChangeSet, body: shapes.RevertRequest) -> shapes.ChangeSet:
        """Undoes one."""
        actor = request[ACTOR].subject
        manner = {"dry_run": body.dry_run, "force": body.force}
        return await self._changes.revert(path.project_id, path.change_set, actor=actor, message=body.message, **manner)

    async def create_table(
        self, request: web.Request, *, path: OneProject, query: shapes.Manner, body: shapes.TableOptions
    ) -> shapes.ChangeSet:
        """A new table."""
        return await self._one(request, path, query, _as(shapes.CreateTable, body))

    async def patch_table(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.TablePatch
    ) -> shapes.ChangeSet:
        """Its comment, then its name."""
        wanted: list[shapes.Change] = []
        if "comment" in body.model_fields_set:
            wanted.append(shapes.CommentTable(table=path.table, comment=body.comment))
        if body.name is not None:
            wanted.append(shapes.RenameTable(table=path.table, to=body.name))
        return await self._several(request, path, query, wanted)

    async def drop_table(self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner) -> shapes.ChangeSet:
        """Drops it."""
        return await self._one(request, path, query, shapes.DropTable(table=path.table))

    async def clear_table(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.ClearOptions
    ) -> shapes.ChangeSet:
        """Deletes all rows."""
        return await self._one(request, path, query, _as(shapes.ClearTable, body, table=path.table))

    async def add_column(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.NewColumn
    ) -> shapes.ChangeSet:
        """A new column."""
        return await self._one(request, path, query, shapes.AddColumn(table=path.table, column=body))

    async def patch_column(
        self, request: web.Request, *, path: tables.OneColumn, query: shapes.Manner, body: shapes.ColumnPatch
    ) -> shapes.ChangeSet:
        """What is given changes."""
        return await self._several(request, path, query, patched(path.table, path.column, body))

    async def drop_column(self, request: web.Request, *, path: tables.OneColumn, query: shapes.Manner) -> shapes.ChangeSet:
        """Drops it."""
        return await self._one(request, path, query, shapes.DropColumn(table=path.table, column=path.column))

    async def set_key(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.KeyOptions
    ) -> shapes.ChangeSet:
        """The primary key."""
        return await self._one(request, path, query, _as(shapes.SetPrimaryKey, body, table=path.table))

    async def add_unique(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.UniqueOptions
    ) -> shapes.ChangeSet:
        """Columns that are unique together."""
        return await self._one(request, path, query, _as(shapes.AddUnique, body, table=path.table))

    async def add_reference(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.ForeignKeyOptions
    ) -> shapes.ChangeSet:
        """A foreign key."""
        return await self._one(request, path, query, _as(shapes.AddForeignKey, body, table=path.table))

    async def drop_constraint(self, request: web.Request, *, path: tables.OneConstraint, query: shapes.Manner) -> shapes.ChangeSet:
        """A key or check goes."""
        return await self._one(request, path, query, shapes.DropConstraint(table=path.table, constraint=path.constraint))

    async def create_index(
        self, request: web.Request, *, path: tables.OneTable, query: shapes.Manner, body: shapes.IndexOptions
    ) -> shapes.ChangeSet:
        """A new index."""
        return await self._one(request, path, query, _as(shapes.CreateIndex, body, table=path.table))

    async def drop_index(self, request: web.Request, *, path: tables.OneIndex, query: shapes.Manner) -> shapes.ChangeSet:
        """An index goes."""
        return await self._one(request, path, query, shapes.DropIndex(table=path.table, index=path.index))

    async def _one(self, request: web.Request, path: OneProject, manner: shapes.Manner, change: shapes.Change) -> shapes.ChangeSet:
        return await self._several(request, path, manner, [change])

    async def _several(
        self, request: web.Request, path: OneProject, manner: shapes.Manner, wanted: Sequence[shapes.Change]
    ) -> shapes.ChangeSet:
        if not wanted:
            raise Problem(422, "invalid_request", "The request is not valid", "body: nothing is to be changed")
        return await self._changes.apply(
            path.project_id,
            wanted,
            actor=request[ACTOR].subject,
            dry_run=manner.dry_run,
            force=manner.force,
            key=idempotency_key(request),
        )


def _as(change: type[C], options: BaseModel, **more: Any) -> C:
    """A change from the body of a resource that has the same fields; they are checked already, those of the path are not."""
    return change.model_construct(**{k: getattr(options, k) for k in type(options).model_fields}, **more)
