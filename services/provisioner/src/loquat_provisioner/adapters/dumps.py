"""Dumps of project databases by `pg_dump`, with a tenant's rights: whatever it reads or evaluates, it may do no more than the owner.

The password is in the child's environment alone: not in its arguments, and no file of it is left behind when this process is killed.
It is good for one login (see `errands`).
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Final, Literal

from loquat_common.logs import get_logger

from loquat_provisioner.adapters.errands import Visitor

Form = Literal["custom", "plain"]
_PIECE: Final = 64 << 10  # bytes
_KILL: Final = 5.0  # seconds for a killed child to be gone
_TAIL: Final = 4096  # bytes of a child's complaint that are looked at

_REASONS: Final = (
    ("due to statement timeout", "somebody holds a lock on one of its tables"),  # pg_dump bounds its wait for locks so
    ("due to lock timeout", "somebody holds a lock on one of its tables"),
    ("too many connections", "all connections of its database are in use"),
    ("permission denied", "the project's role may not read something of it"),
    ("connection to server", "its database does not answer"),
    ("terminating connection", "its session was ended"),
)


class ProgramFailed(Exception):
    """The program did not do its work. The text is for people: nothing of what the program said itself, which may hold a tenant's data."""


class NoProgram(ProgramFailed):
    """The program is not installed where the setting says."""


def environment(host: str, port: int, visitor: Visitor) -> dict[str, str]:
    """All that a child gets. Nothing of ours is inherited."""
    return {
        "PGHOST": host,
        "PGPORT": str(port),
        "PGDATABASE": visitor.database,
        "PGUSER": visitor.user,
        "PGPASSWORD": visitor.password,
        "PGAPPNAME": "loquat",
        "PGCONNECT_TIMEOUT": "10",
        "PGPASSFILE": "/nonexistent",
        "PGSYSCONFDIR": "/nonexistent",
        "HOME": "/nonexistent",
        "LC_ALL": "C.UTF-8",
    }


class Programs:
    """`pg_dump` and `pg_restore` in `folder`, or on the path. `silence`: seconds without a byte after which one is given up."""

    def __init__(self, folder: Path | None, *, silence: float = 60.0) -> None:
        self._folder, self.silence = folder, silence

    def find(self, name: str) -> str:
        """The program's path.

        Raises:
            NoProgram: it is not there.
        """
        found = shutil.which(name, path=str(self._folder) if self._folder is not None else None)
        if found is None:
            raise NoProgram(f"{name} is not installed here (setting LOQUAT_POSTGRES_BIN)")
        return found


class Dump:
    """A running pg_dump. `first` and `rest` give its bytes; `ProgramFailed` comes instead of an end that is none."""

    def __init__(self, process: asyncio.subprocess.Process, silence: float) -> None:
        assert process.stdout is not None  # noqa: S101  (it was started with pipes)
        assert process.stderr is not None  # noqa: S101
        self._process, self._out, self._silence = process, process.stdout, silence
        self._complaint = asyncio.create_task(_tail(process.stderr), name="complaint of pg_dump")

    async def piece(self) -> bytes:
        """The next bytes; none at the good end.

        Raises:
            ProgramFailed: it ended badly, or said nothing for too long.
        """
        try:
            async with asyncio.timeout(self._silence):
                piece = await self._out.read(_PIECE)
                if not piece and await self._process.wait() != 0:
                    raise ProgramFailed(_reason(await self._complaint))
        except TimeoutError:
            raise ProgramFailed(f"nothing came for {self._silence:g} seconds") from None
        return piece

    async def end(self) -> None:
        """No process is left. Harmless when it has ended."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)  # a session of its own: what it started, too
        async with asyncio.timeout(_KILL):
            while await self._out.read(_PIECE):
                continue  # to the end: else the pipe stays open
            await self._complaint
            await self._process.wait()


async def _tail(stream: asyncio.StreamReader) -> str:
    kept = b""
    while piece := await stream.read(_PIECE):
        kept = (kept + piece)[-_TAIL:]
    return kept.decode(errors="replace")


def _reason(complaint: str) -> str:
    """For people, of a closed set: what pg_dump says may name a tenant's values."""
    found = next((reason for word, reason in _REASONS if word in complaint), "the program ended with an error")
    get_logger().warning("program.failed", reason=found)
    return found


@asynccontextmanager
async def dump(programs: Programs, given: Mapping[str, str], form: Form) -> AsyncGenerator[Dump]:
    """Runs pg_dump in the environment `given` for as long as the block lasts; at its end the child is gone whatever happened.

    Raises:
        NoProgram: there is no pg_dump.
    """
    process = await asyncio.create_subprocess_exec(
        programs.find("pg_dump"),
        f"--format={form}",
        "--schema=public",  # `loquat` is the platform's and not readable; there are no other schemas
        "--no-owner",
        "--no-privileges",
        "--no-password",
        "--no-publications",
        "--no-subscriptions",
        "--no-security-labels",
        "--lock-wait-timeout=5000",
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=given,
        cwd="/",
        start_new_session=True,
    )
    running = Dump(process, programs.silence)
    try:
        yield running
    finally:
        await asyncio.shield(running.end())
