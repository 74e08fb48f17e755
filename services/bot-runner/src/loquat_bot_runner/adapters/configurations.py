"""A bot's configuration in its project's database, and the mark of its secrets there, as loquat_bot_runner."""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed
from pydantic import BaseModel

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LIMIT: Final = "LQ005"


class Configured(BaseModel):
    """A key that is set."""

    key: str
    value: Any
    created_at: datetime
    updated_at: datetime


class OverLimit(Exception):
    """The text names what it is, and the limit."""


class Configurations:
    """Of all projects."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    async def list(self, project: ProjectListed) -> list[Configured]:
        """By key."""
        async with self._connection(project) as connection:
            return [Configured.model_validate(dict(r)) for r in await connection.fetch("SELECT * FROM loquat.configuration()")]

    async def set(self, project: ProjectListed, key: str, value: Any) -> Configured:
        """From the next event on.

        Raises:
            OverLimit: of the value, of the number of keys, or of all together.
        """
        async with self._connection(project) as connection, connection.transaction():
            try:
                await connection.execute("SELECT loquat.configure($1, $2::text::jsonb)", key, json.dumps(value))
            except asyncpg.PostgresError as error:
                if error.sqlstate == _LIMIT:
                    raise OverLimit(str(error)) from None
                raise
            row = await connection.fetchrow("SELECT c.* FROM loquat.configuration() AS c WHERE c.key = $1", key)
        return Configured.model_validate(dict(row or {}))

    async def delete(self, project: ProjectListed, key: str) -> bool:
        """Whether it was set."""
        async with self._connection(project) as connection:
            return await connection.fetchval("SELECT loquat.unconfigure($1)", key)

    async def conduct(self, project: ProjectListed, wanted: dict[str, Any] | None) -> dict[str, Any]:
        """How the bot behaves; with `wanted`, from now on."""
        async with self._connection(project) as connection:
            if wanted is None:
                return await connection.fetchval("SELECT loquat.settings()")
            return await connection.fetchval("SELECT loquat.change_settings($1)", wanted)

    async def mark_secrets(self, project: ProjectListed) -> None:
        """Secrets have changed: every runner reads them again, at the project's next event."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.secrets_changed()")

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
