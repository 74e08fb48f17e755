"""PostgreSQL's protocol, as far as the console needs it, on a connection that asyncpg has opened.

asyncpg has no way to take rows of any type as Postgres' own text, to bound what one row may weigh in our memory, or to live through a COPY in
the midst of a script; and it reads types from `pg_type` on the tenant's own search path. So its socket is taken over after the login.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_HEAD: Final = 5
_NOTICES: Final = 100
_LONGEST_NOTICE: Final = 2_000  # characters


class TooMuch(Exception):
    """The server sends more bytes than were asked for."""


class Lost(Exception):
    """The connection ended."""


@dataclass(slots=True)
class Result:
    """What one statement gave. `columns` are name, type's OID and modifier; None: it gives no rows. Values are text as Postgres writes it."""

    columns: list[tuple[str, int, int]] | None = None
    rows: list[list[bytes | None]] = field(default_factory=list[list[bytes | None]])
    tag: str | None = None
    more: bool = False
    copied: bool = False
    error: asyncpg.PostgresError | None = None


class Wire(asyncio.Protocol):
    """Takes a connection over, for good: whoever opened it may only end it. Not more than `limit` bytes are taken from the server in all."""

    def __init__(self, connection: Connection, limit: int) -> None:
        self._transport: asyncio.Transport = connection._transport  # noqa: SLF001  # pyright: ignore[reportAttributeAccessIssue]  (no public name)
        self._left, self._buffer = limit, bytearray()
        self._result = Result()
        self._answer: asyncio.Future[Result] | None = None
        self._failure: Exception | None = None
        self.notices: list[dict[str, str]] = []
        self.in_transaction = False
        self._transport.set_protocol(self)

    @property
    def busy(self) -> bool:
        """Whether the server may still be at a statement, or has not said that it is done."""
        return self._failure is not None or (self._answer is not None and (not self._answer.done() or self._answer.cancelled()))

    async def run(self, sql: str, rows: int = 0) -> Result:
        """Runs one statement and takes at most so many of its rows (0: all). The time-out is the caller's.

        Raises:
            TooMuch: the connection is of no use any more.
            Lost: as above.
        """
        if self._failure is not None:
            raise self._failure
        self._result, self._answer = Result(), asyncio.get_running_loop().create_future()
        self._transport.write(
            _message(b"P", b"\0" + sql.encode() + b"\0\0\0")  # unnamed, no types of parameters
            + _message(b"B", b"\0\0\0\0\0\0\0\0")  # no parameters; every column as text
            + _message(b"D", b"P\0")
            + _message(b"E", b"\0" + struct.pack("!i", rows))
            + _message(b"S", b"")
        )
        return await self._answer

    # ---------------------------------------------------------------- asyncio's side

    def data_received(self, data: bytes) -> None:
        """Reads the messages that are whole."""
        self._left -= len(data)
        if self._left < 0:
            self._fail(TooMuch())
            return
        self._buffer += data
        for kind, body in self._messages():
            self._take(kind, body)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the protocol's signature)
        """Whoever waits is told."""
        self._fail(Lost())

    def _fail(self, failure: Exception) -> None:
        self._failure = self._failure or failure
        self._buffer.clear()
        self._transport.abort()
        if self._answer is None or self._answer.done():
            return
        if self._result.error is not None:
            self._answer.set_result(self._result)  # its farewell says why
        else:
            self._answer.set_exception(self._failure)

    def _messages(self) -> Iterator[tuple[bytes, bytes]]:
        at = 0
        while len(self._buffer) - at >= _HEAD:
            kind, size = struct.unpack_from("!ci", self._buffer, at)
            if len(self._buffer) - at <= size:
                break
            yield kind, bytes(self._buffer[at + _HEAD : at + 1 + size])
            at += 1 + size
        del self._buffer[:at]

    def _take(self, kind: bytes, body: bytes) -> None:
        result = self._result
        match kind:
            case b"T":
                result.columns = list(_columns(body))
            case b"D":
                result.rows.append(list(_values(body)))
            case b"C":
                result.tag = body[:-1].decode(errors="replace")
            case b"s":
                result.more = True
            case b"E":
                result.error = asyncpg.PostgresError.new(_fields(body))
            case b"N":
                self._note(_fields(body))
            case b"G" | b"H":
                result.copied = True
                if kind == b"G":  # the Sync that was sent is not heard in a COPY
                    self._transport.write(_message(b"f", b"the console hands over no data\0") + _message(b"S", b""))
            case b"Z":
                self._ready(body)
            case _:  # parsed, bound, no rows, empty, copied data, settings, notifications: nothing to keep
                pass

    def _ready(self, body: bytes) -> None:
        self.in_transaction = body != b"I"
        if self._answer is not None and not self._answer.done():
            self._answer.set_result(self._result)

    def _note(self, fields: dict[str, str]) -> None:
        if len(self.notices) < _NOTICES:
            self.notices.append({"severity": fields.get("V", ""), "message": fields.get("M", "")[:_LONGEST_NOTICE]})


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _fields(body: bytes) -> dict[str, str]:
    """Of an error or a notice: each is a letter and a text."""
    return {part[:1].decode("latin-1"): part[1:].decode(errors="replace") for part in body.split(b"\0") if part}


def _columns(body: bytes) -> Iterator[tuple[str, int, int]]:
    (count,), at = struct.unpack_from("!h", body), 2
    for _ in range(count):
        end = body.index(b"\0", at)
        _table, _number, oid, _size, modifier, _format = struct.unpack_from("!ihIhih", body, end + 1)
        yield body[at:end].decode(errors="replace"), oid, modifier
        at = end + 19


def _values(body: bytes) -> Iterator[bytes | None]:
    (count,), at = struct.unpack_from("!h", body), 2
    for _ in range(count):
        (size,) = struct.unpack_from("!i", body, at)
        at += 4
        yield None if size < 0 else body[at : at + size]
        at += max(size, 0)
