"""Runs, lines of logs and contents of drafts that nobody saved go after so many days."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loquat_common.db import is_gone
from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.store import BATCH, Store
from loquat_bot_runner.adapters.versions import Versions

_EVERY: Final = 3600.0  # seconds: days are what is promised
_BREATH: Final = 0.1  # seconds between two batches: whoever handles messages goes first
_MOST: Final = 1_000  # batches of one sweep: the rest waits for the next one


class Retention:
    """Deletes in small batches, each a transaction of its own."""

    def __init__(self, store: Store, versions: Versions, days: int) -> None:
        self._store, self._versions, self._days = store, versions, days

    async def sweep(self) -> int:
        """All that is too old, in batches; how many rows."""
        return sum([await _batches(sweep, self._days) for sweep in (self._store.sweep_runs, self._store.sweep_logs, self._versions.sweep)])

    async def run(self) -> None:
        """Sweeps every hour, for ever."""
        while True:
            try:
                if gone := await self.sweep():
                    get_logger().info("retention.swept", rows=gone)
            except Exception as error:
                if not is_gone(error):
                    raise
                get_logger().warning("retention.not_swept", error=type(error).__name__)
            await asyncio.sleep(_EVERY)


async def _batches(sweep: Callable[[int], Awaitable[int]], days: int) -> int:
    gone = 0
    for _ in range(_MOST):
        found = await sweep(days)
        gone += found
        if found < BATCH:
            break
        await asyncio.sleep(_BREATH)
    return gone
