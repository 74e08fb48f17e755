"""The person's side: an API for tests and for the phone page, and the page."""

from __future__ import annotations

import asyncio
import base64
import json
import time
from importlib.resources import files
from typing import Annotated, Any, Final, Literal

from aiohttp import web
from loquat_common.http import Api
from loquat_common.problems import not_found
from pydantic import Base64Bytes, BaseModel, Field

from loquat_simulator.meta import Meta
from loquat_simulator.webhooks import Webhooks
from loquat_simulator.world import Fault, Number, World, new_wamid

Json = dict[str, Any]
_LARGEST: Final = 512 << 10  # bytes of a file that comes as JSON
_MIMES: Final = {"image": "image/jpeg", "video": "video/mp4", "audio": "audio/ogg", "document": "application/pdf", "sticker": "image/webp"}
_BEAT: Final = 15.0  # seconds between signs of life on the event stream


class NewNumber(BaseModel):
    """A business's number, and the app whose webhook it calls."""

    phone_number_id: str
    waba_id: str = "100000000000001"
    display_phone_number: str = "15550001111"
    webhook_url: str
    app_secret: str = Field(repr=False)
    verify_token: str = Field(repr=False)
    token: str | None = Field(default=None, repr=False)


class NewMessage(BaseModel):
    """What a contact sends. Buttons and list rows need `id` and `title`; `content` is the type's own object for all other types. `file` is base64."""

    phone_number_id: str
    from_: str = Field(alias="from", min_length=1, max_length=200)
    name: str | None = None
    type: str = "text"
    text: str | None = None
    id: str | None = None
    title: str | None = None
    content: dict[str, Any] | None = None
    file: Annotated[Base64Bytes, Field(max_length=_LARGEST)] | None = Field(
        default=None, repr=False, description="of an image, video, audio, document or sticker"
    )
    reply_to: str | None = None


class Sent(BaseModel):
    """The message's id."""

    wamid: str


class Shown(BaseModel):
    """Messages of a phone, oldest first; `last` is what to give as `after` next time; whether the business is writing."""

    messages: list[dict[str, Any]]
    last: int
    typing: bool = False


class Look(BaseModel):
    """Which phone; what it got (`direction=in`), or all; after which message; how long to wait for one."""

    phone_number_id: str
    contact: str
    after: int = 0
    wait: float = Field(default=0, ge=0, le=30)
    direction: Literal["in", "all"] = "in"


class Fault_(BaseModel):  # noqa: N801  (the document shows it as it is)
    """500, 429, timeout_after_accept, broken_answer, in_pieces, duplicate, reorder, or an error code of Meta's."""

    kind: str = Field(pattern=r"^(timeout_after_accept|broken_answer|in_pieces|duplicate|reorder|[0-9]{1,7})$")
    phone_number_id: str | None = None
    times: int = Field(default=1, ge=1, le=1000)


class OneNumber(BaseModel):
    """A number to look at."""

    phone_number_id: str


class RawBody(BaseModel):
    """A webhook's body as it is to be sent, signed."""

    phone_number_id: str
    body: str


class ReadAll(BaseModel):
    """A phone whose owner reads what is there."""

    phone_number_id: str
    contact: str


