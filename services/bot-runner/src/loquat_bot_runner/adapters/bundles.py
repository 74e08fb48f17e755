"""The files of versions, unpacked below one folder. It may be lost at any time."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Protocol

from loquat_common.logs import get_logger

from loquat_bot_runner.errors import DoesNotStart, ProjectDatabaseAway


class Files(Protocol):
    """Where versions are kept."""

    async def files(self, project: str, version: str) -> Mapping[str, str] | None:
        """The files of a version."""
        ...


class Bundles:
    """One folder per project and version, though versions are named by their content: whether somebody else has the same is nobody's affair."""

    def __init__(self, store: Files, folder: Path) -> None:
        self._store, self._folder = store, folder

    async def of(self, project: str, version: str) -> Path:
        """The folder of a version, readable by all and writable by nobody.

        Raises:
            DoesNotStart: there is no such version.
            ProjectDatabaseAway: it cannot be unpacked: the platform's fault, and logged.
        """
        folder = self._folder / project / version
        if not folder.exists():
            files = await self._store.files(project, version)
            if files is None:
                raise DoesNotStart(f"there is no version {version[:12]}")
            try:
                await asyncio.to_thread(_unpack, files, folder)
            except OSError as error:  # a full disk, say
                get_logger().error("bot.not_unpacked", project=project, version=version[:12], error=error.strerror)
                raise ProjectDatabaseAway("the platform could not unpack the bot") from None
        return folder


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
