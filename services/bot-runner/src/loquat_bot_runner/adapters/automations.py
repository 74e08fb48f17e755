"""A bot's schedules in its project's database, as loquat_bot_runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed
from pydantic import BaseModel

from loquat_bot_runner.domain.schedules import CatchUp, Declared

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


class Automation(BaseModel):
    """A schedule that the deployed code declares, and whether it is on."""

    id: UUID
    name: str
    schedule: str
    handler: str
    tz: str
    catch_up: CatchUp
    active: bool


class PastRun(BaseModel):
    """A time that came, or a person's request; `outcome` None: it waits or runs."""

    event_id: UUID
    due_at: datetime
    ordered_by: str | None
    recorded_at: datetime
    finished_at: datetime | None
    outcome: str | None


class Automations:
    """Of all projects."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    async def sync(self, project: ProjectListed, declared: Sequence[Declared]) -> list[Automation]:
        """Makes the rows what the code declares, and whatever is on stays on; those that are declared."""
        rows = [
            {"name": d.name, "schedule": d.plan.expression, "handler": d.handler, "tz": d.plan.tz, "catch_up": d.plan.catch_up}
            for d in declared
        ]
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.sync_automations($1)", rows)
            return await _listed(connection)

    async def list(self, project: ProjectListed) -> list[Automation]:
        """By name."""
        async with self._connection(project) as connection:
            return await _listed(connection)

    async def turn(self, project: ProjectListed, automation: UUID, *, active: bool) -> bool:
        """On or off. False: it is not declared any more."""
        async with self._connection(project) as connection:
            return await connection.fetchval("SELECT loquat.turn_automation($1, $2)", automation, active)

    async def history(self, project: ProjectListed, automation: UUID, most: int) -> Sequence[PastRun]:
        """Newest first."""
        async with self._connection(project) as connection:
            rows = await connection.fetch("SELECT * FROM loquat.automation_history($1, $2)", automation, most)
        return [PastRun.model_validate(dict(r)) for r in rows]

    @asynccontextmanager
    async def _connection(self, project: ProjectListed) -> AsyncGenerator[Connection]:
        if project.cluster is None or project.database is None:
            raise DatabaseAway("the project has no database yet")
        async with self._pools.acquire(project.cluster, project.database, project=project.project_id, epoch=project.epoch) as connection:
            try:
                yield connection
            except (
                asyncpg.UndefinedFunctionError,
                asyncpg.LockNotAvailableError,
            ) as error:  # the sweep comes to it, or somebody holds the row
                raise DatabaseAway("the project's database is not ready for this") from error


async def _listed(connection: Connection) -> list[Automation]:
    return [Automation.model_validate(dict(r)) for r in await connection.fetch("SELECT * FROM loquat.automations()")]
