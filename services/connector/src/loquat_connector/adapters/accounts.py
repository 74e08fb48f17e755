"""Meta's updates that name no person, as they came; and the end of what was kept long enough."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.catalog import UNROUTED
from loquat_events.numbers import AccountUpdateReceived

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

KEPT_DAYS: Final = 90
"""Days that an update of an account is kept: a quality rating is looked back at for a month or two."""
_EVERY: Final = 3600.0
_AT_ONCE: Final = 1000  # rows; well within one command's limit


@dataclass(frozen=True, slots=True)
class AccountUpdate:
    """One update, raw."""

    seq: int
    waba_id: str
    number_id: str | None
    field: str
    raw: str
    received_at: datetime


class Accounts:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._log = get_logger()

    async def keep(self, event: UUID, update: AccountUpdateReceived, at: datetime) -> None:
        """Keeps an update, once, for the project that has its number now."""
        await self._pool.execute(
            "INSERT INTO account_updates (event_id, waba_id, number_id, project_id, field, raw, received_at) VALUES ($1, $2, $3,"
            " (SELECT project_id FROM numbers WHERE phone_number_id = $3 AND state <> 'detaching'), $4, $5, $6) ON CONFLICT DO NOTHING",
            event,
            update.waba_id,
            update.number_id,
            update.field,
            update.raw,
            at,
        )

    async def of_project(self, project: str, before: int | None, limit: int) -> list[AccountUpdate]:
        """Of its numbers, and of the accounts of its numbers since they are its own; newest first, below `before`."""
        rows = await self._pool.fetch(
            "SELECT u.* FROM (SELECT seq, waba_id, number_id, field, raw, received_at FROM account_updates WHERE project_id = $1 UNION ALL"
            "  SELECT a.seq, a.waba_id, a.number_id, a.field, a.raw, a.received_at FROM account_updates AS a JOIN"
            "   (SELECT waba_id, min(attached_at) AS since FROM numbers WHERE project_id = $1 AND state <> 'detaching' GROUP BY 1) AS n USING (waba_id)"
            "   WHERE a.number_id IS NULL AND a.received_at >= n.since) AS u"
            " WHERE $2::bigint IS NULL OR u.seq < $2 ORDER BY u.seq DESC LIMIT $3",
            project,
            before,
            limit,
        )
        return [AccountUpdate(**r) for r in rows]

    async def forget(self, project: str) -> None:
        """Drops those of the numbers of a project that is gone."""
        await self._pool.execute("DELETE FROM account_updates WHERE project_id = $1", project)

    async def run(self) -> None:
        """For ever: ends what was kept long enough. A database that is away is waited for."""
        while True:
            try:
                await self.expire()
            except Exception as error:
                if not is_gone(error):
                    raise
                self._log.warning("retention.database_away", error=type(error).__name__)
            await asyncio.sleep(_EVERY)

    async def expire(self) -> int:
        """Drops updates of accounts after 90 days, and those of numbers that nobody attached as long as their topic keeps them; how many."""
        return await self._expire(
            "DELETE FROM account_updates WHERE event_id IN (SELECT event_id FROM account_updates WHERE received_at < now() - $1 * interval '1 day' LIMIT $2)",
            KEPT_DAYS,
        ) + await self._expire(
            "DELETE FROM unrouted WHERE event_id IN (SELECT event_id FROM unrouted WHERE received_at < now() - $1 * interval '1 day' LIMIT $2)",
            UNROUTED.retention_days,
        )

    async def _expire(self, query: str, days: int) -> int:
        count = 0
        while gone := int((await self._pool.execute(query, days, _AT_ONCE)).removeprefix("DELETE ")):
            count += gone
        return count
