"""The platform's functions about contacts in a project database, as loquat_conversation_log."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed

from loquat_conversation_log.ports import Behind, Busy, Erased

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

BATCH: Final = 2_000
"""Messages erased in one transaction: well under the half second for which others wait."""
_BUSY: Final = (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.SerializationError)


class ProjectPeople:
    """See `ports.People`."""

    def __init__(self, pools: ProjectPools, *, batch: int = BATCH) -> None:
        self._pools, self._batch = pools, batch

    async def merge(self, project: ProjectListed, contact: UUID, into: UUID) -> str:
        """See `ports.People`."""
        async with self._connection(project) as connection:
            return await connection.fetchval("SELECT loquat.merge_contacts($1, $2)", contact, into)

    async def erase(self, project: ProjectListed, contact: UUID) -> Erased:
        """See `ports.People`."""
        async with self._connection(project) as connection:
            row = await connection.fetchrow("SELECT outcome, people, more FROM loquat.erase_contact($1, $2)", contact, self._batch)
        if row is None:
            raise DatabaseAway("no answer")
        return Erased(row["outcome"], tuple(row["people"] or ()), row["more"])

    @asynccontextmanager
    async def _connection(self, project: ProjectListed) -> AsyncGenerator[Connection]:
        if project.cluster is None or project.database is None:
            raise DatabaseAway("the project has no place")
        place = self._pools.acquire(project.cluster, project.database, project=project.project_id, epoch=project.epoch)
        async with place as connection:
            try:
                yield connection
            except _BUSY as error:
                raise Busy from error
            except asyncpg.UndefinedFunctionError as error:
                raise Behind from error
