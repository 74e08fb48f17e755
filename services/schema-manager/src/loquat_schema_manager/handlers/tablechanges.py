"""`table.changed`: what people change by the API, told to live views, added up per project, table and person for a second.

And `schema.changed` of what the console's SQL did to the shape of tables: of change sets, which are recorded, `announcements` tells.

A crash loses at most the last second, and a bus that is away for long loses what does not fit. The rows are there either way: a live view
looks at them when it (re)connects and at every later event, so it is late, never wrong for good.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import SchemaChanged, TableChanged

WINDOW: Final = 1.0
"""Seconds in which changes are added up."""
MOST: Final = 10_000
"""Tables that may wait at once; a change of one more is not told."""
_AGAIN: Final = 2.0  # seconds until the next try when the bus does not answer
_BATCH: Final = 500  # events of one publish
_NAMED: Final = 1_000  # tables of one event: a name has 63 bytes

Key = tuple[str, str, str]
"""Project, table, actor."""


class TableChanges:
    """`note` is called after each commit and waits for nothing; `run` publishes."""

    def __init__(self, bus: Bus, clock: Callable[[], datetime], fresh: Callable[[], UUID], *, window: float = WINDOW) -> None:
        self._bus, self._clock, self._fresh, self._window = bus, clock, fresh, window
        self._counts: dict[Key, int] = {}
        self._shapes: dict[tuple[str, str], set[str]] = {}
        self._ready: list[AnyEvent] = []
        self._wake = asyncio.Event()
        self._log = get_logger()

    def note(self, project: str, table: str, count: int, actor: str) -> None:
        """So many rows changed."""
        key = (project, table, actor)
        if key not in self._counts and self._full():
            return
        self._counts[key] = self._counts.get(key, 0) + count
        self._wake.set()

    def note_shapes(self, project: str, tables: Sequence[str], actor: str) -> None:
        """These tables have another shape now, and perhaps some are gone."""
        if (project, actor) not in self._shapes and self._full():
            return
        self._shapes.setdefault((project, actor), set()).update(tables)
        self._wake.set()

    def _full(self) -> bool:
        if len(self._counts) + len(self._shapes) + len(self._ready) < MOST:
            return False
        self._log.warning("table_changes.full", waiting=MOST)
        return True

    async def run(self) -> None:
        """For ever; wakes only when something changed."""
        while True:
            await self._wake.wait()
            await asyncio.sleep(self._window)
            try:
                await self.flush()
            except BusUnavailable:
                self._log.warning("table_changes.bus_away", waiting=len(self._ready))
                await asyncio.sleep(_AGAIN)

    async def flush(self) -> None:
        """Publishes what waits. Also the last step before the bus is closed.

        Raises:
            BusUnavailable: it is kept, and published with the same ids at the next try.
        """
        counts, self._counts = self._counts, {}
        shapes, self._shapes = self._shapes, {}
        self._ready += [self._shaped(*key, tables) for key, tables in shapes.items()]
        self._ready += [self._event(key, count) for key, count in counts.items()]
        while self._ready:
            batch = self._ready[:_BATCH]
            await self._bus.publish(*batch)
            del self._ready[: len(batch)]
        if not self._counts and not self._shapes:
            self._wake.clear()

    def _event(self, key: Key, count: int) -> AnyEvent:
        project, table, actor = key
        at = self._clock()
        data = TableChanged(project_id=project, table=table, count=count, actor=actor, at=at)
        return Event[Payload].of(data, id=self._fresh(), source="/schema-manager", time=at, project=project, lane=table)

    def _shaped(self, project: str, actor: str, tables: set[str]) -> AnyEvent:
        at, unique = self._clock(), self._fresh()
        names = tuple(sorted(tables)[:_NAMED])
        data = SchemaChanged(project_id=project, change_set=unique, recorded=False, tables=names, actor=actor, at=at)
        return Event[Payload].of(data, id=unique, source="/schema-manager", time=at, project=project, lane="database")
