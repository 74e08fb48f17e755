"""What a PostgreSQL client says before it is let in, and what it is answered: the messages, no I/O.

Formats: PostgreSQL's manual, "Message Formats", protocol 3.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

LARGEST: Final = 10_000
"""Bytes of a start-up packet: the server's own limit."""
_VERSION: Final = 196_608  # 3.0
_CANCEL: Final = 80_877_102
_ENCRYPTIONS: Final = {80_877_103, 80_877_104}  # TLS, GSSAPI
_HEAD: Final = struct.Struct("!II")
_PASSWORD: Final = struct.Struct("!cI")
_LONGEST_PASSWORD: Final = 1000
_UTF8: Final = {"utf8", "unicode"}


class StartupRefused(Exception):
    """The client is not let in. `code` is an SQLSTATE."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code, self.message = code, message


@dataclass(frozen=True, slots=True)
class Encryption:
    """It asks whether the hop may be encrypted. It is a socket inside one machine: the answer is N."""


@dataclass(frozen=True, slots=True)
class Cancel:
    """It asks that the statement of another connection be cancelled."""

    pid: int
    secret: int


@dataclass(frozen=True, slots=True)
class Startup:
    """It wants in. `settings` are session settings; `unknown` are protocol options that we do not speak, `newer` a newer minor version."""

    user: str
    database: str
    settings: Mapping[str, str]
    unknown: Sequence[str] = ()
    newer: bool = False


Packet = Encryption | Cancel | Startup


def read(buffer: bytearray) -> Packet | None:
    """The packet at the head of `buffer`, which it loses; None: there is more to come.

    Raises:
        StartupRefused: it is none of the protocol, or asks for what a bot does not get.
    """
    if len(buffer) < _HEAD.size:
        return None
    size, code = _HEAD.unpack_from(buffer)
    if not _HEAD.size <= size <= LARGEST:
        raise StartupRefused("08P01", f"this is no start-up packet of PostgreSQL's protocol (a length of {size} bytes)")
    if len(buffer) < size:
        return None
    body = bytes(buffer[_HEAD.size : size])
    del buffer[:size]
    if code in _ENCRYPTIONS and not body:
        return Encryption()
    if code == _CANCEL:
        if len(body) != _HEAD.size:
            raise StartupRefused("08P01", "a cancel request has another length")
        return Cancel(*_HEAD.unpack(body))
    if code >> 16 != _VERSION >> 16:
        raise StartupRefused("0A000", f"protocol {code >> 16}.{code & 0xFFFF} is not spoken here: 3.0 is")
    return _startup(body, newer=code > _VERSION)


def _startup(body: bytes, *, newer: bool) -> Startup:
    try:
        words = body.decode().split("\0")
    except UnicodeDecodeError:
        raise StartupRefused("08P01", "the start-up packet is not UTF-8") from None
    if words[-2:] != ["", ""] or len(words) % 2:
        raise StartupRefused("08P01", "the start-up packet does not end as it should")
    pairs = dict(zip(words[:-2:2], words[1:-2:2], strict=True))
    unknown = tuple(k for k in pairs if k.startswith("_pq_."))
    settings = {k: v for k, v in pairs.items() if k not in unknown}
    user = settings.pop("user", "")
    database = settings.pop("database", "") or user
    if settings.pop("replication", "off").lower() not in {"off", "false", "no", "0"}:
        raise StartupRefused("28000", "a bot gets no replication connection")
    encodings = [settings.pop(key) for key in tuple(settings) if key.lower() == "client_encoding"]  # to the server they are one name
    if any(e.strip("'").lower().replace("-", "") not in _UTF8 for e in encodings):
        raise StartupRefused("22023", "client_encoding must be UTF8")
    return Startup(user, database, settings, unknown, newer)


ASK_PASSWORD: Final = struct.pack("!cII", b"R", 8, 3)
"""AuthenticationCleartextPassword: over a socket inside one machine."""


def password(buffer: bytearray) -> str | None:
    """The password at the head of `buffer`, which it loses; None: there is more to come.

    Raises:
        StartupRefused: it is none.
    """
    if len(buffer) < _PASSWORD.size:
        return None
    kind, size = _PASSWORD.unpack_from(buffer)
    if kind != b"p" or size < _PASSWORD.size or size > _LONGEST_PASSWORD:
        raise StartupRefused("08P01", "a password was expected")
    if len(buffer) < 1 + size:
        return None
    body = bytes(buffer[_PASSWORD.size : 1 + size])
    del buffer[: 1 + size]
    return body.rstrip(b"\0").decode(errors="replace")


def refusal(code: str, message: str) -> bytes:
    """An ErrorResponse after which the connection ends."""
    fields = [f"S{'FATAL'}", f"V{'FATAL'}", f"C{code}", f"M{message}"]
    return _message(b"E", b"".join(f.replace("\0", "").encode(errors="replace") + b"\0" for f in fields) + b"\0")


def welcome(startup: Startup, reported: Mapping[str, str], pid: int, secret: int) -> bytes:
    """All that a server says from the start-up packet to its first readiness, if it asks for no password."""
    negotiated = b""
    if startup.newer or startup.unknown:
        names = b"".join(name.encode() + b"\0" for name in startup.unknown)
        negotiated = _message(b"v", _HEAD.pack(_VERSION, len(startup.unknown)) + names)
    statuses = b"".join(_message(b"S", f"{k}\0{v}\0".encode()) for k, v in reported.items())
    return negotiated + _message(b"R", struct.pack("!I", 0)) + statuses + _message(b"K", _HEAD.pack(pid, secret)) + RESTING


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!I", len(body) + 4) + body


RESTING: Final = _message(b"Z", b"I")
"""The last bytes that a server has sent when it waits for the next statement outside of a transaction."""
FAREWELL: Final = _message(b"X", b"")
"""A client's last message."""
