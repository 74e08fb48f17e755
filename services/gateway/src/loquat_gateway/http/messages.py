"""`/v1/projects/{id}/messages`: a person or a program sends. The order goes through the inbox, in one line with what the contact writes."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.bus.port import Bus
from loquat_common.client import InternalClient
from loquat_common.http import Api, idempotency_key
from loquat_common.problems import Problem
from loquat_events.conversations import Address, Outgoing, SendOrdered
from loquat_events.elements import clean
from loquat_events.envelope import Event, Payload
from loquat_events.ids import order_id
from loquat_events.replies import reply_id
from pydantic import BaseModel, Field, model_validator

from loquat_gateway.http.access import Access
from loquat_gateway.http.holding import Holding
from loquat_gateway.http.projects import publish
from loquat_gateway.http.views import ContactDetail, OneProject

_FILES: Final = ("image", "video", "audio", "document", "sticker")
_NEEDED: Final = {
    "buttons": {"buttons"},
    "list": {"sections"},
    "flow": {"flow_id", "flow_name"},
    **{kind: {"link", "id"} for kind in _FILES},
}
"""Of each type's content, what it is nothing without; the connector checks the rest against WhatsApp's limits."""


class NewMessage(BaseModel):
    """To a contact, or to an address; from `number_id`, which may be left out where only one number comes into question."""

    contact_id: UUID | None = None
    address: Address | None = None
    number_id: str | None = None
    message: Outgoing
    take_over: bool | None = Field(
        default=None, description="whether the caller holds the conversation from now on; null: as the project's bot settings say"
    )

    @model_validator(mode="after")
    def _one_of_both(self) -> NewMessage:
        if (self.contact_id is None) == (self.address is None):
            raise ValueError("give contact_id or address, one of both")
        if self.message.type == "text" and not (self.message.text or "").strip():
            raise ValueError("message.text: a text message needs a text")
        if self.message.type in _NEEDED and not (self.message.content or {}).keys() & _NEEDED[self.message.type]:
            raise ValueError(
                f"message.content: a message of type {self.message.type} needs {' or '.join(sorted(_NEEDED[self.message.type]))}"
            )
        return self


class Ordered(BaseModel):
    """The order is durable. `message_id` is the message's from now on, also in its statuses."""

    order_id: UUID
    message_id: UUID


class Messages:
    """The resource `messages`."""

    def __init__(
        self, access: Access, conversations: InternalClient, connector: InternalClient, bus: Bus, clock: Callable[[], datetime]
    ) -> None:
        self._access, self._conversations, self._connector = access, conversations, connector
        self._bus, self._clock = bus, clock
        self._holding = Holding(access, conversations, bus, clock)

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        self._holding.add_to(api)
        api.route(
            "POST",
            "/v1/projects/{project_id}/messages",
            self.send,
            summary="Send a message",
            status=202,
            scope="messages:write",
            errors=(404, 409, 503),
        )

    async def send(self, request: web.Request, *, path: OneProject, body: NewMessage) -> Ordered:
        """Orders a message. The same Idempotency-Key is the same order."""
        actor = await self._access.project(request, path.project_id, ready=True, asking=("conversations:read", "numbers:read"))
        base = f"/internal/projects/{path.project_id}"
        addresses, number = ((body.address,) if body.address else ()), body.number_id
        if body.contact_id is not None:
            answer = await self._conversations.call("GET", f"{base}/contacts/{body.contact_id}", actor=actor)
            contact = ContactDetail.model_validate(answer)
            addresses = tuple(contact.addresses)
            number = number or (contact.open_conversations[0].number_id if contact.open_conversations else None)
        if not addresses:
            raise Problem(409, "no_address", "The contact has no address to write to")
        listed = [n["phone_number_id"] for n in (await self._connector.call("GET", f"{base}/numbers", actor=actor))["items"]]
        chosen = _chosen(number, listed)
        key = order_id(path.project_id, idempotency_key(request) or str(uuid4()))
        order = SendOrdered(
            number_id=chosen,
            addresses=addresses,
            message=_cleaned(body.message),
            ordered_by=actor.subject,
            take_over=body.take_over,
            contact_id=body.contact_id,
        )
        event = Event[Payload].of(order, id=key, source="/gateway", time=self._clock(), project=path.project_id, lane=addresses[0].value)
        await publish(self._bus, event)
        return Ordered(order_id=key, message_id=reply_id(key, 1))


def _chosen(wanted: str | None, listed: list[str]) -> str:
    if wanted is None and len(listed) == 1:
        return listed[0]
    if wanted is None:
        raise Problem(409, "which_number", "The project has no number, or several", "Give number_id")
    if wanted not in listed:
        raise Problem(409, "not_its_number", "The number is none of this project's", "GET its numbers for those that are")
    return wanted


def _cleaned(message: Outgoing) -> Outgoing:
    fields: dict[str, Any] = clean(message.model_dump())
    return Outgoing.model_validate(fields)
