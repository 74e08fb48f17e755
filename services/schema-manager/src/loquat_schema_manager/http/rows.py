"""Rows by REST. The answers of pages come as Postgres wrote them: they are not read and written anew here."""

from __future__ import annotations

from typing import Any, Final, TypeVar

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_rest import rows as shapes
from pydantic import BaseModel

from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.domain.exact import reading

Model = TypeVar("Model", bound=BaseModel)

BELOW: Final = "/internal/projects/{project_id}"


class RowsApi:
    """The routes of rows."""

    def __init__(self, rows: Rows) -> None:
        self._rows = rows

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.FIRST, self.first, below=BELOW)
        api.serve(shapes.QUERY, self.query, below=BELOW)
        api.serve(shapes.INSERT, self.insert, below=BELOW)
        api.serve(shapes.UPDATE, self.update, below=BELOW)
        api.serve(shapes.DELETE, self.delete, below=BELOW)
        api.serve(shapes.DELETE_MANY, self.delete_many, below=BELOW)
        api.serve(shapes.UPSERT, self.upsert, below=BELOW)

    async def first(self, _request: web.Request, *, path: shapes.InTable, query: shapes.FirstPage) -> web.Response:
        """In the order of the key."""
        page = await self._rows.query(path.project_id, path.table, shapes.Query(limit=query.limit, cursor=query.cursor))
        return _json(page.json())

    async def query(self, _request: web.Request, *, path: shapes.InTable, body: shapes.Query) -> web.Response:
        """A page."""
        return _json((await self._rows.query(path.project_id, path.table, body)).json())

    async def insert(self, request: web.Request, *, path: shapes.InTable, body: shapes.Insert) -> web.Response:
        """All or nothing."""
        rows = (await _exact(request, body, "rows")).rows
        made = await self._rows.insert(path.project_id, path.table, rows, request[ACTOR].subject)
        return _json(made.json(), status=201)

    async def upsert(self, request: web.Request, *, path: shapes.InTable, body: shapes.Upsert) -> web.Response:
        """All or nothing."""
        rows = (await _exact(request, body, "rows")).rows
        return _json((await self._rows.upsert(path.project_id, path.table, rows, body.on, request[ACTOR].subject)).json())

    async def update(self, request: web.Request, *, path: shapes.InTable, body: shapes.Update) -> web.Response:
        """If it is still the row that was read."""
        change = await _exact(request, body, "key", "values")
        return _json((await self._rows.update(path.project_id, path.table, change, request[ACTOR].subject)).encode())

    async def delete(self, request: web.Request, *, path: shapes.InTable, body: shapes.Delete) -> None:
        """One row."""
        wish = await _exact(request, body, "key")
        await self._rows.delete(path.project_id, path.table, wish, request[ACTOR].subject)

    async def delete_many(self, request: web.Request, *, path: shapes.InTable, body: shapes.DeleteMany) -> shapes.Deleted:
        """First how many, then those."""
        count = await self._rows.delete_many(path.project_id, path.table, body, request[ACTOR].subject)
        return shapes.Deleted(count=count, deleted=body.expected is not None)


async def _exact(request: web.Request, body: Model, *fields: str) -> Model:
    """The body, in whose fields of this name numbers are as they were written: the model has doubles."""
    given: dict[str, Any] | None = reading(await request.read())
    if given is None:  # also of NaN and its like, which the model reads: the columns refuse them
        return body
    return body.model_copy(update={name: given[name] for name in fields})


def _json(body: bytes, *, status: int = 200) -> web.Response:
    return web.Response(status=status, body=body, content_type="application/json")
