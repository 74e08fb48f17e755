"""A worker at level 0: a process of its own with limits, where the platform knows no better. No wall against code that means harm."""

from __future__ import annotations

import asyncio
import io
import os
import signal
import socket
import stat
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

from loquat_sandbox import kernel, limits, network
from loquat_sandbox.confined import said
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits

_END_LIMIT = 5.0


class Spawned:
    """The same to its runner as a `Confined`."""

    level = Level.NONE

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        shown: tuple[str, str | None],
        control: socket.socket,
        output: io.FileIO,
        doors: list[socket.socket],
    ) -> None:
        self._process = process
        (self.folder, self.layer), self.control, self.output = shown, control, output
        self.postgres, self.egress = doors
        self.postgres_port: int = self.postgres.getsockname()[1]
        self.egress_port: int = self.egress.getsockname()[1]
        self.pid = process.pid
        self.left: Callable[[], None] | None = None
        """Runs once, when it is closed."""

    @property
    def alive(self) -> bool:
        """Whether nothing was heard of its end."""
        return self._process.returncode is None

    def kill(self) -> None:
        """SIGKILL to it and to what it started and did not send away."""
        if self.alive:
            with suppress(ProcessLookupError):  # it has ended, and asyncio has not looked yet
                os.killpg(self.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """Waits; "exit 3", "SIGKILL" and the like."""
        return said(await self._process.wait())

    def ran_out_of_memory(self) -> bool:
        """Nobody counts."""
        return False

    def cpu(self) -> float:
        """Not measured."""
        return 0.0

    def memory(self) -> int:
        """Not measured."""
        return 0

    def yield_processor(self) -> None:
        """Not asked of it."""

    async def close(self) -> None:
        """Ends it and closes everything."""
        self.kill()
        try:
            async with asyncio.timeout(_END_LIMIT):
                await self._process.wait()
        finally:
            for one in (self.control, self.postgres, self.egress, self.output):
                one.close()
            left, self.left = self.left, None
            if left is not None:
                left()


def readable() -> bool:
    """Whether another user than ours could read the interpreter."""
    program = Path(sys.executable).resolve()
    return all(path.stat().st_mode & stat.S_IXOTH for path in (program, *program.parents))


async def spawn(
    module: str, folder: Path, layer: Path | None, wanted: Limits, environment: Mapping[str, str], user: int | None = None
) -> Spawned:
    """Starts `python -m module FD`, as `user` if there is one.

    Raises:
        OSError: there is no process.
    """
    ours, theirs = socket.socketpair()
    read, write = os.pipe()
    output = io.FileIO(read, "rb")
    doors = [network.door(0), network.door(0)]
    try:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            module,
            str(theirs.fileno()),
            pass_fds=[theirs.fileno()],
            stdin=asyncio.subprocess.DEVNULL,
            stdout=write,
            stderr=write,
            env={**environment, **network.proxies(doors[1].getsockname()[1])},
            cwd="/",
            preexec_fn=_before_exec(wanted, user),
        )
    except BaseException:
        for one in (ours, output, *doors):
            one.close()
        raise
    finally:
        theirs.close()
        os.close(write)
    ours.setblocking(False)
    os.set_blocking(read, False)
    return Spawned(process, (str(folder), str(layer) if layer is not None else None), ours, output, doors)


def _before_exec(wanted: Limits, user: int | None) -> Callable[[], None]:
    """What runs in the child between fork and exec."""
    parent = os.getpid()

    def run() -> None:
        os.setsid()
        limits.apply(wanted, addresses=None, own_user=False)
        if user is not None:
            os.setgroups([])
            os.setresgid(user, user, user)
            os.setresuid(user, user, user)
        if sys.platform == "linux":
            kernel.prctl(kernel.PR_SET_NO_NEW_PRIVS, 1)
            kernel.die_with(parent)

    return run
