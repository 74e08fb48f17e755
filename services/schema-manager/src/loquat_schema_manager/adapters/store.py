"""What schema-manager remembers: templates and the versions of databases, in its schema of the control database. Rows are locks, too."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Final

import asyncpg

from loquat_schema_manager.domain.shapes import Failing, Forward, Gone, Outcome, Progress, Target, Template, pause_after

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

_ACQUIRE: Final = 5.0  # seconds for a connection of the pool
_SHOWN: Final = 100  # failing databases in one answer

# purpose: the next database that is behind; one that another process works at is passed over
_CLAIM: Final = """
SELECT cluster, database, project_id, attempts FROM databases
WHERE version < $1 AND next_at <= now() ORDER BY next_at, database LIMIT 1 FOR UPDATE SKIP LOCKED"""


class Store:
    """See the module. `chance` gives random numbers from 0 to 1."""

    def __init__(self, pool: Pool, chance: Callable[[], float]) -> None:
        self._pool, self._chance = pool, chance

    async def note(self, targets: Sequence[Target]) -> None:
        """Databases that there are. Known ones stay as they are, but for one of a new epoch: a restored backup may be of an older shape."""
        await self._pool.execute(
            "INSERT INTO databases (cluster, database, project_id, epoch) SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::bigint[])"
            " ON CONFLICT (cluster, database) DO UPDATE SET epoch = excluded.epoch, version = 0, attempts = 0, reason = NULL, next_at = now()"
            " WHERE databases.epoch < excluded.epoch",
            [t.cluster for t in targets],
            [t.database for t in targets],
            [t.project_id for t in targets],
            [t.epoch for t in targets],
        )

    async def forget(self, projects: Sequence[str]) -> None:
        """Databases of projects that are gone. One that somebody works at just now is found to be gone by him."""
        await self._pool.execute(
            "DELETE FROM databases WHERE (cluster, database) IN"
            " (SELECT cluster, database FROM databases WHERE project_id = ANY ($1) FOR UPDATE SKIP LOCKED)",
            list(projects),
        )
        await self._pool.execute("DELETE FROM change_sets WHERE project_id = ANY ($1)", list(projects))

    async def work(self, version: int, attempt: Callable[[Target], Awaitable[Outcome]]) -> Outcome | None:
        """Brings one database that is behind `version` forward by `attempt`, and remembers what came of it. None if none is due.

        Its row is held meanwhile: nobody else works at this database.
        """
        async with self._pool.acquire(timeout=_ACQUIRE) as connection, connection.transaction():
            row = await connection.fetchrow(_CLAIM, version)
            if row is None:
                return None
            target = Target(row["cluster"], row["database"], row["project_id"])
            outcome = await attempt(target)
            await self._remember(connection, target, row["attempts"], outcome)
            return outcome

    async def _remember(self, connection: Connection, target: Target, attempts: int, outcome: Outcome) -> None:
        place = (target.cluster, target.database)
        match outcome:
            case Forward(version):
                await connection.execute(
                    "UPDATE databases SET version = $3, attempts = 0, reason = NULL, changed_at = now() WHERE (cluster, database) = ($1, $2)",
                    *place,
                    version,
                )
            case Gone():
                await connection.execute("DELETE FROM databases WHERE (cluster, database) = ($1, $2)", *place)
            case _:
                await connection.execute(
                    "UPDATE databases SET attempts = $3, reason = $4, next_at = clock_timestamp() + make_interval(secs => $5), changed_at = now()"
                    " WHERE (cluster, database) = ($1, $2)",
                    *place,
                    attempts + 1,
                    outcome.reason,
                    pause_after(outcome.hindrance, attempts + 1, self._chance()),
                )

    async def outlook(self, version: int) -> tuple[int, float | None]:
        """How many databases are behind `version`, and the seconds until the next of them is due (None if there is none)."""
        row = await self._pool.fetchrow(
            "SELECT count(*) AS behind, extract(epoch FROM min(next_at) - clock_timestamp())::float8 AS due FROM databases WHERE version < $1",
            version,
        )
        return (row["behind"], row["due"]) if row else (0, None)

    async def seal(
        self, cluster: str, version: int, build: Callable[[], Awaitable[str]], announce: Callable[[str], Awaitable[None]]
    ) -> str:
        """Has a template built by `build`, one builder at a time, and announced unless it was before. Its name."""
        async with self._pool.acquire(timeout=_ACQUIRE) as connection, connection.transaction():
            await connection.execute("INSERT INTO templates (cluster, version) VALUES ($1, $2) ON CONFLICT DO NOTHING", cluster, version)
            announced = await connection.fetchval(
                "SELECT sealed_at IS NOT NULL FROM templates WHERE (cluster, version) = ($1, $2) FOR UPDATE", cluster, version
            )
            database = await build()
            if not announced:
                await announce(database)
                await connection.execute(
                    "UPDATE templates SET database = $3, sealed_at = now() WHERE (cluster, version) = ($1, $2)", cluster, version, database
                )
            return database

    async def templates(self) -> list[Template]:
        """All that are sealed."""
        rows = await self._pool.fetch(
            "SELECT cluster, version, database, sealed_at FROM templates WHERE sealed_at IS NOT NULL ORDER BY cluster, version"
        )
        return [Template(r["cluster"], r["version"], r["database"], r["sealed_at"]) for r in rows]

    async def progress(self, version: int) -> Progress:
        """How many databases there are, how many are behind, and which ones fail."""
        counts = await self._pool.fetchrow(
            "SELECT count(*) AS total, count(*) FILTER (WHERE version < $1) AS behind FROM databases", version
        )
        rows = await self._pool.fetch(
            "SELECT cluster, database, project_id, version, attempts, reason, next_at FROM databases"
            " WHERE version < $1 AND attempts > 0 ORDER BY attempts DESC, database LIMIT $2",
            version,
            _SHOWN,
        )
        failing = tuple(
            Failing(Target(r["cluster"], r["database"], r["project_id"]), r["version"], r["attempts"], r["reason"], r["next_at"])
            for r in rows
        )
        return Progress(counts["total"] if counts else 0, counts["behind"] if counts else 0, failing)
