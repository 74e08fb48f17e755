"""Files: those that a contact sent, and those that a bot sends. They lie at WhatsApp; the platform passes them on and keeps none."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import quote

from loquat.messages import Media
from loquat.web import Answer, HttpFailed, Request, Send

MOST: Final = 16 << 20
"""Bytes of a file that is fetched, unless the call says otherwise."""
LARGEST: Final = 100 << 20
"""Bytes: what WhatsApp passes on, and takes of a document. It takes 5 MB of a picture, 16 of a sound or a video, 500 KB of a sticker."""
SECONDS: Final = 30.0
_NAME: Final = "http://media.loquat"
_TICKET: Final = "X-Loquat-Ticket"
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,200}")
_MIME: Final = re.compile(r"[a-z]+/[A-Za-z0-9.+-]{1,100}")
_LONGEST_NAME: Final = 240
_GOOD: Final = 300


class MediaFailed(OSError):
    """A file could not be passed on now. The event may be tried again."""


class MediaGone(MediaFailed):
    """There is no such file, or not any more: what a contact sent lives for 7 days, what was uploaded for 30; or it is none of this number's."""


class MediaTooLarge(MediaFailed):
    """It has more bytes than is taken."""


class MediaRefused(MediaFailed):
    """WhatsApp does not take the file, such as a type that it does not know."""


@dataclass(frozen=True, slots=True)
class File:
    """What a contact sent. `sha256` is in hex."""

    data: bytes = field(repr=False)
    mime_type: str
    sha256: str

    @property
    def size(self) -> int:
        """In bytes."""
        return len(self.data)


@dataclass(frozen=True, slots=True)
class Uploaded:
    """A file that is at WhatsApp, to be said as often as is wanted, for 30 days, by this number."""

    id: str
    mime_type: str


class Store(Protocol):
    """Where files are."""

    async def fetch(self, media_id: str, most: int) -> File:
        """One by its id."""
        ...

    async def store(self, data: bytes, mime_type: str, name: str) -> str:
        """Its id."""
        ...


class Files:
    """`photo = await ctx.media.download(ctx.event)`, `ctx.reply_document(await ctx.media.upload(pdf, "application/pdf", name="bill.pdf"))`.

    Neither is part of the handler's transaction: a run that is repeated uploads again.
    """

    def __init__(self, store: Store) -> None:
        self._store = store

    async def download(self, what: Media | str, *, most: int = MOST) -> File:
        """A file that the contact sent: a message with one, or the file's id. `most`: bytes that are taken, at most 100 MiB.

        Raises:
            MediaFailed: MediaGone, MediaTooLarge, or it cannot be had now.
        """
        media_id = what.media_id if isinstance(what, Media) else what
        if not isinstance(media_id, str) or not _ID.fullmatch(media_id):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise ValueError("a file's id has 1 to 200 letters, digits, _ and -")
        if not 0 < most <= LARGEST:
            raise ValueError(f"most is 1 to {LARGEST} bytes")
        return await self._store.fetch(media_id, most)

    async def upload(self, data: bytes, mime_type: str, *, name: str = "file") -> Uploaded:
        """Gives WhatsApp a file, for `ctx.reply_image` and its like.

        Raises:
            MediaFailed: MediaTooLarge, MediaRefused, or it cannot be done now.
        """
        if not isinstance(data, bytes | bytearray | memoryview) or not len(data):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise ValueError("a file has at least one byte, as bytes")
        if not _MIME.fullmatch(mime_type):
            raise ValueError(f"a media type is such as image/png, unlike {mime_type!r}"[:200])
        if not 1 <= len(name) <= _LONGEST_NAME:
            raise ValueError(f"a file's name has 1 to {_LONGEST_NAME} characters")
        if len(data) > LARGEST:
            raise MediaTooLarge(f"the file has {len(data)} bytes; {LARGEST} are the limit")
        return Uploaded(await self._store.store(bytes(data), mime_type, name), mime_type)


class AtWhatsApp:
    """Through the platform, which asks with the number's own token."""

    def __init__(self, send: Send, number_id: str, ticket: str | None) -> None:
        self._send, self._base = send, f"{_NAME}/{quote(number_id, safe='')}"
        self._headers: Mapping[str, str] = {_TICKET: ticket} if ticket else {}

    async def fetch(self, media_id: str, most: int) -> File:
        """See `Store`."""
        answer = await self._asked(Request("GET", f"{self._base}/{media_id}", self._headers, None, SECONDS, most))
        digest = hashlib.sha256(answer.body).hexdigest()
        if digest != answer.headers.get("x-loquat-sha256"):
            raise MediaFailed("what came is not the whole file")
        return File(answer.body, answer.headers.get("content-type", "application/octet-stream").split(";")[0], digest)

    async def store(self, data: bytes, mime_type: str, name: str) -> str:
        """See `Store`."""
        headers = {**self._headers, "Content-Type": mime_type}
        answer = await self._asked(Request("POST", f"{self._base}?name={quote(name, safe='')}", headers, data, SECONDS))
        return str(answer.json()["id"])

    async def _asked(self, request: Request) -> Answer:
        try:
            answer = await self._send(request)
        except HttpFailed as error:
            kind = MediaTooLarge if "more than" in str(error) else MediaFailed
            raise kind(str(error).replace("media.loquat", "WhatsApp")) from None
        if answer.status < _GOOD:
            return answer
        problem: dict[str, Any] = answer.json() if answer.headers.get("content-type", "").startswith("application/problem") else {}
        said = problem.get("detail") or problem.get("title") or f"status {answer.status}"
        raise _ERRORS.get(str(problem.get("code")), MediaFailed)(said)


_ERRORS: Final[Mapping[str, type[MediaFailed]]] = {
    "media_gone": MediaGone,
    "not_found": MediaGone,
    "media_too_large": MediaTooLarge,
    "media_refused": MediaRefused,
}
