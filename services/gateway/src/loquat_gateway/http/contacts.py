"""`/v1/projects/{id}/contacts`, what changes them: two that are one person are merged, a person is erased. Orders; how far one is can be asked."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Literal
from uuid import UUID

from aiohttp import web
from loquat_common.bus.port import Bus
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem
from loquat_common.tokens import Actor
from loquat_events.contacts import EraseContact, MergeContacts
from loquat_events.envelope import Event, Payload
from loquat_rest.tables import Link
from pydantic import BaseModel, Field

from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access
from loquat_gateway.http.deadletters import CONSUMERS
from loquat_gateway.http.projects import publish
from loquat_gateway.http.resources import Clients, OneContact
from loquat_gateway.http.views import OneProject

_LANE: Final = "contacts"
"""One lane of a project for all its orders, so that they are executed in the order in which they were given."""
_LANES: Final = 1000
"""Addresses that a service takes in one question."""
_PATIENCE: Final = 30.0  # seconds; a person of a hundred thousand messages takes some


class Merge(BaseModel):
    """Into which contact."""

    into: UUID = Field(description="the contact that stays; what it has itself is not replaced")


class OneOrder(OneProject):
    """An order in the path."""

    order_id: UUID


class FollowedColumn(BaseModel):
    """A link column of one of the project's own tables. A refusal is tried again until `next_at` is null."""

    table: str
    column: str
    link: Link
    state: Literal["open", "done", "failed"]
    rows: int = Field(description="that follow: changed, or deleted where the column may not be null")
    attempts: int = Field(description="that the table refused")
    reason: str | None
    next_at: datetime | None


class ContactOrder(BaseModel):
    """An order to merge or to erase a contact. The same wish is the same order.

    waiting: not executed yet; refused: cannot be done any more, `reason` says why; following: done in the record, the project's own tables
    follow; done: all of it; failed: a table of the project's refused too often. The order given again begins again what failed.
    """

    id: UUID
    kind: Literal["merge", "erase"]
    contact_id: UUID
    into: UUID | None
    state: Literal["waiting", "refused", "following", "done", "failed"]
    reason: str | None
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None = Field(description="when it was done in the record")
    rows: int = Field(description="rows of the project's own tables that have followed")
    tables: list[FollowedColumn]


