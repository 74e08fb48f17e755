"""The routing table: which project a number belongs to."""

from __future__ import annotations

from loquat_common.bus.port import Table
from loquat_events.numbers import ROUTING_LEASE, NumberAttached


class Stale(Exception):
    """The table was not confirmed lately: a number may have moved meanwhile."""


class Routing:
    """A view of the table of `whatsapp.numbers.v1`, good for as long as it is fresh."""

    def __init__(self, table: Table) -> None:
        self._table = table

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
