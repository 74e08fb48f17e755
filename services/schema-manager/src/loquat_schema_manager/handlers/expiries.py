"""The history of rows does not grow for ever: every few hours each project's is looked at, one project after the other."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from loquat_common.logs import get_logger

EVERY: Final = 6 * 3600.0
"""Seconds from one round to the next. A round of a project without a history is one question to its database."""
_FIRST: Final = 600.0  # seconds: a process that has just begun has other things to do


class Expiries:
    """`projects` names those that are ready; `expire` deletes what is over in one of them. Replicas that do it twice do no harm."""

    def __init__(self, projects: Callable[[], Sequence[str]], expire: Callable[[str], Awaitable[int]]) -> None:
        self._projects, self._expire = projects, expire
        self._log = get_logger()

    async def run(self) -> None:
        """For ever."""
        await asyncio.sleep(_FIRST)
        while True:
            await self.once()
            await asyncio.sleep(EVERY)

    async def once(self) -> int:
        """One round; how many changes are gone. A project that refuses keeps no other."""
        count = 0
        for project in self._projects():
            try:
                count += await self._expire(project)
            except Exception as error:  # noqa: BLE001  (the loop's edge: a tenant's own trigger may raise anything)
                self._log.warning("history.expire_later", project=project, error=type(error).__name__)
        return count