class Contacts:
    """What changes contacts. Reading them is `Resources`'."""

    def __init__(self, access: Access, people: People, clients: Clients, bus: Bus, clock: Callable[[], datetime]) -> None:
        self._access, self._people, self._clients = access, people, clients
        self._bus, self._clock = bus, clock

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        p = "/v1/projects/{project_id}"
        api.route(
            "POST",
            p + "/contacts/{contact_id}/merge",
            self.merge,
            summary="Merge a contact into another one",
            status=202,
            scope="contacts:write",
            errors=(404, 409, 503),
        )
        api.route(
            "DELETE",
            p + "/contacts/{contact_id}",
            self.erase,
            summary="Erase a person",
            status=202,
            scope="contacts:write",
            errors=(404, 409, 503),
        )
        api.route(
            "GET",
            p + "/contact-orders/{order_id}",
            self.show,
            summary="How far an order about contacts is",
            scope="conversations:read",
            errors=(404, 409, 503),
        )

    async def merge(self, request: web.Request, *, path: OneContact, body: Merge) -> ContactOrder:
        """Both are one from then on: `GET` of the merged one answers it with `merged_into`; links in the project's own tables follow."""
        actor = await self._access.project(request, path.project_id, ready=True)
        noted = await self._note(actor, path, body.into)
        order = MergeContacts(project_id=path.project_id, contact_id=path.contact_id, into=body.into, ordered_by=actor.subject)
        await self._give(request, path, order, noted, "contact.merge")
        return _shown(noted)

    async def erase(self, request: web.Request, *, path: OneContact) -> ContactOrder:
        """Texts, contents, names, numbers, addresses, raw updates and dead letters go; rows without them stay, so that everything accepted is still accounted for.

        `GET` of the contact is 410 from then on. Whoever writes again is a new contact. Links in the project's own tables become null, or
        their rows go where that may not be.
        """
        actor = await self._access.project(request, path.project_id, ready=True, asking=("conversations:read", "dead-letters:write"))
        noted = await self._note(actor, path, None)
        await self._forget(actor, path)
        order = EraseContact(project_id=path.project_id, contact_id=path.contact_id, ordered_by=actor.subject)
        await self._give(request, path, order, noted, "contact.erase")
        return _shown(noted)

    async def show(self, request: web.Request, *, path: OneOrder) -> ContactOrder:
        """One order."""
        actor = await self._access.project(request, path.project_id, ready=True)
        base = f"/internal/projects/{path.project_id}"
        noted = await self._clients["conversation-log"].call("GET", f"{base}/contact-orders/{path.order_id}", actor=actor)
        if noted["state"] != "done":
            return _shown(noted)
        try:
            links: Any = await self._clients["schema-manager"].call("GET", f"{base}/followings/{path.order_id}", actor=actor)
        except Problem as problem:
            if problem.status != web.HTTPNotFound.status_code:
                raise
            links = {"state": "open", "reason": None, "columns": []}  # the word is on its way
        return _shown(noted, links)

    async def _note(self, actor: Actor, path: OneContact, into: UUID | None) -> Any:
        """Refused here where that can be known now; the order is looked for under its id from then on, even before it is executed."""
        body = {"contact_id": str(path.contact_id), "into": str(into) if into is not None else None}
        url = f"/internal/projects/{path.project_id}/contact-orders"
        return await self._clients["conversation-log"].call("POST", url, actor=actor, json=body)

    async def _forget(self, actor: Actor, path: OneContact) -> None:
        """What services keep of him outside the project's database: dead letters, sends, log lines.

        Before the order, for afterwards nobody knows his addresses. Cut off here, it is asked for again; so is the order.
        """
        base = f"/internal/projects/{path.project_id}"
        await self._clients["bot-runner"].call(
            "POST", f"{base}/people/forget", actor=actor, json={"contact_id": str(path.contact_id)}, timeout=_PATIENCE
        )
        try:
            contact = await self._clients["conversation-log"].call("GET", f"{base}/contacts/{path.contact_id}", actor=actor)
        except Problem as problem:
            if problem.status != web.HTTPGone.status_code:
                raise
            return
        lanes = [a["value"] for a in contact["addresses"]]
        for some in (lanes[n : n + _LANES] for n in range(0, len(lanes), _LANES)):
            await self._clients["connector"].call("POST", f"{base}/people/forget", actor=actor, json={"addresses": some}, timeout=_PATIENCE)
            for consumer in CONSUMERS:
                await self._clients[consumer].call("POST", f"{base}/dead-letters/forget", actor=actor, json={"lanes": some})

    async def _give(self, request: web.Request, path: OneContact, order: Payload, noted: Any, action: str) -> None:
        event = Event[Payload].of(
            order,
            id=UUID(noted["id"]),
            source="/gateway",
            time=self._clock(),
            project=path.project_id,
            lane=_LANE,
            subject=str(path.contact_id),
        )
        await publish(self._bus, event)
        actor = request[ACTOR]
        await self._people.audit(actor.organization or "", actor.subject, f"{action} {path.contact_id}", path.project_id)


def _shown(noted: Any, links: Any = None) -> ContactOrder:
    known = {k: noted[k] for k in ("id", "kind", "contact_id", "into", "reason", "ordered_by", "ordered_at", "ended_at")}
    if links is None:
        return ContactOrder(state="following" if noted["state"] == "done" else noted["state"], rows=0, tables=[], **known)
    state = "following" if links["state"] == "open" else links["state"]
    known["reason"] = known["reason"] or links["reason"]
    return ContactOrder(state=state, rows=sum(c["rows"] for c in links["columns"]), tables=links["columns"], **known)
