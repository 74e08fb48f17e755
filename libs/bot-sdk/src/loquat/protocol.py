"""The frames between the runner and a worker: a length in four bytes, big-endian, then one msgpack map.

What a worker says is the project's word and nothing more: the runner checks all of it.
"""

from __future__ import annotations

import struct
from typing import Any, Final

import msgspec

LARGEST: Final = 1 << 20
"""Bytes of a frame, checked before it is read."""
HEADER: Final = struct.Struct(">I")


class Start(msgspec.Struct, tag="start", frozen=True):
    """Runner: load the bot from `folder`; `database` is the DSN of the project's own database, with its password. First frame, once."""

    folder: str
    database: str


class Call(msgspec.Struct, tag="call", frozen=True):
    """Runner: handle one event."""

    id: int
    event: dict[str, Any]
    contact: dict[str, Any]
    conversation: dict[str, Any]
    state: str
    version: int


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Runner: its time is over."""

    id: int


class Declared(msgspec.Struct, frozen=True):
    """A handler of the bot, for people to read: what it is for, in which state ("": every), its name, file and line."""

    when: str
    state: str
    handler: str
    where: str


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Worker: the bot is loaded; these are the states and the handlers it declares."""

    states: list[str]
    handlers: list[Declared] = []


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """Worker: the bot does not load."""

    error: str


class Handled(msgspec.Struct, tag="handled", frozen=True):
    """Worker: the handler ended. `recorded`: the result is committed in the project's database together with what the handler wrote."""

    id: int
    result: dict[str, Any]
    recorded: bool


class Failed(msgspec.Struct, tag="failed", frozen=True):
    """Worker: the handler did not succeed; `kind` is one of error, superseded, database, memory, cancelled. Frames are the bot's own."""

    id: int
    kind: str
    error: str
    trace: str = ""


class Logged(msgspec.Struct, tag="logged", frozen=True):
    """Worker: a line of `ctx.log`."""

    id: int
    level: str
    text: str


FromRunner = Start | Call | Cancel
FromWorker = Ready | Refused | Handled | Failed | Logged

_ENCODER: Final = msgspec.msgpack.Encoder()
RUNNER_FRAMES: Final = msgspec.msgpack.Decoder(FromRunner)
WORKER_FRAMES: Final = msgspec.msgpack.Decoder(FromWorker)


class FrameTooLarge(ValueError):
    """A frame would be longer than 1 MiB."""


def pack(frame: FromRunner | FromWorker) -> bytes:
    """A frame with its length.

    Raises:
        FrameTooLarge: more than 1 MiB.
    """
    body = _ENCODER.encode(frame)
    if len(body) > LARGEST:
        raise FrameTooLarge(f"a frame of {len(body)} bytes; {LARGEST} are the limit")
    return HEADER.pack(len(body)) + body
