"""Import and export by REST: both bodies are streams."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Final
from urllib.parse import quote

from aiohttp import web
from aiohttp.http_exceptions import PayloadEncodingError
from loquat_common.http import ACTOR, Api
from loquat_common.logs import get_logger
from loquat_common.problems import Problem
from loquat_rest import transfer as shapes
from loquat_rest.rows import InTable

from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.imports import Format, Imports

BELOW: Final = "/internal/projects/{project_id}"
_PIECE: Final = 64 << 10  # bytes
_SILENCE: Final = 30.0  # seconds in which a reader takes nothing: it is gone, or holds a transaction open
_KINDS: Final[dict[str, Format]] = {
    shapes.CSV: "csv",
    shapes.JSONL: "jsonl",
    "application/jsonl": "jsonl",
    "application/x-jsonlines": "jsonl",
}
_TYPES: Final[dict[str, str]] = {"csv": f"{shapes.CSV}; charset=utf-8; header=present", "jsonl": shapes.JSONL}


class TransferApi:
    """The routes of import and export."""

    def __init__(self, imports: Imports, exports: Exports) -> None:
        self._imports, self._exports = imports, exports

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.IMPORT, self.load, below=BELOW)
        api.serve(shapes.EXPORT, self.export, below=BELOW)
        api.serve(shapes.EXPORT_FOUND, self.export_found, below=BELOW)

    async def load(self, request: web.Request, *, path: InTable, query: shapes.ImportOptions) -> shapes.ImportReport:
        """A file."""
        kind = _KINDS.get(request.content_type)
        if kind is None:
            raise Problem(
                415, "unsupported_media_type", f"The body must be {shapes.CSV} or {shapes.JSONL}", f"It came as {request.content_type}"
            )
        return await self._imports.run(path.project_id, path.table, query, kind, _pieces(request), request[ACTOR].subject)

    async def export(self, request: web.Request, *, path: InTable, query: shapes.ExportOptions) -> web.StreamResponse:
        """All rows."""
        return await self._file(request, path, query)

    async def export_found(self, request: web.Request, *, path: InTable, body: shapes.ExportQuery) -> web.StreamResponse:
        """Some of them."""
        return await self._file(request, path, body)

    async def _file(self, request: web.Request, path: InTable, options: shapes.ExportOptions) -> web.StreamResponse:
        """What fails after its first piece breaks the connection: an end that looks like one would be a lie."""
        name = quote(f"{path.table}.{options.format}", safe="")
        headers = {"Content-Type": _TYPES[options.format], "Content-Disposition": f"attachment; filename*=UTF-8''{name}"}
        response = web.StreamResponse(headers=headers)

        async def sink(piece: bytes) -> None:
            async with asyncio.timeout(_SILENCE):
                if not response.prepared:
                    await response.prepare(request)
                await response.write(piece)

        try:
            await self._exports.run(path.project_id, path.table, options, sink)
        except Exception as error:
            if not response.prepared:
                raise
            get_logger().warning("export.broken_off", error=type(error).__name__)
            if request.transport is not None:
                request.transport.abort()
            return response
        if not response.prepared:
            await response.prepare(request)
        await response.write_eof()
        return response


async def _pieces(request: web.Request) -> AsyncGenerator[bytes]:
    """Who leaves in the middle gets an answer that nobody reads: it is no failure of ours.

    Raises:
        Problem: 400 `broken_off`.
    """
    try:
        async for piece in request.content.iter_chunked(_PIECE):
            yield piece
    except (ConnectionError, web.RequestPayloadError, PayloadEncodingError):
        raise Problem(400, "broken_off", "The file broke off", "The connection ended before the file did") from None
