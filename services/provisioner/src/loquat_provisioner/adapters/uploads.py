"""An uploaded dump, restored by `pg_restore` with a tenant's rights: the owner's own objects, never the system's tables nor their rows.

What is left out is left out for convenience: what a hostile archive says beside it PostgreSQL refuses, for the login is the tenant's.
"""

from __future__ import annotations

import asyncio
import os
import re
import resource
import signal
import sys
from collections.abc import AsyncIterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.dumps import ProgramFailed, Programs
from loquat_provisioner.domain.life import Names

_MAGIC: Final = b"PGDMP"
_LOT: Final = 1 << 20  # bytes that are written at once
_LISTED: Final = 4 << 20  # bytes of a table of contents: 40,000 entries
_MEMORY: Final = 1 << 30  # bytes of a program that reads what a stranger wrote
_LONGEST: Final = 1_800.0  # seconds
_KILL: Final = 5.0
_ENTRY: Final = re.compile(r"\d+; \d+ \d+ (.+)")
_NOT_OURS: Final = (
    "SCHEMA ",
    "ACL ",
    "DEFAULT ACL ",
    "DATABASE",
    "EXTENSION ",
    "EVENT TRIGGER ",
    "PUBLICATION ",
    "SUBSCRIPTION ",
    "COMMENT - ",
    "BLOB",
)
_ERROR: Final = re.compile(r"ERROR:  ([^\n]{1,300})")
_OWNED: Final = """
SELECT EXISTS (SELECT FROM pg_class WHERE relowner = r.oid) OR EXISTS (SELECT FROM pg_proc WHERE proowner = r.oid)
    OR EXISTS (SELECT FROM pg_type WHERE typowner = r.oid)
FROM pg_roles AS r WHERE r.rolname = $1"""


class NotADump(Exception):
    """What was uploaded is no archive of pg_dump's custom format."""


class TooLarge(Exception):
    """It is larger than the project may become."""


@dataclass(frozen=True, slots=True)
class Contents:
    """Entries of an archive: those to restore, as pg_restore lists them, and how many are left out."""

    chosen: list[str]
    left_out: int

    @property
    def tables(self) -> int:
        """How many tables are among them."""
        return sum(_what(line).startswith("TABLE ") and not _what(line).startswith("TABLE DATA ") for line in self.chosen)


async def is_new(databases: ProjectDatabases, names: Names) -> bool:
    """Whether the project has no objects of its own yet."""
    async with databases.inside(names.database) as inside:
        return not await inside.fetchval(_OWNED, names.owner, timeout=10)


async def keep(pieces: AsyncIterable[bytes], path: Path, most: int) -> int:
    """Writes the upload to a file; its size.

    Raises:
        NotADump, TooLarge.
    """
    size, lot = 0, b""
    with path.open("wb") as file:
        async for piece in pieces:
            size, lot = size + len(piece), lot + piece
            if size > most:
                raise TooLarge
            if len(lot) >= _LOT:
                _check(size - len(lot), lot)
                await asyncio.to_thread(file.write, lot)
                lot = b""
        _check(size - len(lot), lot)
        await asyncio.to_thread(file.write, lot)
    return size


def _check(at: int, lot: bytes) -> None:
    if at == 0 and not lot.startswith(_MAGIC):
        raise NotADump


async def contents(programs: Programs, path: Path) -> Contents:
    """What is in the archive.

    Raises:
        NotADump: pg_restore cannot read it.
    """
    code, listed, _ = await _run([programs.find("pg_restore"), "--list", str(path)], {"LC_ALL": "C.UTF-8"})
    if code != 0 or len(listed) >= _LISTED:
        raise NotADump
    entries = [line for line in listed.decode(errors="replace").splitlines() if not line.startswith(";") and _ENTRY.fullmatch(line)]
    chosen = [line for line in entries if not _what(line).startswith(_NOT_OURS) and not line.endswith(" loquat_system")]
    return Contents(chosen, len(entries) - len(chosen))


def _what(line: str) -> str:
    found = _ENTRY.fullmatch(line)
    return found[1] if found is not None else ""


async def restore(programs: Programs, given: Mapping[str, str], path: Path, chosen: Contents) -> None:
    """All or nothing, in the environment `given`.

    Raises:
        ProgramFailed: with what PostgreSQL said to the owner's own statement.
    """
    use = path.with_suffix(".list")
    use.write_text("\n".join(chosen.chosen) + "\n")
    command = [programs.find("pg_restore"), f"--dbname={given['PGDATABASE']}", f"--use-list={use}", "--single-transaction"]
    code, _, complaint = await _run([*command, "--no-owner", "--no-privileges", "--no-password", str(path)], given)
    if code != 0:
        said = _ERROR.search(complaint)
        raise ProgramFailed(said[1] if said is not None else "the archive could not be read to its end")


async def _run(command: Sequence[str], given: Mapping[str, str]) -> tuple[int, bytes, str]:
    """The program's exit code, the beginning of what it wrote, and of what it complained of. No process is left behind."""
    process = await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env=dict(given),
        cwd="/",
        start_new_session=True,
    )
    if sys.platform == "linux":
        with suppress(ProcessLookupError):
            resource.prlimit(process.pid, resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    assert process.stdout is not None  # noqa: S101  (it was started with pipes)
    assert process.stderr is not None  # noqa: S101
    try:
        async with asyncio.timeout(_LONGEST), asyncio.TaskGroup() as group:
            out, complaint = group.create_task(_beginning(process.stdout)), group.create_task(_beginning(process.stderr))
            group.create_task(process.wait())
        return process.returncode or 0, out.result(), complaint.result().decode(errors="replace")
    except TimeoutError:
        raise ProgramFailed(f"it took longer than {_LONGEST:g} seconds") from None
    finally:
        await asyncio.shield(_ended(process))


async def _beginning(stream: asyncio.StreamReader) -> bytes:
    kept = b""
    while piece := await stream.read(_LOT):
        kept += piece[: _LISTED - len(kept)]
    return kept


async def _ended(process: asyncio.subprocess.Process) -> None:
    if process.returncode is None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        async with asyncio.timeout(_KILL):
            await process.wait()
