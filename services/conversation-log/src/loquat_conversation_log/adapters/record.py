"""The platform's functions in a project database, as loquat_conversation_log."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import asyncpg
from loquat_common.db import ProjectPools
from loquat_events.projects import ProjectListed

from loquat_conversation_log.ports import Poison

_DATA = (asyncpg.DataError, asyncpg.IntegrityConstraintViolationError, asyncpg.ProgramLimitExceededError)


class ProjectRecord:
    """See `ports.Record`."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    async def inbound(self, project: ProjectListed, events: Sequence[dict[str, Any]]) -> dict[str, str | None]:
        """See `ports.Record`."""
        rows = await self._call(project, "SELECT event_id, conversation_id FROM loquat.record_inbound($1)", list(events))
        return {str(r["event_id"]): str(r["conversation_id"]) if r["conversation_id"] else None for r in rows}

    async def outbound(self, project: ProjectListed, messages: Sequence[dict[str, Any]]) -> None:
        """See `ports.Record`."""
        await self._call(project, "SELECT loquat.record_outbound($1)", list(messages))

    async def receipts(self, project: ProjectListed, receipts: Sequence[dict[str, Any]]) -> None:
        """See `ports.Record`."""
        await self._call(project, "SELECT loquat.apply_receipts($1)", list(receipts))

    async def _call(self, project: ProjectListed, query: str, argument: list[dict[str, Any]]) -> list[asyncpg.Record]:
        if project.cluster is None or project.database is None:
            return []
        try:
            async with self._pools.acquire(
                project.cluster, project.database, project=project.project_id, epoch=project.epoch
            ) as connection:
                return await connection.fetch(query, argument)
        except _DATA as error:
            raise Poison(f"{type(error).__name__} {error.sqlstate}") from error
