"""Projects, their steps and their sealed passwords in the control database."""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING

from loquat_common.crypto import KeyRing
from loquat_events.projects import CreateProject, ProjectState

from loquat_provisioner.domain.life import CREATION, KEPT, Login, Names

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]


@dataclass(frozen=True, slots=True)
class Project:
    """A project's row."""

    project_id: str
    organization_id: str
    name: str
    state: ProjectState
    cluster: str | None
    database: str | None
    epoch: int
    reason: str | None
    created_at: datetime
    ready_at: datetime | None
    delete_at: datetime | None
    origin: str | None
    """The copy that it begins as, in place of the template, and `former`: the database that this is a copy of."""
    former: str | None


@dataclass(frozen=True, slots=True)
class Step:
    """A step's row."""

    name: str
    status: str
    attempts: int
    started_at: datetime
    ended_at: datetime | None
    reason: str | None


class Store:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool, ring: KeyRing) -> None:
        self._pool, self._ring = pool, ring

    async def accept(self, order: CreateProject) -> Project:
        """The project exists from now on. Harmless when repeated. One that begins as a copy has the epoch after the copy's.

        The API refuses a NUL in a name. An order that has one all the same becomes a project that can be seen, not a dead letter that cannot.
        """
        await self._pool.execute(
            "INSERT INTO projects (project_id, organization_id, name, state, origin, former, epoch)"
            " SELECT $1, $2, $3, 'creating', b.database, p.database, coalesce(b.epoch + 1, 1)"
            " FROM (SELECT) AS one LEFT JOIN backups AS b ON b.backup_id = $4 LEFT JOIN projects AS p ON p.project_id = b.project_id"
            " ON CONFLICT DO NOTHING",
            order.project_id,
            order.organization_id,
            order.name.replace("\0", "\ufffd"),
            order.origin,
        )
        project = await self.get(order.project_id)
        if project is None:
            raise LookupError(order.project_id)
        return project

    async def get(self, project: str) -> Project | None:
        """One project."""
        row = await self._pool.fetchrow("SELECT * FROM projects WHERE project_id = $1", project)
        return Project(**row) if row else None

    async def of_organization(self, organization: str, limit: int, after: Project | None = None) -> list[Project]:
        """An organization's projects, newest first, below `after`, without those that are gone."""
        query = (
            "SELECT * FROM projects WHERE organization_id = $1 AND state <> 'deleted'"
            " AND ($3::timestamptz IS NULL OR (created_at, project_id) < ($3, $4::text)) ORDER BY created_at DESC, project_id DESC LIMIT $2"
        )
        at, last = (after.created_at, after.project_id) if after is not None else (None, None)
        return [Project(**r) for r in await self._pool.fetch(query, organization, limit, at, last)]

    async def steps(self, projects: list[str]) -> dict[str, list[Step]]:
        """Steps by project, in order."""
        rows = await self._pool.fetch("SELECT * FROM steps WHERE project_id = ANY ($1) ORDER BY project_id, position", projects)
        found: dict[str, list[Step]] = {p: [] for p in projects}
        for r in rows:
            found[r["project_id"]].append(Step(r["name"], r["status"], r["attempts"], r["started_at"], r["ended_at"], r["reason"]))
        return found

    async def reserve(self, project: str, cluster: str) -> None:
        """Names and passwords, chosen once, before anything is made with them."""
        sealed = [self._ring.seal(secrets.token_urlsafe(32).encode(), _place(project, login)) for login in KEPT]
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute(
                "UPDATE projects SET cluster = coalesce(cluster, $2), database = coalesce(database, $3) WHERE project_id = $1",
                project,
                cluster,
                Names.fresh().database,
            )
            await connection.execute(
                "INSERT INTO credentials SELECT $1, u.login, u.sealed FROM unnest($2::text[], $3::bytea[]) AS u(login, sealed) ON CONFLICT DO NOTHING",
                project,
                list(KEPT),
                sealed,
            )

    async def passwords(self, project: str) -> dict[Login, str]:
        """Its logins' passwords; none before they were chosen or after the project was deleted.

        Raises:
            SealBroken: they were sealed with another key ring.
        """
        rows = await self._pool.fetch("SELECT login, sealed FROM credentials WHERE project_id = $1", project)
        return {r["login"]: self._ring.open(r["sealed"], _place(project, r["login"])).decode() for r in rows}

    async def load(self) -> dict[str, int]:
        """Projects by cluster."""
        rows = await self._pool.fetch("SELECT cluster, count(*) FROM projects WHERE cluster IS NOT NULL AND state <> 'deleted' GROUP BY 1")
        return {r["cluster"]: r["count"] for r in rows}

    async def begin(self, project: str, step: str) -> None:
        """A step begins, or begins again."""
        await self._pool.execute(
            "INSERT INTO steps (project_id, name, position, status) VALUES ($1, $2, $3, 'running')"
            " ON CONFLICT (project_id, name) DO UPDATE SET status = 'running', attempts = steps.attempts + 1, reason = NULL, ended_at = NULL",
            project,
            step,
            CREATION.index(step),
        )

    async def end(self, project: str, step: str, reason: str | None = None) -> None:
        """A step ended: well, or for this reason."""
        await self._pool.execute(
            "UPDATE steps SET status = $3, reason = $4, ended_at = now() WHERE project_id = $1 AND name = $2",
            project,
            step,
            "done" if reason is None else "failed",
            reason,
        )

    async def state(self, project: str, state: ProjectState, reason: str | None = None) -> Project:
        """The project is in this state now."""
        row = await self._pool.fetchrow(
            "UPDATE projects SET state = $2, reason = $3, ready_at = CASE WHEN $2 = 'ready' THEN coalesce(ready_at, now()) ELSE ready_at END"
            " WHERE project_id = $1 RETURNING *",
            project,
            state,
            reason,
        )
        if row is None:
            raise LookupError(project)
        return Project(**row)

    async def epoch(self, project: str, epoch: int) -> Project:
        """Its database is of this epoch now. It never falls."""
        row = await self._pool.fetchrow(
            "UPDATE projects SET epoch = greatest(epoch, $2) WHERE project_id = $1 RETURNING *", project, epoch, timeout=5
        )
        if row is None:
            raise LookupError(project)
        return Project(**row)

    async def retried(self, project: str) -> None:
        """Counts its failed steps anew, once for each time that it was given up: the order of a retry comes again like any other."""
        await self._pool.execute(
            "UPDATE steps SET attempts = 0 FROM projects AS p"
            " WHERE steps.project_id = $1 AND status = 'failed' AND p.project_id = steps.project_id AND p.state = 'failed'",
            project,
        )

    async def schedule_deletion(self, project: str, grace_seconds: int) -> float:
        """Seconds until its database goes; the first order decides."""
        seconds: float = await self._pool.fetchval(
            "UPDATE projects SET delete_at = coalesce(delete_at, now() + $2 * interval '1 second') WHERE project_id = $1"
            " RETURNING greatest(0, extract(epoch FROM delete_at - clock_timestamp()))::float",
            project,
            grace_seconds,
        )
        return seconds

    async def forget(self, project: str) -> None:
        """Its passwords and steps are gone; the row stays, so that an order that comes again finds it deleted."""
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("DELETE FROM credentials WHERE project_id = $1", project)
            await connection.execute("DELETE FROM steps WHERE project_id = $1", project)
            await connection.execute("DELETE FROM limits WHERE project_id = $1", project)
            await connection.execute("DELETE FROM reservations WHERE project_id = $1", project)
            await connection.execute("DELETE FROM restores WHERE project_id = $1", project)
            await connection.execute("DELETE FROM backups WHERE project_id = $1", project)
            await connection.execute("UPDATE projects SET state = 'deleted' WHERE project_id = $1", project)


def _place(project: str, login: Login) -> str:
    return f"project/{project}/database/{login}"
