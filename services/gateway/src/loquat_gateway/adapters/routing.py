"""The routing table: which project a number belongs to."""

from __future__ import annotations

import asyncio

from loquat_common.bus.port import Table
from loquat_events.envelope import AnyEvent
from loquat_events.numbers import ROUTING_LEASE, NumberAttached


class Stale(Exception):
    """The table was not confirmed lately: a number may have moved meanwhile."""


class Routing:
    """A view of the table of `whatsapp.numbers.v1`, good for as long as it is fresh."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._changed = asyncio.Condition()
        self._waking: set[asyncio.Task[None]] = set()
        table.on_change(self._wake)

    def _wake(self, _key: str, _event: AnyEvent | None) -> None:
        task = asyncio.create_task(self._notify(), name="routing changed")
        self._waking.add(task)
        task.add_done_callback(self._waking.discard)

    async def _notify(self) -> None:
        async with self._changed:
            self._changed.notify_all()

    async def routed(self, number: str, project: str, limit: float) -> bool:
        """Whether this gateway routes the number to the project, waiting at most `limit` seconds for it."""
        try:
            async with asyncio.timeout(limit), self._changed:
                await self._changed.wait_for(lambda: self.project(number) == project)
        except TimeoutError:
            return False
        return True

    def check(self) -> None:
        """Returns when the table may be used.

        Raises:
            Stale: it is older than the routing lease.
        """
        if self._table.age() > ROUTING_LEASE:
            raise Stale(f"the routing table is older than {ROUTING_LEASE:g} s")

    def project(self, number: str) -> str | None:
        """The project of a number; None: nobody has attached it."""
        event = self._table.get(f"numbers:{number}")
        return event.data.project_id if event is not None and isinstance(event.data, NumberAttached) else None
