"""Files at Meta, for one worker: plain HTTP to a name that only the worker's own proxy knows. They are streamed from and to the connector, never kept.

The socket says whose bot asks; the connector asks Meta with the token of that project's own number.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncGenerator, Callable
from hmac import compare_digest
from typing import Any, Final, cast

from aiohttp import ClientError, ClientResponse, web
from loquat_common.client import InternalClient
from loquat_common.logs import get_logger
from loquat_common.problems import Problem

from loquat_bot_runner.adapters.pipe import UNIT, Opening
from loquat_bot_runner.domain.pace import Pace

NAME: Final = "media.loquat"
TICKET: Final = "X-Loquat-Ticket"
_FILE: Final = re.compile(r"/([0-9A-Za-z_-]{1,80})/([0-9A-Za-z_-]{1,200})")
_NUMBER: Final = re.compile(r"/([0-9A-Za-z_-]{1,80})")
_KEPT: Final = ("Content-Type", "Content-Length", "X-Loquat-SHA256")
_SILENCE: Final = 30.0
_WHOLE: Final = 150.0  # seconds for a request: more than the connector gives Meta
_PIECE: Final = 64 << 10
_LONGEST: Final = 1 << 20  # bytes of the answer to an upload
_UNHEARD: Final = logging.getLogger("loquat.bots.media")
_UNHEARD.setLevel(logging.CRITICAL)  # what is wrong with a bot's requests is told to the bot: as often as it likes, in no log of ours

Passed = Callable[[int], None]
"""Counts bytes."""


class MediaDoor:
    """Of one worker. `passed` counts what is moved; `left` says how many bytes may be."""

    def __init__(self, connector: InternalClient, project: str, ticket: str | None, left: Callable[[], int], passed: Passed) -> None:
        self._connector, self._project, self._ticket = connector, project, ticket
        self._left, self._passed = left, passed
        # A body goes on as it came: were it unpacked here, its length would be another than the one that is said to the connector.
        # A handler ends with its connection: those that nobody waits for would be as many as a bot can open.
        self._server = web.Server(self._answered, handler_cancellation=True, access_log=None, logger=_UNHEARD, auto_decompress=False)  # pyright: ignore[reportArgumentType]  (None is no log)

    async def take(self, opening: Opening, pace: Pace) -> None:
        """Serves a connection whose first request has come, no faster than the pace; returns when it has ended, or after 150 s."""
        transport = opening.transport
        line = _Line(transport)
        handed = _Handed(cast("asyncio.Protocol", self._server()), line, pace)
        line.hold("opening")
        transport.set_protocol(handed)
        handed.connection_made(cast("asyncio.Transport", line))
        early, opening.buffer = bytes(opening.buffer), bytearray()
        handed.data_received(early)
        line.release("opening")
        try:
            async with asyncio.timeout(_WHOLE):
                await handed.over.wait()
        except TimeoutError:
            transport.abort()

    async def close(self) -> None:
        """Ends what is under way."""
        await self._server.shutdown(0)

    async def _answered(self, request: web.BaseRequest) -> web.StreamResponse:
        try:
            answer = await self._served(request)
        except Problem as problem:
            answer = problem.response()
        except Exception:  # noqa: BLE001  (the edge: a bug becomes a 500 and a log line)
            get_logger().exception("bot.media_failed", project=self._project)
            answer = Problem(500, "internal_error", "Something failed on the platform's side").response()
        answer.force_close()
        return answer

    async def _served(self, request: web.BaseRequest) -> web.StreamResponse:
        if self._ticket is not None and not compare_digest(
            request.headers.get(TICKET, "").encode(errors="surrogateescape"), self._ticket.encode()
        ):
            raise Problem(407, "no_ticket", "This door is not yours")
        if self._left() <= 0:
            raise Problem(429, "spent", "The bot has moved as many bytes in this hour as it may")
        base = f"/internal/projects/{self._project}/numbers/"
        if request.method == "GET" and (file := _FILE.fullmatch(request.path)) is not None:
            return await self._fetched(request, f"{base}{file[1]}/media/{file[2]}")
        if request.method == "POST" and (number := _NUMBER.fullmatch(request.path)) is not None:
            return await self._uploaded(request, f"{base}{number[1]}/media?{request.rel_url.raw_query_string}".rstrip("?"))
        raise Problem(404, "not_found", "There is no such file", "GET /{number}/{media id} or POST /{number}")

    async def _fetched(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        """A connection that breaks in the middle breaks ours, too: another answer behind the first would be taken for bytes of the file."""
        async with self._asked("GET", path, None, {}) as found:
            answer = web.StreamResponse(status=found.status, headers={k: found.headers[k] for k in _KEPT if k in found.headers})
            answer.force_close()
            await answer.prepare(request)
            try:
                await self._passed_on(found, answer)
            except (ClientError, OSError):  # a time-out is one
                found.close()
                if request.transport is not None:
                    request.transport.abort()
            return answer

    async def _passed_on(self, found: ClientResponse, answer: web.StreamResponse) -> None:
        async for piece in found.content.iter_chunked(_PIECE):
            self._passed(len(piece))
            async with asyncio.timeout(_SILENCE):
                await answer.write(piece)
        await answer.write_eof()

    async def _uploaded(self, request: web.BaseRequest, path: str) -> web.StreamResponse:
        if request.content_length is None:
            raise Problem(411, "length_required", "The file's length is needed")

        async def pieces() -> AsyncGenerator[bytes]:
            async for piece in request.content.iter_chunked(_PIECE):
                self._passed(len(piece))
                yield piece

        headers = {
            "Content-Type": request.headers.get("Content-Type", "application/octet-stream"),
            "Content-Length": str(request.content_length),
        }
        async with self._asked("POST", path, pieces(), headers) as found:
            body = bytearray()
            while len(body) < _LONGEST and (piece := await found.content.read(_PIECE)):
                body += piece
            return web.Response(status=found.status, body=bytes(body), content_type=found.content_type)

    def _asked(self, method: str, path: str, body: Any, headers: dict[str, str]) -> Any:
        actor = self._connector.itself("media")
        return self._connector.forward(method, path, actor=actor, body=body, headers=headers, seconds=_SILENCE, streams=True)


class _Line:
    """The transport as the server sees it: it is read from while nobody holds it."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport, self._held = transport, set[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def pause_reading(self) -> None:
        """See `asyncio.Transport`: the server's own word."""
        self.hold("full")

    def resume_reading(self) -> None:
        """See `pause_reading`."""
        self.release("full")

    def hold(self, reason: str) -> None:
        """Reads no more until every reason is gone."""
        if not self._held and not self._transport.is_closing():
            self._transport.pause_reading()
        self._held.add(reason)

    def release(self, reason: str) -> None:
        """See `hold`."""
        self._held.discard(reason)
        if not self._held and not self._transport.is_closing():
            self._transport.resume_reading()


class _Handed(asyncio.Protocol):
    """The server's own protocol, how fast it is spoken to, and word of its end."""

    def __init__(self, inner: asyncio.Protocol, line: _Line, pace: Pace) -> None:
        self._inner, self._line, self._pace, self.over = inner, line, pace, asyncio.Event()
        self._loop = asyncio.get_running_loop()
        self.connection_made, self.eof_received = inner.connection_made, inner.eof_received
        self.pause_writing, self.resume_writing = inner.pause_writing, inner.resume_writing

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if (wait := self._pace.spend(1 + len(data) / UNIT, self._loop.time())) > 0:
            self._line.hold("pace")
            self._loop.call_later(wait, self._line.release, "pace")
        self._inner.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self.over.set()
        self._inner.connection_lost(exc)
