"""A zygote in reserve: when the one that serves is lost, the next worker does not wait for an interpreter to start."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loquat_sandbox.incarnation import ConfinementFailed, Identity, Incarnation, ZygoteLost

_CALM: Final = 10.0
"""Seconds from the start of one that serves to that of its reserve: just then workers are started, and a start takes 0.3 s of processor time."""


class Standby:
    """At most one. It rests: its memory is all that it costs (some 25 MB, in two processes)."""

    def __init__(self, begin: Callable[[], Awaitable[Incarnation]]) -> None:
        self._begin = begin
        self._kept: Incarnation | None = None
        self._missing = asyncio.Event()
        self._closed = False

    def take(self, shows: Identity) -> Incarnation | None:
        """The one that is kept, if there is one that serves and shows this folder. From now on another is wanted."""
        kept, self._kept = self._kept, None
        self._missing.set()
        if kept is None or kept.lost:
            return None
        if kept.shows != shows:
            kept.end()
            return None
        return kept

    async def run(self, calm: float = _CALM) -> None:
        """Keeps one, for ever. One that cannot be made is tried again, and not said: who needs it will fail in the same way, aloud."""
        while True:
            await self._missing.wait()
            self._missing.clear()
            if self._kept is not None and not self._kept.lost:
                continue
            await asyncio.sleep(calm)
            try:
                made = await self._begin()
            except (ZygoteLost, ConfinementFailed, OSError):
                self._missing.set()
                continue
            if self._closed:
                made.end()
                return
            made.at_end = self._missing.set
            self._kept = made

    async def close(self) -> None:
        """Ends it."""
        self._closed = True
        if (kept := self._kept) is not None:
            kept.end()
            await kept.gone()
