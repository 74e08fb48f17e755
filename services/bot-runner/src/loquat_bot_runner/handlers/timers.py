"""Fires what is due: claims it in the index, puts it into the inbox, goes to sleep until the next."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final
from uuid import UUID

from loquat_common import metrics
from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import is_gone
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.conversations import ScheduleFired, TimerFired
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import schedule_id

from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.domain.firing import DueRow, Settled, settle

_LONGEST: Final = 5.0
"""Seconds between two looks while nothing is due: another replica may have armed something and died."""
_SHORTEST: Final = 0.05
_HELD: Final = 1.0
"""Seconds until the next look when all that is due is another replica's."""


class Firing:
    """Any number of replicas. What one that dies has fired and not settled another fires again, with the same ids: the marker swallows it."""

    def __init__(self, index: DueIndex, directory: Directory, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]) -> None:
        self._index, self._directory, self._bus, self._failpoints, self._clock = index, directory, bus, failpoints, clock
        self._wake = asyncio.Event()
        self._until = datetime.max.replace(tzinfo=UTC)

    def nearer(self, due_at: datetime) -> None:
        """Something was armed here: it may be the next."""
        if due_at < self._until:
            self._wake.set()

    async def once(self) -> tuple[int, datetime | None]:
        """Fires one batch; how many rows, and when the next one is due."""
        return await self._index.fire(self._clock(), self._decide)

    async def run(self) -> None:
        """For ever. Idle it asks the index once in five seconds."""
        while True:
            self._wake.clear()
            try:
                fired, following = await self.once()
                pause = self._pause(fired, following)
            except Exception as error:
                if not isinstance(error, BusUnavailable) and not is_gone(error):
                    raise
                get_logger().warning("timers.not_fired", error=type(error).__name__)
                pause = _HELD
            self._until = self._clock() + timedelta(seconds=pause)
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    def _pause(self, fired: int, following: datetime | None) -> float:
        if following is None:
            return _LONGEST
        left = (following - self._clock()).total_seconds()
        if left <= 0:
            return 0.0 if fired else _HELD
        return min(_LONGEST, max(_SHORTEST, left))

    async def _decide(self, rows: Sequence[DueRow]) -> Sequence[Settled]:
        now = self._clock()
        settled = [settle(row, self._directory.get(row.project_id), now) for row in rows]
        events = [self._event(row, at, max(row.epoch, one.epoch), now) for row, one in zip(rows, settled, strict=True) for at in one.fires]
        self._failpoints.hit("bot_runner.before_fire")
        if events:
            await self._bus.publish(*events)
            metrics.bot_fired.inc(len(events))
        self._failpoints.hit("bot_runner.after_fire")
        return settled

    def _event(self, row: DueRow, at: datetime, epoch: int, now: datetime) -> AnyEvent:
        if row.kind == "timer" and row.event_id is not None:
            data: Payload = TimerFired.model_validate({**row.body, "timer_id": row.id, "due_at": at, "epoch": epoch})
            key = row.event_id
        else:
            data = ScheduleFired(automation_id=row.id, name=row.body["name"], due_at=at, epoch=epoch)
            key = firing_of(row.project_id, row.id, at)
        return Event[Payload].of(data, id=key, source="/bot-runner", time=now, project=row.project_id, lane=row.lane)


def firing_of(project: str, automation: UUID, at: datetime) -> UUID:
    """The id of a schedule's time."""
    return schedule_id(project, automation, at.astimezone(UTC).isoformat())
