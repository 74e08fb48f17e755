"""`/v1/projects/{id}/dead-letters`: of all consumers, as one list. An id is `consumer.number`."""

from __future__ import annotations

import asyncio
import base64
import binascii
from collections.abc import Mapping
from heapq import merge
from itertools import islice
from typing import Annotated, Any, Final

from aiohttp import web
from loquat_common.client import ServiceUnavailable
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_common.tokens import Actor
from loquat_events.catalog import Service
from pydantic import BaseModel, Field, StringConstraints, TypeAdapter, ValidationError

from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access
from loquat_gateway.http.resources import Clients
from loquat_gateway.http.views import DeadLetter, DeadLetterDetail, DeadLetterList, OneProject, Page

CONSUMERS: tuple[Service, ...] = ("bot-runner", "conversation-log", "connector", "provisioner", "schema-manager")
_Seen = Mapping[str, Annotated[int, Field(ge=1, le=2**63 - 1)]]
"""By consumer: the number of the last letter that a caller has seen."""
_SEEN: Final[TypeAdapter[_Seen]] = TypeAdapter(_Seen)


class OneLetter(OneProject):
    """A dead letter in the path."""

    letter_id: Annotated[
        str, StringConstraints(pattern=r"^(bot-runner|conversation-log|connector|provisioner|schema-manager)\.[1-9][0-9]{0,17}$")
    ]


class Reason(BaseModel):
    """Why it is given up for good."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Redriven(BaseModel):
    """It is on its way to its consumer again."""

    redriven: bool


class DeadLetters:
    """The resource `dead-letters`."""

    def __init__(self, access: Access, people: People, clients: Clients) -> None:
        self._access, self._people, self._clients = access, people, clients

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        p = "/v1/projects/{project_id}/dead-letters"
        api.route("GET", p, self.list, summary="List dead letters", scope="dead-letters:read", errors=(400, 404))
        api.route("GET", p + "/{letter_id}", self.show, summary="A dead letter with its event", scope="dead-letters:read", errors=(404,))
        api.route(
            "POST", p + "/{letter_id}/redrive", self.redrive, summary="Try again", status=202, scope="dead-letters:write", errors=(404,)
        )
        api.route(
            "POST", p + "/{letter_id}/discard", self.discard, summary="Give up for good", scope="dead-letters:write", errors=(404, 409)
        )

    async def list(self, request: web.Request, *, path: OneProject, query: Page) -> DeadLetterList:
        """The newest first. Of each consumer in its own order, so that a cursor is one number for each."""
        actor, seen = await self._access.project(request, path.project_id), _decoded(query.cursor)
        answers = await asyncio.gather(*(self._of(c, actor, path.project_id, seen.get(c), query.limit) for c in CONSUMERS))
        found = [a for a in answers if a is not None]
        items = list(islice(merge(*found, key=lambda d: d.created_at, reverse=True), query.limit))
        more = sum(map(len, found)) > len(items) or any(len(a) == query.limit for a in found)
        shown = {**seen, **{d.consumer: int(d.id.partition(".")[2]) for d in items}}
        return DeadLetterList(
            items=items,
            unavailable=[c for c, found in zip(CONSUMERS, answers, strict=True) if found is None],
            next_cursor=_encoded(shown) if more else None,
        )

    async def _of(self, consumer: Service, actor: Actor, project: str, before: int | None, limit: int) -> list[DeadLetter] | None:
        query = {"limit": str(limit)} | ({} if before is None else {"before": str(before)})
        try:
            answer = await self._clients[consumer].call("GET", f"/internal/projects/{project}/dead-letters", actor=actor, query=query)
        except ServiceUnavailable:
            return None
        return [DeadLetter.model_validate(_named(consumer, d)) for d in answer["items"]]

    async def show(self, request: web.Request, *, path: OneLetter) -> DeadLetterDetail:
        """One of them."""
        consumer, answer = await self._ask(request, "GET", path, "")
        return DeadLetterDetail.model_validate(_named(consumer, answer))

    async def redrive(self, request: web.Request, *, path: OneLetter) -> Redriven:
        """Gives it to its consumer again, out of order by design."""
        await self._ask(request, "POST", path, "/redrive")
        await self._audit(request, "dead_letter.redrive", path.project_id)
        return Redriven(redriven=True)

    async def discard(self, request: web.Request, *, path: OneLetter, body: Reason) -> None:
        """Ends it with a reason."""
        await self._ask(request, "POST", path, "/discard", body.model_dump())
        await self._audit(request, "dead_letter.discard", path.project_id)

    async def _ask(self, request: web.Request, method: str, path: OneLetter, tail: str, json: object = None) -> tuple[Service, Any]:
        actor = await self._access.project(request, path.project_id)
        name, _, number = path.letter_id.partition(".")
        consumer: Service | None = next((c for c in CONSUMERS if c == name), None)
        if consumer is None:
            raise not_found("dead letter")
        answer = await self._clients[consumer].call(
            method, f"/internal/projects/{path.project_id}/dead-letters/{number}{tail}", actor=actor, json=json
        )
        return consumer, answer

    async def _audit(self, request: web.Request, action: str, project: str) -> None:
        actor = request[ACTOR]
        await self._people.audit(actor.organization or "", actor.subject, action, project)


def _named(consumer: str, letter: dict[str, Any]) -> dict[str, Any]:
    return {**letter, "id": f"{consumer}.{letter['id']}", "consumer": consumer}


def _encoded(seen: _Seen) -> str:
    return base64.urlsafe_b64encode(_SEEN.dump_json(seen)).decode().rstrip("=")


def _decoded(cursor: str | None) -> _Seen:
    if cursor is None:
        return {}
    try:
        return _SEEN.validate_json(base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)))
    except (ValidationError, ValueError, binascii.Error):
        raise Problem(400, "invalid_cursor", "The cursor is none of ours", "Take it from `next_cursor` of the page before") from None
