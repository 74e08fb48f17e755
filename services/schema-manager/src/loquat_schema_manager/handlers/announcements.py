"""What became of change sets, said on the bus: each that took effect once, whatever broke off meanwhile."""

from __future__ import annotations

import asyncio
from typing import Final

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import SchemaChanged

from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.records import Record, Records

LOOK: Final = 15.0
"""Seconds between two looks at what a process that died may have left."""
AGAIN: Final = 2.0
"""Seconds until the next try when the bus or the control database is away."""
_MOST: Final = 100  # of one batch


class Announcements:
    """The outbox is the column `announced_at`; the event's id follows from the change set's, so a second publish is the same event."""

    def __init__(self, records: Records, bus: Bus) -> None:
        self._records, self._bus, self._log = records, bus, get_logger()
        self._wake = asyncio.Event()

    def wake(self) -> None:
        """There is something to say."""
        self._wake.set()

    async def run(self, changes: ChangeSets) -> None:
        """For ever."""
        while True:
            self._wake.clear()
            pause = LOOK
            try:
                await changes.settle()
                await self.once()
            except Exception as error:
                if not is_gone(error) and not isinstance(error, BusUnavailable):
                    raise
                self._log.warning("changes.announce_later", error=type(error).__name__)
                pause = AGAIN
            await self._rest(pause, woken=pause == LOOK)

    async def once(self) -> int:
        """Says what is unsaid; how many.

        Raises:
            BusUnavailable: they stay unsaid.
        """
        count = 0
        while found := await self._records.unsaid(_MOST):
            await self._bus.publish(*(_event(r) for r in found))
            await self._records.said([r.id for r in found])
            count += len(found)
        return count

    async def _rest(self, pause: float, *, woken: bool) -> None:
        if not woken:
            await asyncio.sleep(pause)
            return
        try:
            async with asyncio.timeout(pause):
                await self._wake.wait()
        except TimeoutError:
            return


def _event(record: Record) -> AnyEvent:
    at = record.applied_at or record.created_at
    project = record.place.project
    data = SchemaChanged(project_id=project, change_set=record.id, tables=tuple(record.tables), actor=record.actor, at=at)
    change_set = fact_id("schema", project, str(record.id))
    return Event[Payload].of(data, id=change_set, source="/schema-manager", time=at, project=project, lane="database")
