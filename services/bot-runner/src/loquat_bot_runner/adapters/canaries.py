"""Watches canaries: one that does worse than the stable version is stopped, and the history says why."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

from loquat_common.bus.port import BusUnavailable
from loquat_common.db import is_gone
from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.deployments import Publisher, Suspects
from loquat_bot_runner.adapters.pointers import Deployment, Pointers
from loquat_bot_runner.domain.canary import Tally, verdict
from loquat_bot_runner.domain.pointing import SETTLED, CannotPoint, Here, Pointing, stopped

if TYPE_CHECKING:
    from datetime import datetime

    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

ITSELF: Final = "loquat"
"""Who stopped a canary that nobody stopped."""
WINDOW: Final = 5_000
"""Runs of a project that are looked at, the last ones: enough to see one per cent, few enough to count at each failure."""
_BREATH: Final = 0.5  # seconds between two looks: a bot that only fails makes nobody count all the time
_AGAIN: Final = 2.0  # seconds until a look that the database did not answer is repeated
_TALLY: Final = """
SELECT version, count(DISTINCT event_id) AS events, count(DISTINCT event_id) FILTER (WHERE outcome NOT IN ('handled', 'ProjectDatabaseAway')) AS failed
FROM (SELECT * FROM runs WHERE project_id = $1 ORDER BY id DESC LIMIT $4) AS last
WHERE started_at >= $2 AND version = ANY ($3) GROUP BY version"""


class Canaries:
    """Counts from the rows of runs, so every replica counts all replicas' runs."""

    def __init__(self, pool: Pool, pointers: Pointers, publisher: Publisher, suspects: Suspects) -> None:
        self._pool, self._pointers, self._publisher, self._suspects = pool, pointers, publisher, suspects

    async def tallies(self, deployment: Deployment) -> tuple[Tally, Tally]:
        """Of the canary and of the stable version, since the canary began."""
        if deployment.canary is None:
            return Tally(0, 0), Tally(0, 0)
        began, pair = deployment.canary.steps[0].since - SETTLED, [deployment.canary.version, deployment.version]
        rows = await self._pool.fetch(_TALLY, deployment.project_id, began, pair, WINDOW)
        found = {r["version"]: Tally(r["events"], r["failed"]) for r in rows}
        return found.get(pair[0], Tally(0, 0)), found.get(pair[1], Tally(0, 0))

    async def look(self, project: str, version: str, reason: str | None = None) -> bool:
        """Stops the project's canary if it does worse, or for a reason that is known; whether it did. `version` is what failed: no other pays for it."""
        current = await self._pointers.current(project)
        if current is None or current.canary is None or current.canary.version != version:
            return False
        why = reason or verdict(*await self.tallies(current))
        if why is None:
            return False

        def step(now: Here | None, _at: datetime) -> Pointing:
            if now is None or now.canary is None or now.canary.version != version:
                raise CannotPoint("no_canary", "a person was quicker")
            return stopped(now)

        try:
            await self._pointers.move(project, "stop", step, by=ITSELF, message=f"The canary was stopped: {why}"[:500])
        except CannotPoint:
            return False
        get_logger().warning("canary.stopped", project=project, version=version[:12])
        await self._publisher.publish(project)
        return True

    async def run(self) -> None:
        """Looks after each failure, for ever; sleeps while nothing fails."""
        while True:
            taken = await self._suspects.take()
            for (project, version), reason in taken.items():
                try:
                    await self.look(project, version, reason)
                except Exception as error:
                    if not isinstance(error, BusUnavailable) and not is_gone(error):
                        raise
                    get_logger().warning("canary.not_looked_at", error=type(error).__name__)
                    self._suspects.note(project, version, reason)
                    await asyncio.sleep(_AGAIN)
            await asyncio.sleep(_BREATH)
