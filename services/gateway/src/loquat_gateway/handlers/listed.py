"""Follows the directory: which orders of projects it has answered."""

from __future__ import annotations

import asyncio
from typing import Final

from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent

from loquat_gateway.adapters.people import People

_AWAY: Final = 5.0  # seconds until the next try when the control database does not answer


class Listed:
    """Notes each project that the directory speaks of, a tombstone too: what was made while no gateway ran may be gone by now."""

    def __init__(self, people: People) -> None:
        self._people = people
        self._heard: set[str] = set()
        self._news = asyncio.Event()
        self._log = get_logger()

    def heard(self, key: str, _event: AnyEvent | None) -> None:
        """The directory has a word about a project."""
        self._heard.add(key.partition(":")[0])
        self._news.set()

    async def run(self) -> None:
        """For ever. Sleeps until the directory changes."""
        while True:
            await self._news.wait()
            self._news.clear()
            try:
                await self.once()
            except Exception as error:
                if not is_gone(error):
                    raise
                self._log.warning("listed.control_database_away", error=type(error).__name__)
                self._news.set()
                await asyncio.sleep(_AWAY)

    async def once(self) -> None:
        """Notes what was heard."""
        heard = frozenset(self._heard)
        await self._people.listed(sorted(heard))
        self._heard -= heard
