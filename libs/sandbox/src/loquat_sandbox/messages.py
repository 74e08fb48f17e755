"""What the runner, the zygote and a worker that is being made say to each other: one msgpack map per packet, descriptors beside it."""

from __future__ import annotations

import array
import socket
from collections.abc import Sequence
from typing import Final

import msgspec

from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits

_LONGEST: Final = 64 << 10
_MOST_DESCRIPTORS: Final = 8


class Begin(msgspec.Struct, tag="begin", frozen=True):
    """Runner, once: what kind of zygote. `entry` is `module:function`, called with the number of the control socket's descriptor."""

    level: Level
    bundles: str
    entry: str
    preload: list[str]
    parent: int


class Begun(msgspec.Struct, tag="begun", frozen=True):
    """Zygote: it serves. `landlock`: the kernel's ABI, 0 for none."""

    landlock: int


class NotBegun(msgspec.Struct, tag="not_begun", frozen=True):
    """Zygote: it ends, because this machine does not give it what its level needs."""

    why: str


class Fork(msgspec.Struct, tag="fork", frozen=True):
    """Runner, with descriptors: control socket, output, the setup socket, then control groups to enter. `doors`: ports on the runner's loopback, without namespaces."""

    id: int
    bundle: str
    layer: str | None
    limits: Limits
    environment: dict[str, str]
    user: int | None
    doors: tuple[int, int] | None
    canary: bool = False


class Forked(msgspec.Struct, tag="forked", frozen=True):
    """Zygote, with a pidfd: the process is there; `pid` is what the zygote knows it by."""

    id: int
    pid: int


class NotForked(msgspec.Struct, tag="not_forked", frozen=True):
    """Zygote: there is no process."""

    id: int
    why: str


class Ended(msgspec.Struct, tag="ended", frozen=True):
    """Zygote: a process ended, with its wait status."""

    pid: int
    status: int


class Standing(msgspec.Struct, tag="standing", frozen=True):
    """Worker, with its two listening sockets if they are in a network of its own: every layer stands."""


class Broken(msgspec.Struct, tag="broken", frozen=True):
    """Worker: a layer could not be applied. It exits with 70 and has run no code of a bot."""

    layer: str
    why: str


FromRunner = Begin | Fork
FromZygote = Begun | NotBegun | Forked | NotForked | Ended
FromWorker = Standing | Broken

_ENCODER: Final = msgspec.msgpack.Encoder()
RUNNER: Final = msgspec.msgpack.Decoder(FromRunner)
ZYGOTE: Final = msgspec.msgpack.Decoder(FromZygote)
WORKER: Final = msgspec.msgpack.Decoder(FromWorker)


def send(to: socket.socket, message: FromRunner | FromZygote | FromWorker, descriptors: Sequence[int] = ()) -> None:
    """One packet."""
    beside = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([_ENCODER.encode(message)], beside)


def receive(of: socket.socket) -> tuple[bytes, list[int]]:
    """One packet and its descriptors, which are closed on exec; no bytes: the other end is closed."""
    packet, descriptors, _flags, _address = socket.recv_fds(of, _LONGEST, _MOST_DESCRIPTORS, socket.MSG_CMSG_CLOEXEC)
    return packet, list(descriptors)
