"""The platform's functions in a project database, as loquat_bot_runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed

from loquat_bot_runner.ports import Begun, Committed, Hold

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_COMMIT: Final = "SELECT c.status, c.outbox, loquat.touched_by($1) AS touched FROM loquat.commit_run($1, $2, $3) AS c"
_COMMIT_BEFORE_7: Final = "SELECT c.status, c.outbox, NULL::jsonb AS touched FROM loquat.commit_run($1, $2, $3) AS c"


class ProjectRuns:
    """See `ports.Runs`."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    @asynccontextmanager
    async def _connection(self, project: ProjectListed) -> AsyncGenerator[Connection]:
        if project.cluster is None or project.database is None:
            raise DatabaseAway("the project has no database yet")
        async with self._pools.acquire(project.cluster, project.database, project=project.project_id, epoch=project.epoch) as connection:
            yield connection

    async def begin(self, project: ProjectListed, element: dict[str, Any], hold: Hold | None) -> Begun:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            row = await connection.fetchrow("SELECT * FROM loquat.begin_run($1, $2)", element, hold)
        if row is None:
            raise DatabaseAway("begin_run gave no answer")
        return Begun(
            row["todo"],
            row["conversation_id"],
            row["contact_id"],
            row["state"] or "",
            row["version"] or 0,
            row["blocked_by"],
            row["outbox"] or [],
        )

    async def commit(self, project: ProjectListed, event: UUID, version: int | None, result: dict[str, Any] | None) -> Committed:
        """See `ports.Runs`."""
        try:
            async with self._connection(project) as connection:
                try:
                    row = await connection.fetchrow(_COMMIT, event, version, result)
                except asyncpg.UndefinedFunctionError:  # a database that the sweep has not brought forward yet
                    row = await connection.fetchrow(_COMMIT_BEFORE_7, event, version, result)
        except asyncpg.LockNotAvailableError as error:  # a bot sits on its own open transaction: its own conversation waits, nobody else
            raise DatabaseAway("the conversation is locked by the bot's own transaction") from error
        if row is None:
            raise DatabaseAway("commit_run gave no answer")
        return Committed(row["status"], row["outbox"] or [], row["touched"] or {})

    async def touched(self, project: ProjectListed, event: UUID) -> dict[str, int]:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            try:
                return await connection.fetchval("SELECT loquat.touched_by($1)", event) or {}
            except asyncpg.UndefinedFunctionError:
                return {}

    async def clear(self, project: ProjectListed, events: list[UUID]) -> None:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.clear_outbox($1)", events)

    async def events_of(self, project: ProjectListed, contact: UUID) -> list[UUID]:
        """The events of a person.

        Raises:
            DatabaseAway: also while the database has not been brought to this release.
        """
        async with self._connection(project) as connection:
            try:
                return list(await connection.fetchval("SELECT loquat.events_of($1)", contact))
            except asyncpg.UndefinedFunctionError as error:
                raise DatabaseAway("the project's database is behind this release") from error

    async def ledger(self, project: ProjectListed) -> dict[str, int]:
        """The markers of P7, and `open`: what has none yet."""
        async with self._connection(project) as connection:
            row = await connection.fetchrow("SELECT * FROM loquat.ledger()")
        return dict(row) if row else {}
