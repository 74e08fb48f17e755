"""Deployments in the control database: a history of pointers, the newest of which is in force."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from loquat_events.bots import Canary
from pydantic import BaseModel

from loquat_bot_runner.domain.pointer import DRAFT
from loquat_bot_runner.domain.pointing import CannotPoint, Here, Kind, Pointing

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.Connection[asyncpg.Record] | asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

Step = Callable[[Here | None, datetime], Pointing]
"""From the pointer in force to the next one, at this time. Pure: it runs under the project's lock."""
_WAIT: Final = 10.0  # seconds for a connection, or for another step of the same project
MOST: Final = 1_000
"""Deployments of a project that are kept, the last ones; besides those to which a rollback from one of them leads."""
_FORGET: Final = """
WITH since AS (SELECT id FROM deployments WHERE project_id = $1 ORDER BY id DESC OFFSET $2 - 1 LIMIT 1)
DELETE FROM deployments AS d USING since WHERE d.project_id = $1 AND d.id < since.id
  AND NOT EXISTS (SELECT FROM deployments AS k WHERE k.project_id = $1 AND k.id >= since.id AND k.before = d.id)"""


class Deployment(BaseModel):
    """Where the pointer of a project was put, by whom and why."""

    id: UUID
    project_id: str
    version: str
    deployed_by: str
    message: str
    deployed_at: datetime
    kind: Kind = "deploy"
    forced: list[str] = []
    before: UUID | None = None
    canary: Canary | None = None
    testers: dict[str, str] = {}
    paused: bool = False


class Pointers:
    """One step of a project after the other, whatever the replica."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def move(self, project: str, kind: Kind, step: Step, *, by: str, message: str, forced: list[str] | None = None) -> Deployment:
        """Notes where the pointer goes; to be published afterwards.

        Raises:
            CannotPoint: the step's own refusal, or a version that it names is gone.
        """
        async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction():
            await lock(connection, project)
            at: datetime = await connection.fetchval("SELECT clock_timestamp()")
            row = await connection.fetchrow(
                "SELECT d.*, b.version AS back_version, b.before AS back_before FROM deployments AS d LEFT JOIN deployments AS b ON b.id = d.before"
                " WHERE d.project_id = $1 ORDER BY d.id DESC LIMIT 1",
                project,
            )
            now = _here(row) if row is not None else None
            to = step(now, at)
            await _kept(connection, project, to.named - (now.named if now is not None else frozenset()) - {DRAFT})
            made = await connection.fetchrow(
                "INSERT INTO deployments (project_id, version, deployed_by, message, deployed_at, kind, forced, before, canary, testers, paused)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) RETURNING *",
                project,
                to.version,
                by,
                message,
                at,
                kind,
                forced or [],
                to.before,
                to.canary.model_dump(mode="json") if to.canary is not None else None,
                dict(to.testers),
                to.paused,
            )
            await connection.execute(_FORGET, project, MOST)
        return _deployment(made)

    async def current(self, project: str) -> Deployment | None:
        """The pointer in force."""
        row = await self._pool.fetchrow("SELECT * FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT 1", project)
        return _deployment(row) if row is not None else None

    async def in_force(self) -> dict[str, str]:
        """The pointer in force of each project, by its id alone."""
        rows = await self._pool.fetch("SELECT DISTINCT ON (project_id) project_id, id FROM deployments ORDER BY project_id, id DESC")
        return {r["project_id"]: str(r["id"]) for r in rows}

    async def history(self, project: str, before: UUID | None, limit: int) -> list[Deployment]:
        """Newest first, below `before`."""
        query = "SELECT * FROM deployments WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        return [_deployment(r) for r in await self._pool.fetch(query, project, before, limit)]

    async def unpublished(self) -> list[str]:
        """Projects whose last deployments a crash may have swallowed."""
        return [r["project_id"] for r in await self._pool.fetch("SELECT DISTINCT project_id FROM deployments WHERE NOT published")]

    async def published(self, deployment: Deployment) -> None:
        """Its event is durable, and with it all earlier ones are history."""
        await self._pool.execute(
            "UPDATE deployments SET published = true WHERE project_id = $1 AND id <= $2 AND NOT published",
            deployment.project_id,
            deployment.id,
        )


def _here(row: asyncpg.Record) -> Here:
    found = _deployment(row)
    back = Pointing(row["back_version"], row["back_before"]) if row["back_version"] is not None else None
    return Here(found.version, found.before, found.canary, found.testers, found.id, back, paused=found.paused)


async def lock(connection: Connection, project: str) -> None:
    """Held to the transaction's end: no step of the project's pointer meanwhile, and nobody removes a version that one may name."""
    await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"deployments {project}", timeout=_WAIT)


async def _kept(connection: Connection, project: str, versions: Collection[str]) -> None:
    gone = await connection.fetchval(
        "SELECT n FROM unnest($2::text[]) AS n WHERE NOT EXISTS (SELECT FROM versions AS v WHERE (v.project_id, v.version) = ($1, n)) LIMIT 1",
        project,
        list(versions),
    )
    if gone is not None:
        raise CannotPoint("version_gone", f"version {gone[:12]} is not kept any more: save it again")


def _deployment(row: asyncpg.Record | None) -> Deployment:
    found: dict[str, Any] = dict(row or {})
    return Deployment.model_validate(found)
