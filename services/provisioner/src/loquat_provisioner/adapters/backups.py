"""Backups and restores as rows of the control database."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from loquat_events.projects import RestoreBackup, TakeBackup

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

BackupState = Literal["taking", "kept", "failed", "dropped"]
RestoreState = Literal["running", "done", "failed"]

# purpose: restores as they stand. The row of one whose order is a dead letter says `running` for ever, and nobody works on it.
_RESTORES: Final = """
SELECT r.restore_id, r.project_id, r.backup_id, r.epoch, CASE WHEN g.ended_at IS NULL THEN r.state ELSE 'failed' END AS state,
    CASE WHEN g.ended_at IS NULL THEN r.reason ELSE 'it was given up after several tries; its order is among the dead letters' END AS reason,
    r.ordered_by, r.ordered_at, coalesce(r.ended_at, g.ended_at) AS ended_at
FROM restores AS r LEFT JOIN LATERAL (
    SELECT d.ended_at FROM deferred AS d
    WHERE d.project = r.project_id AND d.event_id = r.restore_id::text AND d.state <> 'deferred' AND r.state = 'running' ORDER BY d.id DESC LIMIT 1
) AS g ON true WHERE r.project_id = $1 AND ($2::uuid IS NULL OR r.restore_id = $2) ORDER BY r.ordered_at DESC, r.restore_id LIMIT $3"""


@dataclass(frozen=True, slots=True)
class Backup:
    """A backup's row."""

    backup_id: UUID
    project_id: str
    database: str
    state: BackupState
    clone_id: str | None
    note: str | None
    epoch: int
    size_bytes: int | None
    reason: str | None
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None


@dataclass(frozen=True, slots=True)
class Restore:
    """A restore's row."""

    restore_id: UUID
    project_id: str
    backup_id: UUID
    epoch: int
    state: RestoreState
    reason: str | None
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None

    @property
    def fresh(self) -> str:
        """The database that is to take the project's place."""
        return f"r_{self.restore_id.hex[:12]}"

    @property
    def old(self) -> str:
        """The one that had it."""
        return f"o_{self.restore_id.hex[:12]}"


class BackupStore:
    """Queries."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def accept(self, order: TakeBackup) -> Backup:
        """The backup is on its way. Harmless when repeated."""
        await self._pool.execute(
            "INSERT INTO backups (backup_id, project_id, database, clone_id, note, epoch, ordered_by)"
            " SELECT $1, project_id, $3, $4, $5, epoch, $6 FROM projects WHERE project_id = $2 ON CONFLICT DO NOTHING",
            order.backup_id,
            order.project_id,
            f"b_{order.backup_id.hex[:12]}",
            order.clone_id,
            order.note.replace("\0", "\ufffd") if order.note is not None else None,
            order.ordered_by,
            timeout=5,
        )
        found = await self.get(order.project_id, order.backup_id)
        if found is None:
            raise LookupError(str(order.backup_id))
        return found

    async def get(self, project: str, backup: UUID) -> Backup | None:
        """One of a project."""
        row = await self._pool.fetchrow("SELECT * FROM backups WHERE (project_id, backup_id) = ($1, $2)", project, backup, timeout=5)
        return Backup(**row) if row is not None else None

    async def of_project(self, project: str, limit: int) -> list[Backup]:
        """A project's, newest first, copies for clones too."""
        query = "SELECT * FROM backups WHERE project_id = $1 ORDER BY ordered_at DESC, backup_id LIMIT $2"
        return [Backup(**r) for r in await self._pool.fetch(query, project, limit, timeout=5)]

    async def beyond(self, project: str, kept: int) -> list[Backup]:
        """The oldest that are kept beyond so many."""
        query = "SELECT * FROM backups WHERE project_id = $1 AND state = 'kept' AND clone_id IS NULL ORDER BY ordered_at DESC, backup_id OFFSET $2"
        return [Backup(**r) for r in await self._pool.fetch(query, project, kept, timeout=5)]

    async def end(self, backup: UUID, state: BackupState, reason: str | None = None) -> Backup:
        """It is over, so or so, and another may be ordered. Repeated, it ended when it ended first."""
        row = await self._pool.fetchrow(
            "WITH over AS (DELETE FROM reservations WHERE order_id = $1)"
            " UPDATE backups SET ended_at = CASE WHEN state = $2 THEN ended_at ELSE now() END, state = $2, reason = coalesce($3, reason)"
            " WHERE backup_id = $1 RETURNING *",
            backup,
            state,
            reason,
            timeout=5,
        )
        if row is None:
            raise LookupError(str(backup))
        return Backup(**row)

    async def measure(self, backup: UUID, size: int) -> None:
        """So many bytes."""
        await self._pool.execute("UPDATE backups SET size_bytes = $2 WHERE backup_id = $1", backup, size, timeout=5)

    async def accept_restore(self, order: RestoreBackup) -> Restore:
        """The restore begins; the epoch that it leads to is chosen. Harmless when repeated."""
        await self._pool.execute(
            "INSERT INTO restores (restore_id, project_id, backup_id, epoch, ordered_by)"
            " SELECT $1, project_id, $3, epoch + 1, $4 FROM projects WHERE project_id = $2 ON CONFLICT DO NOTHING",
            order.restore_id,
            order.project_id,
            order.backup_id,
            order.ordered_by,
            timeout=5,
        )
        row = await self._pool.fetchrow("SELECT * FROM restores WHERE restore_id = $1", order.restore_id, timeout=5)
        if row is None:
            raise LookupError(str(order.restore_id))
        return Restore(**row)

    async def restores(self, project: str, limit: int) -> list[Restore]:
        """A project's, newest first."""
        return [Restore(**r) for r in await self._pool.fetch(_RESTORES, project, None, limit, timeout=5)]

    async def restore(self, project: str, restore: UUID) -> Restore | None:
        """One of a project's; none while its order waits."""
        row = await self._pool.fetchrow(_RESTORES, project, restore, 1, timeout=5)
        return Restore(**row) if row is not None else None

    async def end_restore(self, restore: UUID, state: RestoreState, reason: str | None = None) -> Restore:
        """It is over, so or so, and another may be ordered."""
        row = await self._pool.fetchrow(
            "WITH over AS (DELETE FROM reservations WHERE order_id = $1)"
            " UPDATE restores SET state = $2, reason = $3, ended_at = now() WHERE restore_id = $1 RETURNING *",
            restore,
            state,
            reason,
            timeout=5,
        )
        if row is None:
            raise LookupError(str(restore))
        return Restore(**row)

    async def copies(self, project: str) -> list[str]:
        """Every database that may have been made for the project beside its own."""
        rows = await self._pool.fetch(
            "SELECT database FROM backups WHERE project_id = $1 AND state <> 'dropped'"
            " UNION ALL SELECT unnest(ARRAY['r_', 'o_']) || left(replace(restore_id::text, '-', ''), 12) FROM restores WHERE project_id = $1",
            project,
            timeout=5,
        )
        return [r["database"] for r in rows]
