"""The zygote as the runner's asyncio code sees it: a worker for each `fork`, a new zygote for one that is lost."""

from __future__ import annotations

import asyncio
import io
import os
import socket
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from loquat_sandbox import messages, network
from loquat_sandbox.confined import Confined, Confinement, kill
from loquat_sandbox.incarnation import FORK_LIMIT, ConfinementFailed, Identity, Incarnation, ZygoteLost, until
from loquat_sandbox.levels import Level
from loquat_sandbox.root import APP, PACKAGES
from loquat_sandbox.standby import Standby

_START_LIMIT: Final = 30.0  # seconds until a zygote serves; 0.3 is usual
_AT_ONCE: Final = 8
"""Forks that are asked for at once. The others wait here, where no time runs: a burst of hundreds must not look like a zygote that is stuck."""
_LONGEST: Final = 24 * 3600.0
"""Seconds that one zygote is forked from: all its workers have their code and data at the same addresses, and hash alike."""
ENTRY: Final = "loquat.worker:serve"
PRELOAD: Final = (
    "loquat",
    "loquat.worker",
    "asyncpg",
    "encodings.idna",
    "asyncio.selector_events",
    "concurrent.futures.thread",
    "zoneinfo",
)


class Zygote:
    """Forks workers at one level. `bundles` is the folder below which everything lies that a worker may be shown as its own.

    While `standby.run()` runs, another one is kept for the end of the one that serves.
    """

    def __init__(
        self, level: Level, bundles: Path, *, entry: str = ENTRY, preload: Sequence[str] = PRELOAD, longest: float = _LONGEST
    ) -> None:
        if level is Level.NONE:
            raise ValueError("at level 0 there is no zygote")
        self.level = level
        self._bundles = bundles.resolve()
        self._entry, self._preload, self._longest = entry, list(preload), longest
        self._now: Incarnation | None = None
        self._old: list[Incarnation] = []
        self.standby = Standby(self._begin)
        self._gate, self._turns = asyncio.Lock(), asyncio.Semaphore(_AT_ONCE)
        self._closed = False

    async def start(self) -> None:
        """Starts it, if it does not serve. From the main thread: it ends with the thread that starts it.

        Raises:
            ZygoteLost: it does not start.
            ConfinementFailed: this machine does not give what the level needs.
        """
        await self._serving()

    async def _serving(self) -> Incarnation:
        async with self._gate:
            if self._closed:
                raise ZygoteLost("it was closed")
            folder = _identity(self._bundles)
            if self._now is not None and self._now.shows != folder:
                self._now.end()  # it would show its workers a folder that was removed
            if self._now is not None and self._now.age >= self._longest:
                self._now.retire()
                self._old = [o for o in (*self._old, self._now) if not o.lost]
                self._now = None
            if self._now is None or self._now.lost:
                self._now = self.standby.take(folder)
                if self._now is None:
                    self._now = await self._begin()
                self._now.serve()
            return self._now

    async def _begin(self) -> Incarnation:
        shows = _identity(self._bundles)
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        ours.setblocking(False)
        with theirs:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-I",
                "-B",
                "-m",
                "loquat_sandbox.zygote",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                env={},
                cwd="/",
                start_new_session=True,  # an interrupt from the terminal is for the runner, which lets bots finish
            )
        made = Incarnation(process, ours, shows)
        try:
            async with asyncio.timeout(_START_LIMIT):
                await made.ask(messages.Begin(self.level, str(self._bundles), self._entry, self._preload, os.getpid()))
                made.landlock = await made.begun
        except BaseException as error:
            made.end()
            await asyncio.shield(made.gone())
            if isinstance(error, TimeoutError):
                raise ZygoteLost("it does not start") from None
            raise
        return made

    @property
    def landlock(self) -> int:
        """The ABI of Landlock that its workers are held by; 0: none."""
        return self._now.landlock if self._now is not None else 0

    async def fork(self, wanted: Confinement) -> Confined:
        """A worker all of whose walls stand; no code of a bot has run in it.

        Raises:
            ConfinementFailed: a wall does not stand.
            ZygoteLost: there is no zygote, and none could be started.
            ValueError: the folder, or the layer, is not below the bundles.
        """
        bundle = str(wanted.folder.resolve().relative_to(self._bundles))
        layer = str(wanted.layer.resolve().relative_to(self._bundles)) if wanted.layer is not None else None
        async with self._turns:
            serving = await self._serving()
            with ExitStack() as undo:
                made = await self._fork(serving, wanted, (bundle, layer), undo)
                undo.pop_all()
                return made

    async def _fork(self, serving: Incarnation, wanted: Confinement, shown: tuple[str, str | None], undo: ExitStack) -> Confined:
        """Everything that is opened here is closed by `undo` unless it is taken over."""
        control, their_control = socket.socketpair()
        setup, their_setup = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        read, write = os.pipe2(os.O_CLOEXEC)
        output = undo.enter_context(io.FileIO(read, "rb"))
        undo.enter_context(control)
        for one in (control, setup):
            one.setblocking(False)
        os.set_blocking(read, False)
        doors = [undo.enter_context(network.door(0)) for _ in range(2)] if self.level < Level.CONTAINED else []
        with setup:
            try:
                ports = (doors[0].getsockname()[1], doors[1].getsockname()[1]) if doors else None
                environment = {**wanted.environment, **network.proxies(doors[1].getsockname()[1] if doors else network.EGRESS_PORT)}
                request = messages.Fork(serving.number(), *shown, wanted.limits, environment, wanted.user, ports, wanted.canary)
                given = [their_control.fileno(), write, their_setup.fileno(), *wanted.groups]
                pidfd, ending = await serving.fork(request, given)
            finally:
                os.close(write)
                their_control.close()
                their_setup.close()
            undo.callback(os.close, pidfd)
            undo.callback(kill, pidfd)
            doors += [undo.enter_context(s) for s in await _standing(setup)]
        postgres, egress = doors
        own_root = self.level >= Level.CONTAINED
        bundle, layer = shown
        return Confined(
            level=self.level,
            folder=APP if own_root else str(self._bundles / bundle),
            layer=None if layer is None else PACKAGES if own_root else str(self._bundles / layer),
            pidfd=pidfd,
            ending=ending,
            control=control,
            output=output,
            postgres=postgres,
            egress=egress,
        )

    async def close(self) -> None:
        """Ends it, and every worker."""
        self._closed = True
        await self.standby.close()
        for one in (*self._old, *([] if self._now is None else [self._now])):
            one.end()
            await one.gone()


def _identity(folder: Path) -> Identity:
    found = folder.stat()
    return found.st_dev, found.st_ino


async def _standing(setup: socket.socket) -> list[socket.socket]:
    """Waits for the worker's word that its walls stand, and takes its doors."""
    loop = asyncio.get_running_loop()
    try:
        async with asyncio.timeout(FORK_LIMIT):
            await until(setup, loop.add_reader, loop.remove_reader)
    except TimeoutError:
        raise ConfinementFailed("unknown", "its walls do not stand in time") from None
    packet, descriptors = messages.receive(setup)
    doors = [socket.socket(fileno=d) for d in descriptors]
    if not packet:
        raise ConfinementFailed("unknown", "it ended while its walls were put up")
    message = messages.WORKER.decode(packet)
    if isinstance(message, messages.Broken):
        raise ConfinementFailed(message.layer, message.why)
    for door in doors:
        door.setblocking(False)
    return doors
