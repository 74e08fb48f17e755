"""One order for a backup, a restore or a clone of a project at a time: each closes the project and copies it whole."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

Kind = Literal["backup", "restore", "clone"]

# purpose: what keeps others from being given: orders that the handler has begun, or that were said and wait for it. A process may have died between
# its reservation and its saying, and an order may be a dead letter: neither bars the project for ever.
_UNDER_WAY: Final = """
SELECT kind, order_id FROM (
    SELECT CASE WHEN clone_id IS NULL THEN 'backup' ELSE 'clone' END AS kind, backup_id AS order_id, ordered_at AS at FROM backups
    WHERE project_id = $1 AND state = 'taking' AND ordered_at > now() - interval '1 day'
    UNION ALL SELECT 'restore', restore_id, ordered_at FROM restores
    WHERE project_id = $1 AND state = 'running' AND ordered_at > now() - interval '1 day'
    UNION ALL SELECT kind, order_id, reserved_at FROM reservations WHERE project_id = $1 AND reserved_at > now() - interval '10 minutes'
) AS o WHERE order_id <> $2 ORDER BY at LIMIT 1"""
_KNOWN: Final = "SELECT EXISTS (SELECT FROM backups WHERE backup_id = $1) OR EXISTS (SELECT FROM restores WHERE restore_id = $1)"
_RESERVE: Final = """
INSERT INTO reservations (project_id, order_id, kind) VALUES ($1, $2, $3)
ON CONFLICT (project_id) DO UPDATE SET order_id = excluded.order_id, kind = excluded.kind, reserved_at = excluded.reserved_at"""


@dataclass(frozen=True, slots=True)
class UnderWay:
    """The order that is in the way of another one."""

    kind: Kind
    order_id: UUID


class Reservations:
    """Queries."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def reserve(self, project: str, order: UUID, kind: Kind) -> UnderWay | None:
        """None: the order may be given, or was given before and may be said again. Requests for one project are decided one after the other."""
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            await connection.execute("SELECT FROM projects WHERE project_id = $1 FOR NO KEY UPDATE", project, timeout=5)
            if await connection.fetchval(_KNOWN, order, timeout=5):
                return None
            row = await connection.fetchrow(_UNDER_WAY, project, order, timeout=5)
            if row is not None:
                return UnderWay(**row)
            await connection.execute(_RESERVE, project, order, kind, timeout=5)
            return None

    async def release(self, order: UUID) -> None:
        """The order is over, or could not be said. Harmless when repeated."""
        await self._pool.execute("DELETE FROM reservations WHERE order_id = $1", order, timeout=5)
