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
CUT: Final = "\N{HORIZONTAL ELLIPSIS}"
"""The last character of words that were cut. Whoever blots out secrets afterwards knows by it that there may be half of one before it."""


class Start(msgspec.Struct, tag="start", frozen=True):
    """Runner: load the bot from `folder`; `database` is the DSN of the project's own database, with its password. First frame, once.

    `packages`: the folder of what it may import besides the platform's; "": nothing. `statements`: that a connection keeps prepared.
    """

    folder: str
    database: str
    packages: str = ""
    statements: int = 0

    def __repr__(self) -> str:
        return f"Start(folder={self.folder!r})"


class Call(msgspec.Struct, tag="call", frozen=True):
    """Runner: handle one event. The contact's `attributes` and the conversation's `timers` are missing where its database is not brought forward yet.

    A message's `event` is the message; a timer's has a `timer`, a schedule's a `schedule`, and that has neither contact nor conversation.
    """

    id: int
    event: dict[str, Any]
    contact: dict[str, Any]
    conversation: dict[str, Any]
    state: str
    version: int
    config: dict[str, Any] = {}
    secrets: dict[str, str] = {}
    observing: bool = False
    join_texts: bool = False
    ask: dict[str, Any] | None = None
    following: dict[str, Any] | None = None

    def __repr__(self) -> str:
        return f"Call(id={self.id}, event={self.event.get('id')!r})"


class Cancel(msgspec.Struct, tag="cancel", frozen=True):
    """Runner: its time is over."""

    id: int


class Said(msgspec.Struct, tag="said", frozen=True):
    """Runner: what became of a `Say`; `kind` is one of said, superseded, database, refused, and `error` is for the bot's author."""

    id: int
    place: int
    kind: str
    error: str = ""


class Declared(msgspec.Struct, frozen=True):
    """A handler of the bot, for people to read: what it is for, in which state ("": every), its name, file and line."""

    when: str
    state: str
    handler: str
    where: str


class Need(msgspec.Struct, frozen=True):
    """A table of the project's that the bot cannot do without, and columns of it."""

    table: str
    columns: list[str] = []


class Setting(msgspec.Struct, frozen=True):
    """A key of the configuration that the bot declares: its type by name, and whether it may be null; `help` is for people.

    `default` is for people, too: as JSON, and cut where it is long; None if there is none.
    """

    key: str
    kind: str
    nullable: bool = False
    help: str = ""
    default: str | None = None


class Scheduled(msgspec.Struct, frozen=True):
    """A schedule that the bot declares: its name, when (cron, time zone), what follows missed times, and its handler."""

    name: str
    schedule: str
    tz: str
    catch_up: str
    handler: str


class Tool(msgspec.Struct, frozen=True):
    """A tool that the bot declares, with a JSON schema of its parameters."""

    name: str
    description: str
    parameters: dict[str, Any]


class Ready(msgspec.Struct, tag="ready", frozen=True):
    """Worker: the bot is loaded; this is what it declares: states, handlers, keys of configuration, schedules, tools, and the tables it needs."""

    states: list[str]
    handlers: list[Declared] = []
    needs: list[Need] = []
    settings: list[Setting] = []
    schedules: list[Scheduled] = []
    observes: bool = False
    tools: list[Tool] = []
    gathers: bool = False
    takes_back: bool = False


class Refused(msgspec.Struct, tag="refused", frozen=True):
    """Worker: the bot does not load."""

    error: str


class Handled(msgspec.Struct, tag="handled", frozen=True):
    """Worker: the handler ended. `recorded`: the result is committed in the project's database together with what the handler wrote."""

    id: int
    result: dict[str, Any]
    recorded: bool
    queries: int = 0


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


class Say(msgspec.Struct, tag="say", frozen=True):
    """Worker: say this before the handler ends. `answered` is the event that the handler answers, and `place`, from 1, where it is among what is said so."""

    id: int
    place: int
    answered: str
    reply: dict[str, Any]


class Typing(msgspec.Struct, tag="typing", frozen=True):
    """Worker: the handler is writing."""

    id: int


FromRunner = Start | Call | Cancel | Said
FromWorker = Ready | Refused | Handled | Failed | Logged | Say | Typing

_ENCODER: Final = msgspec.msgpack.Encoder()
RUNNER_FRAMES: Final = msgspec.msgpack.Decoder(FromRunner)
WORKER_FRAMES: Final = msgspec.msgpack.Decoder(FromWorker)


class FrameTooLarge(ValueError):
    """A frame would be longer than 1 MiB."""


def shortened(text: str, most: int) -> str:
    """At most so many characters of it."""
    return text if len(text) <= most else text[: most - 1] + CUT


def pack(frame: FromRunner | FromWorker) -> bytes:
    """A frame with its length.

    Raises:
        FrameTooLarge: more than 1 MiB.
    """
    body = _ENCODER.encode(frame)
    if len(body) > LARGEST:
        raise FrameTooLarge(f"a frame of {len(body)} bytes; {LARGEST} are the limit")
    return HEADER.pack(len(body)) + body
