"""A process behind its walls, as the one outside sees it."""

from __future__ import annotations

import asyncio
import io
import os
import resource
import select
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from loquat_sandbox.groups import Group
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits

_END_LIMIT: Final = 5.0  # seconds for the kernel to end what got SIGKILL; 2 ms is usual
WITH_ITS_ZYGOTE: Final = "it ended with its zygote"
"""How a worker ended that nobody saw end: the platform's doing, not its own."""


class Confinement(msgspec.Struct, frozen=True, kw_only=True):
    """What is wanted. `folder` and `layer` are below the zygote's bundles; `environment` is seen by the zygote too: nothing secret."""

    folder: Path
    layer: Path | None = None
    """Packages that it may import besides; to be read only, as the folder."""
    limits: Limits = Limits()
    user: int | None = None
    environment: dict[str, str] = {}
    groups: tuple[int, ...] = ()
    """Descriptors of control groups to enter (`Group.entries`); they stay the caller's."""
    canary: bool = False
    """Instead of a bot: see `canary`."""


@dataclass(slots=True)
class Ending:
    """When and how a process ended; `left` runs once it has."""

    how: asyncio.Future[str]
    left: list[Callable[[], None]] = field(default_factory=list[Callable[[], None]])

    def tell(self, status: int | None) -> None:
        """Of its wait status; None: nobody knows it."""
        if not self.how.done():
            self.how.set_result(WITH_ITS_ZYGOTE if status is None else said(os.waitstatus_to_exitcode(status)))
            for run in self.left:
                run()


def said(code: int) -> str:
    """An exit status in words."""
    return f"exit {code}" if code >= 0 else signal.Signals(-code).name


class Confined:
    """All of its descriptors are ours to close. The listening sockets are its only doors: who connects there is this worker and nobody else."""

    def __init__(
        self,
        *,
        level: Level,
        folder: str,
        layer: str | None,
        pidfd: int,
        ending: Ending,
        control: socket.socket,
        output: io.FileIO,
        postgres: socket.socket,
        egress: socket.socket,
    ) -> None:
        self.level, self.folder, self.layer, self.control, self.output = level, folder, layer, control, output
        self.postgres, self.egress = postgres, egress
        self.postgres_port: int = postgres.getsockname()[1]
        self.egress_port: int = egress.getsockname()[1]
        self.pid = pid_of(pidfd)
        self._pidfd: int | None = pidfd
        self._ending = ending
        self._starved = False

    def lives_in(self, group: Group | None, after: Callable[[], None]) -> None:
        """Its control group; `after` runs when it has ended."""

        def left() -> None:
            if group is not None:
                self._starved = group.ran_out_of_memory()
            after()

        if self.alive:
            self._ending.left.append(left)
        else:
            left()

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended it for that; known once it has ended."""
        return self._starved

    def kill(self) -> None:
        """SIGKILL, at once; from level 2 on to all it may have started. What has ended already is left alone."""
        if self._pidfd is not None:
            kill(self._pidfd)

    async def ended(self) -> str:
        """Waits; "exit 3", "SIGKILL" and the like."""
        return await asyncio.shield(self._ending.how)

    @property
    def alive(self) -> bool:
        """Whether nothing was heard of its end."""
        return not self._ending.how.done()

    def cpu(self) -> float:
        """Seconds of processor time it used; 0 when it has ended."""
        if not self.alive or self.pid <= 0:
            return 0.0
        try:
            return time.clock_gettime((~self.pid << 3) | 2)  # clock_getcpuclockid(3)
        except OSError:
            return 0.0

    def memory(self) -> int:
        """Bytes resident, what it shares with its zygote included; 0 when it has ended."""
        try:
            return int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1]) * resource.getpagesize()
        except OSError:
            return 0

    def yield_processor(self) -> None:
        """From now on it runs when nobody else wants to. It cannot undo that; neither can we, unless we are root."""
        if not self.alive:
            return
        with suppress(OSError):
            for thread in Path(f"/proc/{self.pid}/task").iterdir():
                os.sched_setscheduler(int(thread.name), os.SCHED_IDLE, os.sched_param(0))

    async def close(self) -> None:
        """Ends it and closes everything. Servers on its doors must be closed before.

        Raises:
            TimeoutError: the kernel does not end it.
        """
        self.kill()
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self.ended()
        except TimeoutError:
            if self._pidfd is None or not select.select([self._pidfd], [], [], 0)[0]:
                raise
            self._ending.tell(None)  # it has ended, and its zygote does not say so
        finally:
            self.control.close()
            self.postgres.close()
            self.egress.close()
            self.output.close()
            pidfd, self._pidfd = self._pidfd, None  # numbers are reused: a late call must not kill a stranger
            if pidfd is not None:
                os.close(pidfd)


def kill(pidfd: int) -> None:
    """SIGKILL to the process behind a pidfd."""
    with suppress(ProcessLookupError):
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)


def pid_of(pidfd: int) -> int:
    """The number by which we know the process; -1 when it has ended."""
    lines = Path(f"/proc/self/fdinfo/{pidfd}").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("Pid:"))
