"""Versions, deployments, runs and logs in the control database."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from pydantic import BaseModel

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_LOG_LINES: Final = 2_000
"""Lines kept of a project: what a page shows and a person reads. A flood of one project costs nobody else."""
_EVENTS: Final = 1_000
"""Events forgotten by one statement: some thousand rows by the index, far within a command's limit."""


class Deployment(BaseModel):
    """A version put to work."""

    id: UUID
    project_id: str
    version: str
    deployed_by: str
    message: str
    deployed_at: datetime


class Run(BaseModel):
    """One call of bot code, or why there was none."""

    id: UUID
    event_id: UUID
    version: str | None
    attempt: int
    state: str | None
    next_state: str | None
    outcome: str
    replies: int
    duration_ms: float
    error: str | None
    trace: str | None
    started_at: datetime


class LogLine(BaseModel):
    """A line of a project's log."""

    id: int
    event_id: UUID | None
    level: str
    line: str
    at: datetime


class Store:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._written: dict[str, int] = {}

    async def save(self, project: str, version: str, files: Mapping[str, str], author: str, message: str) -> None:
        """Keeps a version. The same content is the same version."""
        await self._pool.execute(
            "INSERT INTO versions (project_id, version, files, author, message) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            project,
            version,
            dict(files),
            author,
            message,
        )

    async def files(self, project: str, version: str) -> dict[str, str] | None:
        """The files of a version."""
        return await self._pool.fetchval("SELECT files FROM versions WHERE project_id = $1 AND version = $2", project, version)

    async def deploy(self, project: str, version: str, by: str, message: str) -> Deployment:
        """Notes the deployment; `published` afterwards."""
        row = await self._pool.fetchrow(
            "INSERT INTO deployments (project_id, version, deployed_by, message) VALUES ($1, $2, $3, $4) RETURNING *",
            project,
            version,
            by,
            message,
        )
        return Deployment.model_validate(dict(row or {}))

    async def projects(self) -> list[str]:
        """All that have a version or a row of the log."""
        query = "SELECT project_id FROM versions UNION SELECT project_id FROM runs UNION SELECT project_id FROM logs"
        return [r["project_id"] for r in await self._pool.fetch(query)]

    async def forget(self, project: str) -> None:
        """Drops all of a project that is gone."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            for query in (
                "DELETE FROM logs WHERE project_id = $1",
                "DELETE FROM runs WHERE project_id = $1",
                "DELETE FROM deployments WHERE project_id = $1",
                "DELETE FROM versions WHERE project_id = $1",
            ):
                await connection.execute(query, project)
        self._written.pop(project, None)

    async def forget_events(self, project: str, events: Sequence[UUID]) -> None:
        """What the bot said and where it failed at these events may hold a person's words: lines go, errors and traces too.

        Some events at a time; cut off, it is asked for again.
        """
        for start in range(0, len(events), _EVENTS):
            some = list(events[start : start + _EVENTS])
            await self._pool.execute("DELETE FROM logs WHERE project_id = $1 AND event_id = ANY ($2)", project, some)
            await self._pool.execute(
                "UPDATE runs SET error = NULL, trace = NULL, state = NULL, next_state = NULL WHERE project_id = $1 AND event_id = ANY ($2)"
                " AND num_nonnulls(error, trace, state, next_state) > 0",
                project,
                some,
            )

    async def unpublished(self) -> list[Deployment]:
        """Deployments whose event a crash may have swallowed, the last of each project."""
        query = "SELECT DISTINCT ON (project_id) * FROM deployments WHERE NOT published ORDER BY project_id, id DESC"
        return [Deployment.model_validate(dict(r)) for r in await self._pool.fetch(query)]

    async def published(self, deployment: Deployment) -> None:
        """Its event is durable, and with it all earlier ones are history."""
        await self._pool.execute(
            "UPDATE deployments SET published = true WHERE project_id = $1 AND id <= $2 AND NOT published",
            deployment.project_id,
            deployment.id,
        )

    async def deployments(self, project: str, limit: int) -> list[Deployment]:
        """Newest first."""
        rows = await self._pool.fetch("SELECT * FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT $2", project, limit)
        return [Deployment.model_validate(dict(r)) for r in rows]

    async def record_run(self, project: str, run: Mapping[str, Any]) -> None:
        """Keeps a run."""
        await self._pool.execute(
            "INSERT INTO runs (project_id, event_id, version, attempt, state, next_state, outcome, replies, duration_ms, error, trace, started_at)"
            " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
            project,
            *(
                run.get(k)
                for k in (
                    "event_id",
                    "version",
                    "attempt",
                    "state",
                    "next_state",
                    "outcome",
                    "replies",
                    "duration_ms",
                    "error",
                    "trace",
                    "started_at",
                )
            ),
        )

    async def runs(self, project: str, before: UUID | None, limit: int) -> list[Run]:
        """Newest first, below `before`."""
        query = "SELECT * FROM runs WHERE project_id = $1 AND ($2::uuid IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        return [Run.model_validate(dict(r)) for r in await self._pool.fetch(query, project, before, limit)]

    async def log(self, project: str, event: UUID | None, level: str, lines: list[str]) -> None:
        """Adds lines, and now and then drops those beyond the limit."""
        await self._pool.execute(
            "INSERT INTO logs (project_id, event_id, level, line) SELECT $1, $2, $3, l FROM unnest($4::text[]) AS l",
            project,
            event,
            level,
            lines,
        )
        written = self._written[project] = self._written.get(project, 0) + len(lines)
        if written >= _LOG_LINES // 10:
            self._written[project] = 0
            await self._pool.execute(
                "DELETE FROM logs WHERE project_id = $1 AND id < (SELECT id FROM logs WHERE project_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)",
                project,
                _LOG_LINES,
            )

    async def logs(self, project: str, before: int | None, limit: int) -> list[LogLine]:
        """Newest first, below `before`."""
        query = "SELECT * FROM logs WHERE project_id = $1 AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        return [LogLine.model_validate(dict(r)) for r in await self._pool.fetch(query, project, before, limit)]
