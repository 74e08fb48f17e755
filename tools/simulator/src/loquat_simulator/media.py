"""Files at Meta: uploaded by a business or sent by a contact, named by an id, fetched by an address that the id gives."""

from __future__ import annotations

import hashlib
import secrets
from collections import OrderedDict
from dataclasses import dataclass, field
from typing import Any, Final

from aiohttp import BodyPartReader, web

from loquat_simulator.graph import GraphError
from loquat_simulator.world import Number, World

Json = dict[str, Any]
_KEPT: Final = 256 << 20  # bytes of all files; the oldest go
_LARGEST: Final = 100 << 20
"""Bytes of a file: Meta's limit of documents, which is its highest."""


@dataclass(frozen=True, slots=True)
class File:
    """A file, and the WhatsApp business account whose numbers may have it."""

    id: str
    waba_id: str
    mime_type: str
    data: bytes = field(repr=False)

    @property
    def digest(self) -> bytes:
        """SHA-256."""
        return hashlib.sha256(self.data).digest()


class Files:
    """In memory, bounded."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._files: OrderedDict[str, File] = OrderedDict()

    def add_to(self, app: web.Application) -> None:
        """Adds the routes."""
        version = r"/{version:v\d+\.0}"
        app.router.add_post(version + "/{number}/media", self.upload)
        app.router.add_get("/media/{id}", self.fetch)

    def keep(self, waba_id: str, mime_type: str, data: bytes) -> File:
        """A file with a fresh id."""
        file = File(str(secrets.randbelow(10**15) + 10**15), waba_id, mime_type, data)
        self._files[file.id] = file
        while sum(len(f.data) for f in self._files.values()) > _KEPT:
            self._files.popitem(last=False)
        return file

    def get(self, id: str) -> File | None:
        """A file by its id."""
        return self._files.get(id)

    async def upload(self, request: web.Request) -> web.Response:
        """A form with `messaging_product`, `type` and `file`."""
        try:
            number = self._world.numbers.get(request.match_info["number"])
            if number is None or not _may(number, request):
                raise GraphError(401, 190, "Invalid OAuth access token")
            fields = await _form(request)
            if fields.get("messaging_product") != b"whatsapp" or not fields.get("type") or "file" not in fields:
                raise GraphError(400, 100, "Invalid parameter", "messaging_product, type and file are required")
            file = self.keep(number.waba_id, fields["type"].decode(), fields["file"])
        except GraphError as error:
            return web.json_response(error.body("A"), status=error.status)
        return web.json_response({"id": file.id})

    def node(self, request: web.Request, id: str) -> web.Response:
        """What is known of a file, with an address; to whom it is not, it does not exist."""
        file = self._allowed(request, id)
        if file is None:
            error = GraphError(400, 100, f"Unsupported get request. Object with ID '{id}' does not exist or cannot be loaded")
            return web.json_response(error.body("A"), status=error.status)
        known = {"id": file.id, "mime_type": file.mime_type, "sha256": file.digest.hex(), "file_size": len(file.data)}
        return web.json_response({"messaging_product": "whatsapp", "url": f"{request.scheme}://{request.host}/media/{id}", **known})

    async def fetch(self, request: web.Request) -> web.Response:
        """The bytes, for who has the token."""
        file = self._allowed(request, request.match_info["id"])
        if file is None:
            return web.Response(status=404, text="not found")
        return web.Response(body=file.data, content_type=file.mime_type)

    def _allowed(self, request: web.Request, id: str) -> File | None:
        file = self._files.get(id)
        if file is None or not any(n.waba_id == file.waba_id and _may(n, request) for n in self._world.numbers.values()):
            return None
        return file


def _may(number: Number, request: web.Request) -> bool:
    kind, _, token = request.headers.get("Authorization", "").partition(" ")
    return kind == "Bearer" and bool(token) and number.token in {None, token}


async def _form(request: web.Request) -> dict[str, bytes]:
    fields, size = dict[str, bytes](), 0
    async for part in await request.multipart():
        if not isinstance(part, BodyPartReader):
            raise GraphError(400, 100, "Invalid parameter", "a form has no form in it")
        data = bytearray()
        while piece := await part.read_chunk():
            data += piece
            size += len(piece)
            if size > _LARGEST:
                raise GraphError(400, 131053, "Media upload error", f"a file has at most {_LARGEST} bytes")
        fields[part.name or ""] = bytes(data)
    return fields
