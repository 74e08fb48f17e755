"""Who holds a conversation: a person takes it over, leaves it to people, hands it back. Orders like any other, in one line with what the contact writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Annotated, Any
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.bus.port import Bus
from loquat_common.client import InternalClient
from loquat_common.http import Api, idempotency_key
from loquat_common.problems import Problem
from loquat_events.conversations import HoldOrdered
from loquat_events.elements import clean
from loquat_events.envelope import Event, Payload
from loquat_events.ids import order_id
from pydantic import BaseModel, ConfigDict, Field, StringConstraints

from loquat_gateway.http.access import Access
from loquat_gateway.http.projects import publish
from loquat_gateway.http.views import ConversationDetail, OneProject

_AT = "/v1/projects/{project_id}/conversations/{conversation_id}"


class OneConversation(OneProject):
    """A conversation in the path."""

    conversation_id: UUID


class Hold(BaseModel):
    """For oneself, or for people: then nobody holds it yet, and it is the bot's no more."""

    model_config = ConfigDict(extra="forbid")

    for_people: bool = False
    seconds: Annotated[float, Field(ge=1, le=31_622_400)] | None = Field(
        default=None, description="until it is the bot's again by itself; null: until somebody hands it back"
    )
    note: Annotated[str, StringConstraints(max_length=1000)] | None = None


class Ordered(BaseModel):
    """The order is durable. What the contact writes from now on comes after it."""

    order_id: UUID


class Holding:
    """The holder of a conversation, and whether it needs attention."""

    def __init__(self, access: Access, conversations: InternalClient, bus: Bus, clock: Callable[[], datetime]) -> None:
        self._access, self._conversations, self._bus, self._clock = access, conversations, bus, clock

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        more: dict[str, Any] = {"status": 202, "scope": "messages:write", "errors": (404, 409, 503)}
        api.route("POST", f"{_AT}/hold", self.hold, summary="Take a conversation over", **more)
        api.route("POST", f"{_AT}/release", self.release, summary="Hand a conversation back to the bot", **more)
        api.route("POST", f"{_AT}/resolve", self.resolve, summary="Say that a conversation needs no attention any more", **more)

    async def hold(self, request: web.Request, *, path: OneConversation, body: Hold) -> Ordered:
        """The bot hears nothing of it from now on. The same Idempotency-Key is the same order."""
        holder = "people" if body.for_people else "person"
        return await self._order(request, path, holder=holder, seconds=body.seconds, note=clean(body.note))

    async def release(self, request: web.Request, *, path: OneConversation) -> Ordered:
        """The bot answers what is written from now on, and nothing that was written meanwhile. It needs no attention any more either."""
        return await self._order(request, path, holder="bot", resolved=True)

    async def resolve(self, request: web.Request, *, path: OneConversation) -> Ordered:
        """Whoever holds it does so further on."""
        return await self._order(request, path, resolved=True)

    async def _order(self, request: web.Request, path: OneConversation, **what: Any) -> Ordered:
        actor = await self._access.project(request, path.project_id, ready=True, asking=("conversations:read",))
        tail = f"/internal/projects/{path.project_id}/conversations/{path.conversation_id}"
        known = ConversationDetail.model_validate(await self._conversations.call("GET", tail, actor=actor))
        if known.status != "open":
            raise Problem(409, "conversation_closed", "The conversation is closed", "The contact's next message opens another one")
        if not known.addresses:
            raise Problem(409, "no_address", "The contact has no address")
        order = HoldOrdered.model_validate(
            {
                "conversation_id": path.conversation_id,
                "number_id": known.number_id,
                "addresses": known.addresses,
                "contact_id": known.contact_id,
                "ordered_by": actor.subject,
                **what,
            }
        )
        key = order_id(path.project_id, idempotency_key(request) or str(uuid4()))
        lane = known.addresses[0].value
        await publish(
            self._bus, Event[Payload].of(order, id=key, source="/gateway", time=self._clock(), project=path.project_id, lane=lane)
        )
        return Ordered(order_id=key)
