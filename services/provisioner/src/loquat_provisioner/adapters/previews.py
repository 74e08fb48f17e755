"""Throw-away copies as rows of the control database: one of a project, so many in all, gone when nobody uses them."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Final, Literal
from uuid import UUID

from loquat_common.crypto import KeyRing

from loquat_provisioner.adapters import logins
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.domain.life import Names

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

PreviewState = Literal["making", "ready", "going"]
MAKING: Final = 60.0
"""Seconds that the making of a copy may take."""
_DEAD: Final = timedelta(seconds=MAKING * 1.5)  # whoever makes a copy for longer than this has died
_AGAIN: Final = timedelta(minutes=1)  # between two tries to drop one; what a cut-off statement was at has ended by then
_LONGEST: Final = timedelta(hours=2)
"""However much it is used: whoever is erased just after it was made (see `leave_all`) is still in it."""

# purpose: what is over, claimed by whoever is to drop it: nobody's, nobody used it, nobody makes it any more, or its project goes
_OVER: Final = """
UPDATE previews SET state = 'going', used_at = now() WHERE preview_id IN (
    SELECT p.preview_id FROM previews AS p JOIN projects AS o USING (project_id)
    WHERE CASE p.state WHEN 'going' THEN p.used_at < now() - $1::interval
                       WHEN 'making' THEN p.made_at < now() - $2::interval
                       ELSE p.used_at < now() - $3::interval OR p.made_at < now() - $4::interval OR o.state IN ('deleting', 'deleted') END
    ORDER BY p.made_at LIMIT 10 FOR UPDATE OF p SKIP LOCKED) RETURNING *"""

# purpose: where all places are taken, the one longest unused of the organization that has most, if it has at least two more than whoever asks ($1)
_CROWDED: Final = """
WITH crowds AS (SELECT o.organization_id, count(*) AS copies FROM previews AS p JOIN projects AS o USING (project_id)
                WHERE p.state <> 'going' GROUP BY o.organization_id)
UPDATE previews SET state = 'going', used_at = '-infinity' WHERE preview_id = (
    SELECT p.preview_id FROM previews AS p JOIN projects AS o USING (project_id) JOIN crowds AS c USING (organization_id)
    WHERE p.state = 'ready' AND c.copies > 1 + coalesce((SELECT own.copies FROM crowds AS own WHERE own.organization_id = $1), 0)
    ORDER BY c.copies DESC, p.used_at LIMIT 1) RETURNING true"""


class InTheWay(Exception):
    """There is no place for another one. `code` and the text are for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Preview:
    """A copy's row."""

    preview_id: UUID
    project_id: str
    cluster: str
    database: str
    epoch: int
    state: PreviewState
    made_at: datetime
    used_at: datetime
    sealed: bytes = field(repr=False)


class PreviewStore:
    """Queries. `most`: copies in all; `idle`: seconds after which one that nobody uses goes."""

    def __init__(self, pool: Pool, ring: KeyRing, *, most: int = 20, idle: float = 900.0) -> None:
        self._pool, self._ring, self._most, self.idle = pool, ring, most, timedelta(seconds=idle)

    async def reserve(self, project: Project, preview: UUID) -> Preview:
        """The row of one that is to be made. It takes the place of the project's last one; where there is none, of one whose organization has many.

        Raises:
            InTheWay: one is being made, or there are too many in all.
        """
        sealed = self._ring.seal(logins.password().encode(), _place(preview))
        async with self._pool.acquire(timeout=5) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('previews', 0))", timeout=5)
            await connection.execute(
                "UPDATE previews SET state = 'going', used_at = '-infinity' WHERE project_id = $1 AND state = 'ready'", project.project_id
            )
            if await connection.fetchval("SELECT true FROM previews WHERE project_id = $1 AND state = 'making'", project.project_id):
                raise InTheWay("preview_being_made", "Another preview of this project is being made; one at a time")
            taken = await connection.fetchval("SELECT count(*) FROM previews WHERE state <> 'going'")
            if taken >= self._most and not await connection.fetchval(_CROWDED, project.organization_id):
                raise InTheWay(
                    "too_many_previews", f"{self._most} previews are the limit of this installation; each goes when nobody uses it"
                )
            row = await connection.fetchrow(
                "INSERT INTO previews (preview_id, project_id, cluster, database, epoch, sealed) VALUES ($1, $2, $3, $4, $5, $6) RETURNING *",
                preview,
                project.project_id,
                project.cluster,
                Names.fresh().database,
                project.epoch + 1,
                sealed,
            )
        return Preview(**dict(row or {}))

    async def ready(self, preview: UUID) -> bool:
        """It can be used. False: it was given up meanwhile."""
        query = "UPDATE previews SET state = 'ready', used_at = now() WHERE preview_id = $1 AND state = 'making' RETURNING true"
        return bool(await self._pool.fetchval(query, preview, timeout=5))

    async def use(self, project: str, preview: UUID) -> Preview | None:
        """One that is used again; None: it is gone."""
        row = await self._pool.fetchrow(
            "UPDATE previews SET used_at = now() WHERE preview_id = $1 AND project_id = $2 AND state = 'ready'"
            " AND used_at > now() - $3::interval AND made_at > now() - $4::interval RETURNING *",
            preview,
            project,
            self.idle,
            _LONGEST,
            timeout=5,
        )
        return Preview(**row) if row is not None else None

    async def leave(self, project: str, preview: UUID) -> bool:
        """Nobody wants it any more; whether it was there."""
        query = "UPDATE previews SET state = 'going', used_at = '-infinity' WHERE preview_id = $1 AND project_id = $2 AND state = 'ready' RETURNING true"
        return bool(await self._pool.fetchval(query, preview, project, timeout=5))

    async def leave_all(self, project: str) -> None:
        """Somebody is erased from the project, and shall be in no copy. One that is being made is not given to anybody."""
        query = (
            "UPDATE previews SET state = 'going', used_at = CASE state WHEN 'making' THEN now() ELSE '-infinity' END"
            " WHERE project_id = $1 AND state <> 'going'"
        )
        await self._pool.execute(query, project, timeout=5)

    async def give_up(self, preview: UUID) -> None:
        """It was not made. What was begun may still be under way on the cluster, so it is not dropped at once."""
        await self._pool.execute("UPDATE previews SET state = 'going', used_at = now() WHERE preview_id = $1", preview, timeout=5)

    async def over(self) -> list[Preview]:
        """Those that are to be dropped, for this caller alone."""
        return [Preview(**r) for r in await self._pool.fetch(_OVER, _AGAIN, _DEAD, self.idle, _LONGEST, timeout=5)]

    async def gone(self, preview: UUID) -> None:
        """Nothing of it is left."""
        await self._pool.execute("DELETE FROM previews WHERE preview_id = $1 AND state = 'going'", preview, timeout=5)

    def password(self, preview: Preview) -> str:
        """Of its bot's login.

        Raises:
            SealBroken: it was sealed with another key ring.
        """
        return self._ring.open(preview.sealed, _place(preview.preview_id)).decode()


def _place(preview: UUID) -> str:
    return f"preview/{preview}/database/bot"
