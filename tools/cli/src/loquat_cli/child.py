"""A program as a child process with a log file."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from loquat_embedded.child import before_exec, gone, kill_group

_KILL_LIMIT: Final = 5.0  # seconds for the kernel to end what was killed


class Child:
    """Starts, stops and kills one program. It leads a group of its own, of which nothing is left when it has ended.

    `patience` is how many seconds it gets to end after SIGTERM. `settle` is what must follow each start; when it raises, the start has failed.
    If this process dies, the kernel kills the child (Linux).
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        log: Path,
        patience: float,
        settle: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self.command, self.environment, self.log = list(command), dict(environment), log
        self._patience, self._settle = patience, settle
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Starts the program; returns at once, or when it has settled."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(  # noqa: ASYNC220  (must happen in the loop's thread, with whose life the child's is tied)
                self.command,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=before_exec(death_signal=signal.SIGKILL),  # noqa: PLW1509  (system calls only)
            )

        if self._settle is not None:
            try:
                await self._settle()
            except BaseException:
                self.kill()
                await self.ended()
                raise

    async def ended(self) -> int:
        """Returns when it has ended: the exit code, negative for a signal."""
        if self._process is None:
            return 0
        process = self._process
        await gone(process.pid)
        if process.returncode is None:
            kill_group(process.pid, signal.SIGKILL)  # what it left behind; before we wait for it, while its number is still its own
        code = process.wait()
        self._process = None if self._process is process else self._process
        return code

    async def stop(self) -> None:
        """SIGTERM, and SIGKILL to the whole group after its patience. Harmless when it is not running."""
        if self._process is None:
            return
        self.signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(self._patience):
                await self.ended()
        except TimeoutError:
            self.kill()
            async with asyncio.timeout(_KILL_LIMIT):
                await self.ended()

    def kill(self) -> None:
        """As a crash: SIGKILL to it and its group."""
        if self._process is not None and self._process.returncode is None:
            kill_group(self._process.pid, signal.SIGKILL)

    def signal(self, number: signal.Signals) -> None:
        """Sends it alone a signal, such as SIGSTOP in a test of a frozen process."""
        if self._process is not None and self._process.returncode is None:
            os.kill(self._process.pid, number)  # not send_signal, which would wait for an ended process and free its number
