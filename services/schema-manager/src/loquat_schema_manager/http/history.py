"""The history of rows."""

from __future__ import annotations

from typing import Any

import orjson
from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_rest import history as shapes
from loquat_rest.operation import JSON

from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.http.tables import BELOW


class Histories:
    """What was changed, by whom, and back again."""

    def __init__(self, history: History) -> None:
        self._history = history

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.SWITCH, self.switch, below=BELOW)
        api.serve(shapes.LIST, self.list, below=BELOW)
        api.serve(shapes.UNDO, self.undo, below=BELOW)
        api.serve(shapes.FORGET, self.forget, below=BELOW)

    async def switch(self, _request: web.Request, *, path: shapes.HistoryOfTable, body: shapes.HistorySwitch) -> shapes.HistoryState:
        """On or off."""
        days = await self._history.switch(path.project_id, path.table, enabled=body.enabled, keep_days=body.keep_days)
        return shapes.HistoryState(table=path.table, enabled=body.enabled, keep_days=days)

    async def list(self, _request: web.Request, *, path: shapes.HistoryOfTable, query: shapes.HistoryQuery) -> web.Response:
        """The newest first. The answer is written here: the tenant's JSON may nest deeper than a model can follow."""
        before = int(query.cursor) if query.cursor else None
        noted = await self._history.list(path.project_id, path.table, query.key, before, query.limit)
        items = [_shown(dict(change)) for change in noted.changes]
        answer = {
            "enabled": noted.enabled,
            "keep_days": noted.keep_days,
            "items": items,
            "next_cursor": items[-1]["id"] if noted.more else None,
        }
        return web.Response(body=orjson.dumps(answer), content_type=JSON)

    async def undo(self, request: web.Request, *, path: shapes.OneChange) -> shapes.Undone:
        """One change."""
        taken = await self._history.undo(path.project_id, path.table, int(path.change), request[ACTOR].subject)
        return shapes.Undone(change=str(taken.change) if taken.change is not None else None, left_out=taken.left_out)

    async def forget(self, _request: web.Request, *, path: shapes.HistoryOfTable, query: shapes.ForgetQuery) -> shapes.Forgotten:
        """Those before a time."""
        return shapes.Forgotten(count=await self._history.forget(path.project_id, path.table, query.before))


def _shown(change: dict[str, Any]) -> dict[str, Any]:
    numbers = {name: str(change[name]) if change[name] is not None else None for name in ("id", "undoes")}
    images = {name: orjson.Fragment(change[name]) if change[name] is not None else None for name in ("key", "old", "new")}
    return {**change, **numbers, **images}
