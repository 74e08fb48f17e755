"""The files of versions, unpacked below one folder. It may be lost at any time."""

from __future__ import annotations

import asyncio
import os
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final, Protocol

from loquat_common.logs import get_logger

from loquat_bot_runner.errors import DoesNotStart, ProjectDatabaseAway

UNUSED: Final = 24 * 3600.0
"""Seconds after which a folder that nobody asked for is in no worker's use: none grows older than `wear.OLDEST` and its last call."""
_EVERY: Final = 3600.0


class Files(Protocol):
    """Where versions are kept."""

    async def files(self, project: str, version: str) -> Mapping[str, str] | None:
        """The files of a version."""
        ...


class Bundles:
    """One folder per project and version, though versions are named by their content: whether somebody else has the same is nobody's affair."""

    def __init__(self, store: Files, folder: Path, again: Callable[[Path], None] = lambda _: None) -> None:
        """`again` hears of each folder that is asked for another time."""
        self._store, self._folder, self._again = store, folder, again

    async def of(self, project: str, version: str) -> Path:
        """The folder of a version, readable by all and writable by nobody.

        Raises:
            DoesNotStart: there is no such version.
            ProjectDatabaseAway: it cannot be unpacked: the platform's fault, and logged.
        """
        folder = self._folder / project / version
        if _asked_for(folder):
            self._again(folder)
        else:
            files = await self._store.files(project, version)
            if files is None:
                raise DoesNotStart(f"there is no version {version[:12]}")
            try:
                await asyncio.to_thread(_unpack, files, folder)
            except OSError as error:  # a full disk, say
                get_logger().error("bot.not_unpacked", project=project, version=version[:12], error=error.strerror)
                raise ProjectDatabaseAway("the platform could not unpack the bot") from None
        return folder

    async def run(self) -> None:
        """Sweeps every hour, for ever."""
        while True:
            try:
                await asyncio.to_thread(self.sweep)
            except OSError as error:
                get_logger().warning("bot.folders_not_swept", error=error.strerror)
            await asyncio.sleep(_EVERY)

    def sweep(self, seconds: float = UNUSED) -> int:
        """Removes folders that nobody asked for in so many seconds, and what a crash left half unpacked; how many."""
        gone = [f for f in self._folder.glob("*/*") if time.time() - f.stat().st_mtime > seconds]
        for folder in gone:
            remove(folder)
        return len(gone)


def remove(folder: Path) -> None:
    """Whoever looks for it finds all of it or nothing, also when this is cut off in the middle: what is left then has another name."""
    leaving = folder.with_name(f"{folder.name}.{time.monotonic_ns()}")
    try:
        folder.rename(leaving)
    except FileNotFoundError:  # another was first
        return
    shutil.rmtree(leaving, ignore_errors=True)


def _asked_for(folder: Path) -> bool:
    """Whether it is there; `sweep` goes by when that was asked last."""
    try:
        os.utime(folder)
    except FileNotFoundError:
        return False
    return True


def _unpack(files: Mapping[str, str], folder: Path) -> None:
    making = folder.with_name(f"{folder.name}.{time.monotonic_ns()}")
    try:
        _write(files, making)
    except OSError:
        shutil.rmtree(making, ignore_errors=True)
        raise
    try:
        making.rename(folder)
    except OSError:
        shutil.rmtree(making)  # another task was first; the content is the same


def _write(files: Mapping[str, str], making: Path) -> None:
    for path, content in files.items():
        target = making / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o444)
    for made in (making, *(p for p in making.rglob("*") if p.is_dir())):
        made.chmod(0o755)
