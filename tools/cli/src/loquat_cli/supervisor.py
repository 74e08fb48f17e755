"""All processes of a stack: started in order, stopped in reverse, their state kept in a file that `loquat status` reads."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from loquat_cli.home import write_private
from loquat_cli.logfiles import bound
from loquat_cli.process import Process, Startable
from loquat_cli.restarts import Restarts

_LOOK_AT_LOGS: Final = 30.0  # seconds; a log may pass its size by what is written meanwhile

Say = Callable[[Process], None]


class Supervisor:
    """Use as an async context manager: at its end nothing that it started is left."""

    def __init__(self, state_file: Path, *, restarts: Restarts, log_bytes: int, died: Say) -> None:
        self.processes: dict[str, Process] = {}
        self._state_file, self._restarts, self._log_bytes, self._died = state_file, restarts, log_bytes, died
        self._logs: list[Path] = []
        self._since: dict[str, str] = {}
        self._phases: list[list[Process]] = []
        self._facts: dict[str, object] = {}
        self._housekeeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._housekeeping = asyncio.create_task(self._bound_logs(), name="bound logs")
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._housekeeping is not None:
            self._housekeeping.cancel()
        for phase in reversed(self._phases):
            await asyncio.gather(*(p.stop() for p in phase))
        self._state_file.unlink(missing_ok=True)

    def note(self, **facts: object) -> None:
        """Facts about the stack for `loquat status`, such as addresses."""
        self._facts |= facts
        self._write()

    async def start(self, *phases: Sequence[tuple[str, Startable, Path]]) -> None:
        """Starts all of these processes (name, what, log) at once. A phase is stopped after those that follow it.

        Raises:
            Exception: what the first that fails raised; the others are stopped at the end like all.
        """
        made: list[Process] = []
        for phase in phases:
            self._phases.append([Process(name, what, self._restarts, self._changed) for name, what, _ in phase])
            self._logs += [log for *_, log in phase]
            made += self._phases[-1]
        self.processes |= {p.name: p for p in made}
        answers = await asyncio.gather(*(p.start() for p in made), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, BaseException):
                raise answer

    def hurry(self) -> None:
        """Kills everything that can be killed without harm; databases are left to their own fast end."""
        for phase in self._phases[1:]:
            for process in phase:
                process.kill()

    def _changed(self, process: Process) -> None:
        self._since[process.name] = datetime.now(UTC).isoformat(timespec="seconds")
        self._write()
        if process.state in {"waiting", "crash loop", "failed"}:
            self._died(process)

    def _write(self) -> None:
        shown = {
            name: {"state": p.state, "pid": p.pid, "restarts": p.restarts, "last_end": p.last_end, "since": self._since.get(name)}
            for name, p in self.processes.items()
        }
        write_private(self._state_file, json.dumps({"pid": os.getpid(), **self._facts, "processes": shown}, indent=1))

    async def _bound_logs(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_AT_LOGS)
            for log in self._logs:
                await asyncio.to_thread(bound, log, self._log_bytes)
