"""What is kept for so many days goes afterwards: in small batches, each a transaction of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loquat_common.db import is_gone
from loquat_common.logs import get_logger

BATCH: Final = 1_000
"""Rows that one statement deletes: a short lock, a short transaction."""
_EVERY: Final = 3600.0  # seconds: days are what is promised
_BREATH: Final = 0.1  # seconds between two batches: whoever handles messages goes first
_MOST: Final = 1_000  # batches of one round: the rest waits for the next one


class Retention:
    """Each of `sweeps` deletes one batch and says how many rows that were: fewer than BATCH mean that no more is too old. Replicas that do it twice do no harm."""

    def __init__(self, *sweeps: Callable[[], Awaitable[int]]) -> None:
        self._sweeps = sweeps

    async def sweep(self) -> int:
        """All that is too old, in batches; how many rows."""
        return sum([await _batches(sweep) for sweep in self._sweeps])

    async def run(self) -> None:
        """A round every hour, for ever."""
        while True:
            try:
                if gone := await self.sweep():
                    get_logger().info("retention.swept", rows=gone)
            except Exception as error:
                if not is_gone(error):
                    raise
                get_logger().warning("retention.not_swept", error=type(error).__name__)
            await asyncio.sleep(_EVERY)


async def _batches(sweep: Callable[[], Awaitable[int]]) -> int:
    gone = 0
    for _ in range(_MOST):
        found = await sweep()
        gone += found
        if found < BATCH:
            break
        await asyncio.sleep(_BREATH)
    return gone
