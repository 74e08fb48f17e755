"""Limits of projects: chosen in the control database, in force on the tenant cluster, where the reaper looks."""

from __future__ import annotations

from dataclasses import astuple, fields
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from loquat_provisioner.adapters import logins
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import LOGINS, Names
from loquat_provisioner.domain.limits import Limits

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]


# purpose: an owner's choice; not in force yet
_CHOOSE: Final = """
INSERT INTO limits (project_id, size_bytes, bot_connections, editor_connections, direct_connections, statement_seconds, transaction_seconds)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (project_id) DO UPDATE SET
    size_bytes = excluded.size_bytes, bot_connections = excluded.bot_connections, editor_connections = excluded.editor_connections,
    direct_connections = excluded.direct_connections, statement_seconds = excluded.statement_seconds,
    transaction_seconds = excluded.transaction_seconds, applied = false, changed_at = now()"""


class LimitsStore:
    """What was chosen."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def get(self, project: str) -> Limits:
        """A project's; the defaults where nothing was chosen."""
        row = await self._pool.fetchrow("SELECT * FROM limits WHERE project_id = $1", project, timeout=5)
        return Limits(**{f.name: row[f.name] for f in fields(Limits)}) if row is not None else Limits()

    async def choose(self, project: str, limits: Limits) -> None:
        """From now on, as soon as `applied` says so."""
        await self._pool.execute(_CHOOSE, project, *astuple(limits), timeout=5)

    async def applied(self, project: str, limits: Limits) -> None:
        """They are in force, unless others were chosen meanwhile."""
        await self._pool.execute(
            "UPDATE limits SET applied = true WHERE project_id = $1 AND (size_bytes, bot_connections, editor_connections,"
            " direct_connections, statement_seconds, transaction_seconds) = ($2, $3, $4, $5, $6, $7)",
            project,
            *astuple(limits),
            timeout=5,
        )

    async def waiting(self) -> list[str]:
        """Projects whose choice is not in force: their cluster was away, or the process ended."""
        rows = await self._pool.fetch(
            "SELECT l.project_id FROM limits AS l JOIN projects AS p USING (project_id)"
            " WHERE NOT l.applied AND p.state = 'ready' ORDER BY l.changed_at LIMIT 100",
            timeout=5,
        )
        return [r["project_id"] for r in rows]


async def enforce(databases: ProjectDatabases, names: Names, limits: Limits) -> None:
    """Puts them where the reaper and PostgreSQL find them. A role that its login holds just now is the reaper's next sweep's work.

    The ages are politeness of the session, too: PostgreSQL's own message is a better one than a lost connection.
    """
    polite = [f"statement_timeout={limits.statement_seconds}s", f"transaction_timeout={limits.transaction_seconds}s"]
    async with databases.alone() as admin, admin.transaction():
        await admin.execute(
            "UPDATE loquat_operations.projects SET size_limit = $2, statement_age = $3, transaction_age = $4 WHERE database = $1",
            names.database,
            limits.size_bytes,
            timedelta(seconds=limits.statement_seconds),
            timedelta(seconds=limits.transaction_seconds),
        )
        for kind in LOGINS:
            await admin.execute(
                "UPDATE loquat_operations.logins SET connection_limit = $2, settings = settings[:2] || $3::text[] WHERE rolname = $1",
                names.login(kind),
                limits.connections(kind),
                polite,
            )
            await logins.put_right(admin, names.login(kind))
