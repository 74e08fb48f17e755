"""Files of a project's numbers at Meta, as streams."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from typing import Annotated, Final

from aiohttp import web
from loquat_common.http import Api
from loquat_common.logs import get_logger
from loquat_common.problems import Problem, invalid, not_found
from pydantic import BaseModel, Field, StringConstraints

from loquat_connector.adapters.media import MediaFiles, Upload
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.domain.media import largest
from loquat_connector.http.api import Identifier

DIGEST: Final = "X-Loquat-SHA256"
"""Header of a file: its SHA-256 in hex."""
_SILENCE: Final = 20.0  # seconds that one piece may take to the caller, or from it
_PIECE: Final = 64 << 10
_MIME: Final = re.compile(r"[a-z]+/[A-Za-z0-9.+-]{1,100}")


class _OfNumber(BaseModel):
    project_id: str
    number: Identifier


class _One(_OfNumber):
    media: Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,200}$")]


class _Name(BaseModel):
    name: str = Field(default="file", min_length=1, max_length=240)


class Uploaded(BaseModel):
    """What Meta calls it."""

    id: str


class MediaApi:
    """Whose file it is, Meta decides: it is asked with the token of the project's own number."""

    def __init__(self, numbers: Numbers, files: MediaFiles) -> None:
        self._numbers, self._files = numbers, files

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        base = "/internal/projects/{project_id}/numbers/{number}/media"
        api.route("GET", base + "/{media}", self.fetch, summary="A file", scope="media")
        api.route("POST", base, self.upload, summary="Upload a file", status=201, scope="media")

    async def fetch(self, request: web.Request, *, path: _One) -> web.StreamResponse:
        """What fails after the first piece breaks the connection: an end that looks like one would be a lie."""
        token = await self._token(path.project_id, path.number)
        async with self._files.fetch(path.project_id, path.number, token, path.media) as (file, pieces):
            headers = {"Content-Type": file.mime_type, DIGEST: file.sha256.hex(), "Content-Length": str(file.size)}
            response = web.StreamResponse(headers=headers)
            await response.prepare(request)
            try:
                async for piece in pieces:
                    async with asyncio.timeout(_SILENCE):
                        await response.write(piece)
                await response.write_eof()
            except (Problem, OSError) as error:  # a time-out is one
                get_logger().warning("media.broken_off", error=error.code if isinstance(error, Problem) else type(error).__name__)
                if request.transport is not None:
                    request.transport.abort()
            return response

    async def upload(self, request: web.Request, *, path: _OfNumber, query: _Name) -> Uploaded:
        """The body is the file, its length and media type in the headers."""
        token, size, mime = await self._token(path.project_id, path.number), request.content_length, request.content_type
        if not size:
            raise invalid("body", "a file of at least one byte, and its length, are needed")
        if not _MIME.fullmatch(mime):
            raise invalid("header.Content-Type", "a media type is such as image/png")
        if (most := largest(mime)) < size:
            raise Problem(413, "media_too_large", "The file is too large", f"It has {size} bytes; WhatsApp takes {most} of {mime}")
        upload = Upload(mime, query.name, size, _pieces(request))
        return Uploaded(id=await self._files.upload(path.project_id, path.number, token, upload))

    async def _token(self, project: str, number: str) -> str:
        token = await self._numbers.token(project, number)
        if token is None:
            raise not_found("number")
        return token


async def _pieces(request: web.Request) -> AsyncGenerator[bytes]:
    while True:
        async with asyncio.timeout(_SILENCE):
            piece = await request.content.read(_PIECE)
        if not piece:
            return
        yield piece
