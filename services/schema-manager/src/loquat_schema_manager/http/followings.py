"""How far link columns have followed an order about contacts."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web
from loquat_common.http import Api
from loquat_common.problems import not_found
from loquat_rest.operation import OneProject
from loquat_rest.tables import Link
from pydantic import BaseModel

from loquat_schema_manager.adapters.followed import FollowedRows
from loquat_schema_manager.domain.followings import State


class OneOrder(OneProject):
    """An order in the path."""

    order_id: UUID


class FollowedColumn(BaseModel):
    """A link column: how many of its rows followed, and why it does not."""

    table: str
    column: str
    link: Link
    state: State
    rows: int
    attempts: int
    reason: str | None
    next_at: datetime | None


class FollowedOrder(BaseModel):
    """An order's links."""

    state: State
    reason: str | None
    columns: list[FollowedColumn]


class FollowingsApi:
    """Part of the internal API."""

    def __init__(self, rows: FollowedRows) -> None:
        self._rows = rows

    def add_to(self, api: Api) -> None:
        """Adds the route."""
        path = "/internal/projects/{project_id}/followings/{order_id}"
        api.route("GET", path, self.show, summary="Links that follow an order about contacts", scope="conversations:read")

    async def show(self, _request: web.Request, *, path: OneOrder) -> FollowedOrder:
        """One order."""
        found = await self._rows.show(path.project_id, path.order_id)
        if found is None:
            raise not_found("order")
        columns = [
            FollowedColumn(
                table=c.table,
                column=c.column,
                link=c.link,
                state=c.state,
                rows=c.rows,
                attempts=c.attempts,
                reason=c.reason,
                next_at=c.next_at if c.state == "open" else None,
            )
            for c in found.columns
        ]
        return FollowedOrder(state=found.state, reason=found.reason, columns=columns)
