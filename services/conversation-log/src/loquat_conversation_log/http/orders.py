"""Orders about contacts: looked at before they go onto the bus, and how far they are."""

from __future__ import annotations

from datetime import datetime
from uuid import UUID

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_events.ids import contact_order_id
from loquat_events.projects import ProjectListed
from pydantic import BaseModel

from loquat_conversation_log.adapters.orders import Kept, Orders
from loquat_conversation_log.adapters.queries import Queries, Row
from loquat_conversation_log.domain.orders import Kind, Order, State
from loquat_conversation_log.http.api import reading


class _Project(BaseModel):
    project_id: str


class _One(_Project):
    order_id: UUID


class NewOrder(BaseModel):
    """To merge `contact_id` into `into`; without it, to erase."""

    contact_id: UUID
    into: UUID | None = None


class ContactOrder(BaseModel):
    """An order, and how far it is. `done`: in the record; what follows in the project's own tables is schema-manager's to tell."""

    id: UUID
    kind: Kind
    contact_id: UUID
    into: UUID | None
    state: State
    reason: str | None
    epoch: int | None
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None


class OrdersApi:
    """Part of the internal API."""

    def __init__(self, orders: Orders, queries: Queries, directory: Directory) -> None:
        self._orders, self._queries, self._directory = orders, queries, directory

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        base = "/internal/projects/{project_id}/contact-orders"
        api.route("POST", base, self.note, summary="Note an order that is about to be given", scope="contacts:write")
        api.route("GET", base + "/{order_id}", self.show, summary="An order about contacts", scope="conversations:read")

    async def note(self, request: web.Request, *, path: _Project, body: NewOrder) -> ContactOrder:
        """Refuses what cannot be done as things are; notes the rest. Its command must follow, and may come again."""
        project = self._directory.get(path.project_id)
        if project is None:
            raise not_found("project")
        if project.state != "ready":
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {project.state}")
        contact = await self._contact(project, body.contact_id, "contact_id")
        if body.into is not None:
            self._mergeable(contact, await self._contact(project, body.into, "into"))
        elif contact["merged_into"] is not None:
            raise _merged("contact_id", contact)
        kind: Kind = "erase" if body.into is None else "merge"
        parts = [str(c) for c in (body.contact_id, body.into) if c is not None]
        order = contact_order_id(project.project_id, kind, *parts)
        asked = Order(order, project.project_id, kind, body.contact_id, body.into, request[ACTOR].subject)
        return _view(await self._orders.accept(asked, project.epoch))

    async def show(self, _request: web.Request, *, path: _One) -> ContactOrder:
        """One order."""
        found = await self._orders.get(path.project_id, path.order_id)
        if found is None:
            raise not_found("order")
        return _view(found)

    async def _contact(self, project: ProjectListed, contact: UUID, field: str) -> Row:
        row: Row | None = await reading(self._queries.contact(project, contact))
        if row is None:
            raise Problem(404, "not_found", "There is no such contact", f"{field}: {contact}", field=field)
        return row

    def _mergeable(self, contact: Row, into: Row) -> None:
        if contact["id"] == into["id"]:
            raise Problem(422, "same_contact", "A contact cannot be merged into itself", "into names contact_id")
        if contact["merged_into"] == into["id"]:
            return
        for field, row in (("contact_id", contact), ("into", into)):
            if row["erased_at"] is not None:
                raise Problem(409, "contact_erased", "The contact was erased", field, field=field)
            if row["merged_into"] is not None:
                raise _merged(field, row)


def _merged(field: str, row: Row) -> Problem:
    into = row["merged_into"]
    return Problem(
        409, "contact_merged", "The contact was merged into another one", f"{field}: it is {into} now", field=field, merged_into=into
    )


def _view(kept: Kept) -> ContactOrder:
    order = kept.order
    return ContactOrder(
        id=order.id,
        kind=order.kind,
        contact_id=order.contact_id,
        into=order.into,
        state=kept.state,
        reason=kept.reason,
        epoch=kept.epoch,
        ordered_by=order.ordered_by,
        ordered_at=kept.ordered_at,
        ended_at=kept.ended_at,
    )
