"""Orders about contacts, in this service's schema of the control database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from loquat_common.retention import BATCH

from loquat_conversation_log.domain.orders import Order, State

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

DAYS: Final = 90
"""For which an order can be looked at: three times as long as the bus keeps anything about it (dead topics, 30 days)."""
_LIMIT: Final = 10.0  # seconds for one statement; they take about a millisecond
_COLUMNS: Final = "id, project_id, kind, contact_id, into_id, ordered_by, state, reason, people, epoch, ordered_at, ended_at"
# purpose: the order, waiting; one that was refused, or done in a database that is no more, waits again
_ACCEPT: Final = f"""
INSERT INTO contact_orders AS o (id, project_id, kind, contact_id, into_id, ordered_by) VALUES ($1, $2, $3, $4, $5, $6)
ON CONFLICT (id) DO UPDATE SET state = 'waiting', reason = NULL, ordered_at = now(), ended_at = NULL WHERE o.state = 'refused' OR o.state = 'done' AND o.epoch < $7
RETURNING {_COLUMNS}"""  # noqa: S608  (names)
# purpose: merges, whatever became of them, and what was refused
_SWEEP: Final = """
DELETE FROM contact_orders WHERE id IN (
  SELECT o.id FROM contact_orders AS o WHERE (o.kind = 'merge' OR o.state = 'refused') AND coalesce(o.ended_at, o.ordered_at) < now() - make_interval(days => $1)
  ORDER BY coalesce(o.ended_at, o.ordered_at) LIMIT $2 FOR UPDATE SKIP LOCKED)"""


@dataclass(frozen=True, slots=True)
class Kept:
    """An order, and how far it is."""

    order: Order
    state: State
    reason: str | None
    people: tuple[UUID, ...]
    epoch: int | None
    ordered_at: datetime
    ended_at: datetime | None


class Orders:
    """Rows of `contact_orders`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accept(self, order: Order, epoch: int) -> Kept:
        """Writes it, unless it is there; how it stands. `epoch`: of the project's database now."""
        given = (order.id, order.project_id, order.kind, order.contact_id, order.into, order.ordered_by, epoch)
        row = await self._pool.fetchrow(_ACCEPT, *given, timeout=_LIMIT)
        found = _kept(row) if row is not None else await self.get(order.project_id, order.id)
        if found is None:
            raise asyncpg.InterfaceError("an order that is there is not there")
        return found

    async def end(self, order: UUID, state: State, *, reason: str | None = None, people: Sequence[UUID] = (), epoch: int) -> None:
        """What became of it. Who was erased once is remembered for good."""
        query = (
            "UPDATE contact_orders SET state = $2, reason = $3, epoch = $5, ended_at = clock_timestamp(),"
            " people = ARRAY(SELECT DISTINCT u FROM unnest(people || $4::uuid[]) AS u ORDER BY u) WHERE id = $1"
        )
        await self._pool.execute(query, order, state, reason, list(people), epoch, timeout=_LIMIT)

    async def get(self, project: str, order: UUID) -> Kept | None:
        """One of a project."""
        query = f"SELECT {_COLUMNS} FROM contact_orders WHERE id = $1 AND project_id = $2"  # noqa: S608  (names)
        row = await self._pool.fetchrow(query, order, project, timeout=_LIMIT)
        return _kept(row) if row is not None else None

    async def come_back(self, project: str, epoch: int, limit: int) -> list[Kept]:
        """Erases that were done in a database of the project that is no more: its present one has this epoch. The oldest first."""
        query = (
            f"SELECT {_COLUMNS} FROM contact_orders WHERE project_id = $1 AND kind = 'erase' AND state = 'done' AND epoch < $2"  # noqa: S608
            " ORDER BY ordered_at LIMIT $3"
        )
        return [_kept(r) for r in await self._pool.fetch(query, project, epoch, limit, timeout=_LIMIT)]

    async def sweep(self) -> int:
        """Forgets a batch of orders that protect nothing any more, the oldest first; how many. Erases are remembered for good."""
        done = await self._pool.execute(_SWEEP, DAYS, BATCH, timeout=_LIMIT)
        return int(done.rpartition(" ")[2])

    async def projects(self) -> list[str]:
        """Of which there are orders."""
        return [r["project_id"] for r in await self._pool.fetch("SELECT DISTINCT project_id FROM contact_orders", timeout=_LIMIT)]

    async def forget(self, project: str) -> None:
        """All of a project that is gone."""
        await self._pool.execute("DELETE FROM contact_orders WHERE project_id = $1", project, timeout=_LIMIT)


def _kept(row: asyncpg.Record) -> Kept:
    order = Order(row["id"], row["project_id"], row["kind"], row["contact_id"], row["into_id"], row["ordered_by"])
    return Kept(order, row["state"], row["reason"], tuple(row["people"]), row["epoch"], row["ordered_at"], row["ended_at"])
