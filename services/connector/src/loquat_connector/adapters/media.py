"""Files at Meta: one fetched, one uploaded; as streams, never kept."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final
from uuid import uuid4
from weakref import WeakValueDictionary

import aiohttp
import orjson
from loquat_common.logs import get_logger
from loquat_common.problems import Problem

from loquat_connector.adapters.bodies import parsed, whole
from loquat_connector.domain.media import LARGEST, Found, NoFile, found

_ASKED: Final = 10.0  # seconds for what is known of a file
_WHOLE: Final = 120.0  # seconds for a file
_SILENCE: Final = 20.0
_AT_ONCE: Final = 64  # transfers; more wait, and are refused after as long as Meta has for a question
_OF_ONE: Final = 8  # of one project: bots that read slowly keep no other's files waiting
_PIECE: Final = 64 << 10
_BAD_TOKEN: Final = 190
_NOT_THERE: Final = {100, 131052}


@dataclass(frozen=True, slots=True)
class Upload:
    """What is uploaded: `size` in bytes is what `pieces` give together."""

    mime_type: str
    name: str
    size: int
    pieces: AsyncIterator[bytes]


class MediaFiles:
    """Of all numbers. What goes wrong is a Problem: 404 `media_gone`, 413 `media_too_large`, 422 `media_refused`, 502 `bad_answer`, 503 `meta_away`."""

    def __init__(self, base_url: str, version: str) -> None:
        self._graph, self._base = base_url, f"{base_url.rstrip('/')}/{version}"
        self._session: aiohttp.ClientSession | None = None
        self._turns, self._own = asyncio.Semaphore(_AT_ONCE), WeakValueDictionary[str, asyncio.Semaphore]()

    async def start(self) -> None:
        """Opens the client."""
        timeout = aiohttp.ClientTimeout(total=_WHOLE, sock_connect=5, sock_read=_SILENCE)
        self._session = aiohttp.ClientSession(timeout=timeout, connector=aiohttp.TCPConnector(limit=_AT_ONCE))

    async def stop(self) -> None:
        """Closes it."""
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def fetch(self, project: str, number: str, token: str, media: str) -> AsyncGenerator[tuple[Found, AsyncIterator[bytes]]]:
        """A file of this number's, and its bytes. The bytes end with a Problem if they are not what Meta said they are."""
        async with self._turn(project):
            file = await self._known(number, token, media)
            if file.size > LARGEST:
                raise Problem(413, "media_too_large", "The file is too large", f"It has {file.size} bytes; {LARGEST} are the limit")
            async with self._asked("GET", file.url, token) as response:
                if response.status != 200:  # noqa: PLR2004
                    raise Problem(404, "media_gone", "There is no such file", f"Meta's address of the file answered {response.status}")
                yield file, _checked(response.content, file)

    async def upload(self, project: str, number: str, token: str, upload: Upload) -> str:
        """The id that Meta gives it: good for messages of this number for 30 days."""
        async with self._turn(project):
            kind, body, size = _form(upload)
            headers = {"Content-Type": kind, "Content-Length": str(size)}
            async with self._asked("POST", f"{self._base}/{number}/media", token, data=body, headers=headers) as response:
                answer = await _answer(response)
                if response.status == 200 and isinstance(answer.get("id"), str | int):  # noqa: PLR2004
                    return str(answer["id"])
                raise _refused(response.status, answer)

    async def _known(self, number: str, token: str, media: str) -> Found:
        async with self._asked("GET", f"{self._base}/{media}", token, params={"phone_number_id": number}) as response:
            answer = await _answer(response)
            if response.status != 200:  # noqa: PLR2004
                raise _refused(response.status, answer)
        try:
            return found(answer, self._graph)
        except NoFile as error:
            get_logger().warning("media.no_file", number=number, why=str(error))
            raise Problem(502, "bad_answer", "Meta gave an answer that is none", str(error)) from None

    @asynccontextmanager
    async def _asked(self, method: str, url: str, token: str, **more: Any) -> AsyncGenerator[aiohttp.ClientResponse]:
        """No redirect is followed: the token would go along. Errors never carry it: no exception of the client leaves here."""
        if self._session is None:
            raise RuntimeError("the client is not started")
        headers = {"Authorization": f"Bearer {token}", **more.pop("headers", {})}
        try:
            async with self._session.request(method, url, headers=headers, allow_redirects=False, **more) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            raise _away(type(error).__name__) from None

    @asynccontextmanager
    async def _turn(self, project: str) -> AsyncGenerator[None]:
        own = self._own.setdefault(project, asyncio.Semaphore(_OF_ONE))
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_ASKED):
                    await stack.enter_async_context(own)
                    await stack.enter_async_context(self._turns)
            except TimeoutError:
                raise _away("too many files are under way") from None
            yield


def _away(why: str) -> Problem:
    return Problem(503, "meta_away", "Meta does not answer", why)


async def _answer(response: aiohttp.ClientResponse) -> dict[str, Any]:
    return parsed(await whole(response.content)) or {}


def _refused(status: int, answer: dict[str, Any]) -> Problem:
    error: dict[str, Any] = answer.get("error") or {}
    code, words = error.get("code"), str(error.get("message", f"status {status}"))[:300]
    if code == _BAD_TOKEN:
        return Problem(409, "number_needs_reconnect", "Meta refuses the number's token", "Attach the number again, with a fresh token")
    if status >= 500 or status == 429:  # noqa: PLR2004
        return _away(words)
    if code in _NOT_THERE:
        return Problem(404, "media_gone", "There is no such file", words)
    return Problem(422, "media_refused", "Meta refuses the file", words)


async def _checked(content: aiohttp.StreamReader, file: Found) -> AsyncGenerator[bytes]:
    """The last piece is held back until all are known: whoever has it has the file."""
    digest, size, held = hashlib.sha256(), 0, b""
    while piece := await _piece(content):
        if held:
            yield held
        size, held = size + len(piece), piece
        if size > file.size:
            break
        digest.update(piece)
    if size != file.size or digest.digest() != file.sha256:
        raise Problem(502, "bad_answer", "Meta gave an answer that is none", "The file's bytes are not those of its size and SHA-256")
    yield held


async def _piece(content: aiohttp.StreamReader) -> bytes:
    try:
        return await content.read(_PIECE)
    except (aiohttp.ClientError, TimeoutError, OSError) as error:
        raise _away(type(error).__name__) from None


def _form(upload: Upload) -> tuple[str, AsyncIterator[bytes], int]:
    """A form of three fields with its length: what comes in pieces without one is not taken everywhere."""
    mark = uuid4().hex
    name = orjson.dumps(upload.name.encode("ascii", "replace").decode()).decode()
    head = "".join(
        f'--{mark}\r\nContent-Disposition: form-data; name="{field}"\r\n\r\n{value}\r\n'
        for field, value in (("messaging_product", "whatsapp"), ("type", upload.mime_type))
    )
    head += f'--{mark}\r\nContent-Disposition: form-data; name="file"; filename={name}\r\nContent-Type: {upload.mime_type}\r\n\r\n'
    tail = f"\r\n--{mark}--\r\n"

    async def body() -> AsyncGenerator[bytes]:
        yield head.encode()
        async for piece in upload.pieces:
            yield piece
        yield tail.encode()

    return f"multipart/form-data; boundary={mark}", body(), len(head) + upload.size + len(tail)