class Phones:
    """The API under `/api` and the page at `/`."""

    def __init__(self, world: World, meta: Meta, webhooks: Webhooks) -> None:
        self._world, self._meta, self._webhooks = world, meta, webhooks

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.route("GET", "/", self.page, summary="The phone")
        api.route("POST", "/api/numbers", self.add_number, summary="Register a number", status=201)
        api.route("GET", "/api/numbers", self.numbers, summary="Numbers")
        api.route("GET", "/api/phones", self.phones, summary="Phones that know a number")
        api.route("POST", "/api/messages", self.send, summary="A contact sends", status=201)
        api.route("GET", "/api/messages", self.got, summary="What a contact got")
        api.route("POST", "/api/read", self.read, summary="The contact reads", status=204)
        api.route("GET", "/api/attempts", self.attempts, summary="Calls of the Graph API")
        api.route("POST", "/api/faults", self.add_fault, summary="Let something fail", status=201)
        api.route("DELETE", "/api/faults", self.clear_faults, summary="No more faults")
        api.route("POST", "/api/webhooks/raw", self.raw, summary="Send any body, signed", status=202)
        api.route("GET", "/api/events", self.events, summary="Live changes")

    def _number(self, phone_number_id: str) -> Number:
        number = self._world.numbers.get(phone_number_id)
        if number is None:
            raise not_found("number")
        return number

    async def page(self, _request: web.Request) -> web.Response:
        """One file, no foreign requests."""
        text = files("loquat_simulator.static").joinpath("phone.html").read_text()
        return web.Response(
            text=text,
            content_type="text/html",
            headers={"Content-Security-Policy": "default-src 'self' 'unsafe-inline'; img-src https: data:"},
        )

    async def add_number(self, _request: web.Request, *, body: NewNumber) -> Json:
        """Registers it, or changes it."""
        self._world.numbers[body.phone_number_id] = Number(**body.model_dump())
        await self._world.touch()
        return {"phone_number_id": body.phone_number_id}

    async def numbers(self, _request: web.Request) -> Json:
        """Without secrets."""
        return {
            "items": [
                {"phone_number_id": n.phone_number_id, "display_phone_number": n.display_phone_number} for n in self._world.numbers.values()
            ]
        }

    async def phones(self, _request: web.Request, *, query: OneNumber) -> Json:
        """Who wrote, or was written to."""
        return {"items": [{"contact": p.contact, "name": p.name, "count": p.count} for p in self._world.phones(query.phone_number_id)]}

    async def send(self, _request: web.Request, *, body: NewMessage) -> Sent:
        """The business gets a webhook."""
        number = self._number(body.phone_number_id)
        phone = self._world.phone(number.phone_number_id, body.from_, body.name)
        message, text = _message(body, self._file(number, body))
        bubble = self._world.add(phone, "out", str(message["type"]), text, message.get(str(message["type"]), {}), wamid=message["id"])
        await self._world.touch()
        contact = {"profile": {"name": phone.name}, "wa_id": phone.contact}
        self._webhooks.change(number, {"contacts": [contact], "messages": [message]})
        return Sent(wamid=bubble.id)

    def _file(self, number: Number, body: NewMessage) -> Json:
        """What a webhook says of a file: its digest in base64, unlike the Graph API."""
        if body.file is None:
            return {}
        kind = str((body.content or {}).get("mime_type", _MIMES.get(body.type, "application/octet-stream")))
        file = self._meta.files.keep(number.waba_id, kind, body.file)
        return {"id": file.id, "mime_type": kind, "sha256": base64.b64encode(file.digest).decode()}

    async def got(self, _request: web.Request, *, query: Look) -> Shown:
        """At once if there is something after `after`, else within `wait` seconds."""
        phone = self._world.phone(query.phone_number_id, query.contact)
        end = time.monotonic() + query.wait
        while True:
            version = self._world.version
            found = [b for b in phone.bubbles if b.n > query.after and (query.direction == "all" or b.direction == "in")]
            if found or time.monotonic() >= end:
                return Shown(messages=[b.view() for b in found], last=found[-1].n if found else query.after, typing=phone.typing)
            await self._world.wait(version, end - time.monotonic())

    async def read(self, _request: web.Request, *, body: ReadAll) -> None:
        """Blue ticks."""
        number = self._number(body.phone_number_id)
        phone = self._world.phone(body.phone_number_id, body.contact)
        for bubble in phone.bubbles:
            if bubble.direction == "in" and bubble.status == "delivered":
                bubble.status = "read"
                self._meta.status(number, phone, bubble, "read")
        await self._world.touch()

    async def attempts(self, _request: web.Request) -> Json:
        """Oldest first."""
        return {"items": list(self._world.attempts)}

    async def add_fault(self, _request: web.Request, *, body: Fault_) -> Json:
        """From the next call on."""
        self._world.faults.append(Fault(body.kind, body.phone_number_id, body.times))
        return {"faults": len(self._world.faults)}

    async def clear_faults(self, _request: web.Request) -> None:
        """All is well again."""
        self._world.faults.clear()

    async def raw(self, _request: web.Request, *, body: RawBody) -> None:
        """For bodies that nobody would write by hand."""
        self._webhooks.raw(self._number(body.phone_number_id), body.body.encode(errors="surrogatepass"))

    async def events(self, request: web.Request) -> web.StreamResponse:
        """Server-sent: `changed`, whenever something did."""
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"})
        await response.prepare(request)
        try:
            while True:
                version = self._world.version
                await response.write(f"data: {version}\n\n".encode())
                await self._world.wait(version, _BEAT)
        except (ConnectionResetError, asyncio.CancelledError):
            return response


def _message(body: NewMessage, file: Json) -> tuple[Json, str | None]:
    base: Json = {"from": body.from_, "id": new_wamid(), "timestamp": str(int(time.time()))}
    if body.reply_to:
        base["context"] = {"id": body.reply_to}
    match body.type:
        case "text":
            return {**base, "type": "text", "text": {"body": body.text or ""}}, body.text
        case "button_reply" | "list_reply":
            chosen = {"id": body.id or "", "title": body.title or ""}
            return {**base, "type": "interactive", "interactive": {"type": body.type, body.type: chosen}}, body.title
        case "flow":
            filled = {"name": "flow", "body": "Sent", "response_json": json.dumps(body.content or {})}
            return {**base, "type": "interactive", "interactive": {"type": "nfm_reply", "nfm_reply": filled}}, "Sent"
        case "image":
            content = {
                "id": new_wamid()[6:],
                "mime_type": "image/jpeg",
                "sha256": "c2hhMjU2",
                **({"caption": body.text} if body.text else {}),
            }
            return {**base, "type": "image", "image": {**content, **(body.content or {}), **file}}, body.text
        case _:
            caption = {"caption": body.text} if file and body.text else {}
            return {**base, "type": body.type, body.type: {**(body.content or {}), **caption, **file}}, body.text
