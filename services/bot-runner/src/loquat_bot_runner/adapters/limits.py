"""What projects chose of their bots' limits, in the service's own schema."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from loquat_common.db import is_gone

from loquat_bot_runner.adapters.fresh import Fresh
from loquat_bot_runner.domain.limits import BotLimits, chosen, in_force
from loquat_bot_runner.errors import ProjectDatabaseAway

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_ASK_LIMIT: Final = 5.0


class ChosenLimits:
    """Of all projects: `plan` where nothing was chosen, `most` as far as can be. A change holds at once here, within 5 s in other replicas."""

    def __init__(self, pool: Pool, plan: BotLimits, most: BotLimits, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self.plan, self.most = pool, plan, most
        self._known = Fresh[BotLimits](clock)

    async def of(self, project: str) -> BotLimits:
        """In force. What was last known stands in while the database is away.

        Raises:
            ProjectDatabaseAway: nobody knows.
        """
        if (known := self._known.get(project)) is not None:
            return known
        try:
            row = await self._pool.fetchval("SELECT chosen FROM limits WHERE project_id = $1", project, timeout=_ASK_LIMIT)
        except Exception as error:
            if not is_gone(error):
                raise
            if (last := self._known.last(project)) is not None:
                return last
            raise ProjectDatabaseAway("the platform cannot look up the bot's limits now") from None
        if (known := self._known.get(project)) is not None:  # a change came while we looked
            return known
        return self._known.keep(project, in_force(row or {}, self.plan, self.most))

    async def change(self, project: str, change: Mapping[str, float | None], by: str) -> BotLimits:
        """With the change; two at once follow each other.

        Raises:
            OutOfBounds: nothing was changed.
        """
        async with self._pool.acquire() as connection, connection.transaction():
            await connection.execute("INSERT INTO limits (project_id, updated_by) VALUES ($1, $2) ON CONFLICT DO NOTHING", project, by)
            before: dict[str, Any] = await connection.fetchval("SELECT chosen FROM limits WHERE project_id = $1 FOR UPDATE", project)
            after = chosen(before, change, self.plan, self.most)
            await connection.execute(
                "UPDATE limits SET chosen = $2, updated_by = $3, updated_at = now() WHERE project_id = $1", project, after, by
            )
        return self._known.keep(project, in_force(after, self.plan, self.most))

    async def forget(self, project: str) -> None:
        """Drops all of a project that is gone."""
        self._known.drop(project)
        await self._pool.execute("DELETE FROM limits WHERE project_id = $1", project)
