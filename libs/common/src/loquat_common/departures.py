"""Projects that are gone: what a service keeps of them goes, too."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from loquat_events.envelope import AnyEvent

from loquat_common.bus.port import BusUnavailable, Table
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.logs import get_logger

_SOON: Final = 10.0
"""Seconds until the next look after one that found something: an event that was under way may have written after the project went."""
_AGAIN: Final = 3600.0
"""Seconds until the next look without news."""
_AWAY: Final = 5.0
_LOOK: Final = 0.5


class Departures:
    """`known` names the projects of this service's rows; `forget` drops all of one, and may be called again after a crash.

    A project is gone when the directory, read to its end after its row was seen, has no entry of it: the entry is older than any row. A
    directory without any entry is one that was lost, not the end of all projects: then only what was seen to go is gone.
    """

    def __init__(self, directory: Table, known: Callable[[], Awaitable[Sequence[str]]], forget: Callable[[str], Awaitable[None]]) -> None:
        self._directory, self._known, self._forget = directory, known, forget
        self._tombstones: set[str] = set()
        self._news = asyncio.Event()
        self._log = get_logger()
        directory.on_change(self._changed)

    def _changed(self, key: str, event: AnyEvent | None) -> None:
        if event is None:
            self._tombstones.add(key.partition(":")[0])
            self._news.set()

    async def run(self) -> None:
        """For ever. Sleeps until a project goes."""
        while True:
            self._news.clear()
            pause = _AGAIN
            try:
                if await self.once():
                    pause = _SOON
            except Exception as error:
                if not is_gone(error) and not isinstance(error, BusUnavailable | DatabaseAway):
                    raise
                self._log.warning("departures.later", error=type(error).__name__)
                pause = _AWAY
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def once(self) -> list[str]:
        """Forgets all that are gone; which."""
        asked = time.monotonic()
        known = await self._known()
        while known and self._directory.age() >= time.monotonic() - asked:  # noqa: ASYNC110  (nothing tells when a look ends)
            await asyncio.sleep(_LOOK)
        self._tombstones &= set(known)
        lost = not self._directory.values()
        gone = [p for p in known if self._directory.get(f"{p}:project") is None and (not lost or p in self._tombstones)]
        for project in gone:
            await self._forget(project)
            self._log.info("project.forgotten", project=project)
        return gone
