"""What takes long with a stranger's files is done in a process aside: Python that reads a megabyte of brackets stands still for seconds meanwhile."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from loquat_bot_runner.domain.bundle import BundleRefused, Flaw, checked, digest
from loquat_bot_runner.domain.difference import FileChange
from loquat_bot_runner.errors import ProjectDatabaseAway

SMALL: Final = 8 << 10
"""Characters that are read here: 20 ms at worst, where a process would take 100."""
_SMALL_TOML: Final = 1 << 10
"""The same for TOML, where a name of many parts takes time by their square."""
_AT_ONCE: Final = 2
_PATIENCE: Final = 20.0  # seconds until one's turn
_LIMIT: Final = 10.0  # seconds for one question; half a second is much for a good one
_KNOWN: Final = 10_000  # versions that were found good
_MODULE: Final = "loquat_bot_runner.adapters.asidechild"


class Aside:
    """A few at once."""

    def __init__(self, limit: float = _LIMIT) -> None:
        self._room, self._limit = asyncio.Semaphore(_AT_ONCE), limit
        self._good: OrderedDict[str, None] = OrderedDict()

    async def checked(self, files: Mapping[str, str]) -> str:
        """As `bundle.checked`.

        Raises:
            BundleRefused: with every flaw; also when nobody could read it within limits.
            ProjectDatabaseAway: too many are waiting.
        """
        version = digest(files)
        if version in self._good:
            self._good.move_to_end(version)
            return version
        if _small(files):
            checked(files)
        else:
            answer = await self._asked("check", dict(files))
            if answer is None:
                raise BundleRefused(
                    [Flaw("too_complex", "the files cannot be read within limits", "is there something in them that no person wrote?")]
                )
            if "flaws" in answer:
                raise BundleRefused([Flaw(**flaw) for flaw in answer["flaws"]])
        self._good[version] = None
        while len(self._good) > _KNOWN:
            self._good.popitem(last=False)
        return version

    async def difference(self, old: Mapping[str, str], new: Mapping[str, str]) -> list[FileChange] | None:
        """As `difference.difference`; None: they could not be compared within limits.

        Raises:
            ProjectDatabaseAway: too many are waiting.
        """
        answer = await self._asked("diff", dict(old), dict(new))
        return [FileChange(**change) for change in answer] if answer is not None else None

    async def compile(self, folder: Path) -> bool:
        """Puts compiled modules beside the Python files of a folder; False: not within limits, or not one of them.

        Raises:
            ProjectDatabaseAway: too many are waiting.
        """
        return bool(await self._asked("compile", str(folder)))

    async def _asked(self, *question: Any) -> Any:
        try:
            async with asyncio.timeout(_PATIENCE):
                await self._room.acquire()
        except TimeoutError:
            raise ProjectDatabaseAway("too many bots are being read") from None
        try:
            return await self._answer(json.dumps([question[0], question[1:]]).encode())
        finally:
            self._room.release()

    async def _answer(self, question: bytes) -> Any:
        """None: the process ended without one, or did not end in time."""
        pipe = asyncio.subprocess.PIPE
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-I",
            "-m",
            _MODULE,
            stdin=pipe,
            stdout=pipe,
            stderr=asyncio.subprocess.DEVNULL,
            env={"LANG": "C.UTF-8"},
            cwd="/",
        )
        try:
            async with asyncio.timeout(self._limit):
                answer, _ = await process.communicate(question)
        except TimeoutError:
            return None
        finally:
            with suppress(ProcessLookupError):  # it has ended: that is as it should be
                process.kill()
            await process.wait()
        return json.loads(answer) if process.returncode == 0 else None


def _small(files: Mapping[str, str]) -> bool:
    toml = sum(len(content) for path, content in files.items() if path.endswith(".toml"))
    return toml <= _SMALL_TOML and sum(len(path) + len(content) for path, content in files.items()) <= SMALL
