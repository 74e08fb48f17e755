"""Compiled modules beside those of unpacked versions: a worker that starts need not compile them anew. Without them it only takes longer."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from importlib.util import cache_from_source
from pathlib import Path
from typing import Final

from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.errors import ProjectDatabaseAway

_WAITING: Final = 100  # versions; beyond it they are asked for at their next start
_REMEMBERED: Final = 10_000  # versions that are not tried again


class Bytecode:
    """Of versions that are started a second time: many never are. Nothing that a stranger wrote is compiled in this process."""

    def __init__(self, aside: Aside) -> None:
        self._aside, self._log = aside, get_logger()
        self._waiting: asyncio.Queue[Path] = asyncio.Queue(_WAITING)
        self._vain = OrderedDict[Path, None]()

    def want(self, folder: Path) -> None:
        """Asks for a version's, soon. Never waits and never fails."""
        if folder not in self._vain and not self._waiting.full():
            self._waiting.put_nowait(folder)

    async def run(self) -> None:
        """One version after the other, for ever."""
        while True:
            await self.one()

    async def one(self) -> None:
        """The next version that is wanted. One that takes too long is not tried again: each try costs what it takes."""
        folder = await self._waiting.get()
        if folder in self._vain or _there(folder):
            return
        try:
            done = await self._aside.compile(folder)
        except (ProjectDatabaseAway, OSError) as error:  # no room aside, or no process
            self._log.warning("bot.not_compiled", version=folder.name[:12], error=str(error))
            return
        if not done:
            self._vain[folder] = None
            while len(self._vain) > _REMEMBERED:
                self._vain.popitem(last=False)


def _there(folder: Path) -> bool:
    return Path(cache_from_source(folder / "bot.py")).exists()
