"""That a bot is writing, to the contact's phone: at once or not at all."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Final

from loquat_common import metrics
from loquat_common.logs import get_logger
from loquat_events.conversations import TypingBegun

from loquat_connector.adapters.graph import Graph
from loquat_connector.adapters.numbers import Numbers

OLDEST: Final = timedelta(seconds=20)
"""Beyond this it is dropped: a phone shows it for 25 s, and the answer is there or soon will be."""
_AT_ONCE: Final = 32
_OF_ONE: Final = 8  # of one number: a bot that is busy showing it leaves room for others'


class Typing:
    """Never waits, never tries again: what cannot be shown is counted, and nobody misses it."""

    def __init__(self, numbers: Numbers, graph: Graph, clock: Callable[[], datetime]) -> None:
        self._numbers, self._graph, self._clock = numbers, graph, clock
        self._busy: dict[asyncio.Task[None], str] = {}

    def begin(self, project: str, begun: TypingBegun) -> None:
        """Shows it, unless it is too late or too many others are under way."""
        late, number = self._clock() - begun.at > OLDEST, begun.number_id
        if late or len(self._busy) >= _AT_ONCE or list(self._busy.values()).count(number) >= _OF_ONE:
            metrics.typing.labels("late" if late else "full").inc()
            return
        task = asyncio.create_task(self._show(project, begun), name=f"typing {number}")
        self._busy[task] = number
        task.add_done_callback(self._busy.pop)

    async def stop(self) -> None:
        """Drops what is under way."""
        tasks = list(self._busy)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _show(self, project: str, begun: TypingBegun) -> None:
        outcome = "failed"
        try:
            token = await self._numbers.token(project, begun.number_id)
            outcome = "refused" if token is None else await self._graph.typing(begun.number_id, token, begun.wamid)
        except Exception as error:  # noqa: BLE001  (the task's edge: a database that is away, a token that cannot be opened)
            get_logger().warning("typing.failed", number=begun.number_id, error=type(error).__name__)
        metrics.typing.labels(outcome).inc()
        if outcome != "shown":
            get_logger().info("typing.not_shown", number=begun.number_id, outcome=outcome)
