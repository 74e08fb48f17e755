"""Meta's side: the Graph API that the connector calls."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any, Final

import orjson
from aiohttp import web

from loquat_simulator.graph import FAULTS, GraphError, checked, error_of, read_receipt
from loquat_simulator.media import Files
from loquat_simulator.webhooks import Webhooks
from loquat_simulator.world import Bubble, Number, Phone, World

Json = dict[str, Any]


_ACCEPTED: Final = ("timeout_after_accept", "broken_answer")
"""Faults of a message that its contact gets."""
_BETWEEN: Final = 0.05  # seconds between two pieces of an answer: more than a network joins together


class Meta:
    """The routes under `/v{n}.0`."""

    def __init__(self, world: World, webhooks: Webhooks) -> None:
        self._world, self._webhooks, self.files = world, webhooks, Files(world)

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        version = r"/{version:v\d+\.0}"
        app.router.add_post(version + "/{number}/messages", self.send)
        app.router.add_get(version + "/{number}", self.node)
        self.files.add_to(app)
        app.router.add_post(version + "/{waba}/subscribed_apps", self.subscribe)
        app.router.add_delete(version + "/{waba}/subscribed_apps", self.subscribe)

    async def send(self, request: web.Request) -> web.StreamResponse:
        """A message for a person's phone."""
        trace = "A" + secrets.token_urlsafe(8)
        number = request.match_info["number"]
        note: Json = {"phone_number_id": number, "trace": trace}
        self._world.attempts.append(note)
        try:
            body = orjson.loads(await request.read())
            note["body"] = body
            answer = await self._accepted(request, number, body)
        except orjson.JSONDecodeError:
            answer = self._refused(GraphError(400, 100, "Invalid parameter", "The body is not JSON"), note)
        except GraphError as error:
            answer = self._refused(error, note)
        note["status"] = answer.status
        return await _in_pieces(request, answer) if self._world.fault(number, "in_pieces") else answer

    def _refused(self, error: GraphError, note: Json) -> web.Response:
        note["code"] = error.code
        return web.json_response(error.body(note["trace"]), status=error.status)

    async def _accepted(self, request: web.Request, number_id: str, body: Json) -> web.Response:
        number = self._authorized(request, number_id)
        fault = self._world.fault(number_id, "500", "429", *_ACCEPTED) or self._world.fault_code(number_id)
        if fault is not None and fault not in _ACCEPTED:
            raise FAULTS.get(fault) or error_of(int(fault))
        if body.get("status") == "read":
            return await self._read(number_id, body)
        to, kind = checked(body)
        phone = self._world.phone(number_id, to)
        key = body.get("biz_opaque_callback_data")
        bubble = self._world.add(phone, "in", kind, shown(kind, body[kind]), body[kind], message_id=key)
        await self._world.touch()
        self._statuses(number, phone, bubble)
        if fault == "timeout_after_accept":
            await asyncio.sleep(15)  # longer than any client waits
        if fault == "broken_answer":
            return web.Response(status=502, text="<html>Bad Gateway</html>", content_type="text/html")
        contacts = [{"input": body.get("to") or body.get("recipient"), "wa_id": to}]
        return web.json_response({"messaging_product": "whatsapp", "contacts": contacts, "messages": [{"id": bubble.id}]})

    async def _read(self, number_id: str, body: Json) -> web.Response:
        """Of a contact's message: it was read; and an answer is being written, if the body says so."""
        wamid, typing = read_receipt(body)
        if not any(phone.read(wamid, typing=typing) for phone in self._world.phones(number_id)):
            raise GraphError(400, 131009, "Parameter value is not valid", "message_id is no message to this number")
        await self._world.touch()
        return web.json_response({"success": True})

    def _authorized(self, request: web.Request, number_id: str) -> Number:
        number = self._world.numbers.get(number_id)
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        if number is None:
            raise GraphError(400, 100, "Invalid parameter", f"Object with ID '{number_id}' does not exist")
        if kind != "Bearer" or not token or (number.token is not None and token != number.token):
            raise GraphError(401, 190, "Invalid OAuth access token")
        return number

    def _statuses(self, number: Number, phone: Phone, bubble: Bubble) -> None:
        for word in ("sent", "delivered"):
            bubble.status = word
            self.status(number, phone, bubble, word)

    def status(self, number: Number, phone: Phone, bubble: Bubble, word: str) -> None:
        """Tells the business what became of its message."""
        made: Json = {"id": bubble.id, "status": word, "timestamp": str(int(bubble.at)), "recipient_id": phone.contact}
        pricing = {"billable": False, "pricing_model": "PMP", "type": "free_customer_service", "category": "service"}
        made |= {"pricing": pricing} if word != "read" else {}
        made |= {"biz_opaque_callback_data": bubble.message_id} if bubble.message_id else {}
        self._webhooks.change(number, {"statuses": [made]})

    async def node(self, request: web.Request) -> web.Response:
        """A number's own fields, or a file's."""
        if request.match_info["number"] not in self._world.numbers:
            return self.files.node(request, request.match_info["number"])
        number = self._world.numbers[request.match_info["number"]]
        fields = {
            "id": number.phone_number_id,
            "display_phone_number": number.display_phone_number,
            "verified_name": "Simulated",
            "quality_rating": "GREEN",
        }
        return web.json_response({**fields, "status": "CONNECTED", "throughput": {"level": "STANDARD"}})

    async def subscribe(self, _request: web.Request) -> web.Response:
        """Apps of a WhatsApp business account."""
        return web.json_response({"success": True})


async def _in_pieces(request: web.Request, answer: web.Response) -> web.StreamResponse:
    """The same answer, half by half."""
    body = answer.body if isinstance(answer.body, bytes) else b""
    pieces = web.StreamResponse(status=answer.status, headers={"Content-Type": answer.content_type})
    await pieces.prepare(request)
    await pieces.write(body[: len(body) // 2])
    await asyncio.sleep(_BETWEEN)
    await pieces.write(body[len(body) // 2 :])
    await pieces.write_eof()
    return pieces


def shown(kind: str, content: Json) -> str | None:
    """The text that a bubble shows."""
    if kind == "text":
        return content.get("body")
    if kind == "interactive":
        return content.get("body", {}).get("text")
    return content.get("caption")
