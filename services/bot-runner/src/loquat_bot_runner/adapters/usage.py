"""What a project's database says of its conversations and tables, as loquat_bot_runner, who may read conversations and the catalog and nothing else."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, Final

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed

MOST_STATES: Final = 1_000
"""States that are told apart: a bot that makes up more has no use for a list of them."""
_STATES: Final = (
    "SELECT state, count(*) AS n FROM public.conversations WHERE status = 'open' GROUP BY state ORDER BY n DESC, state LIMIT $1"
)
_COLUMNS: Final = """
SELECT c.relname AS name, array_agg(a.attname::text) FILTER (WHERE a.attnum > 0 AND NOT a.attisdropped) AS columns
FROM pg_class AS c LEFT JOIN pg_attribute AS a ON a.attrelid = c.oid
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = ANY ('{r,p,v,m,f}') AND c.relname = ANY ($1) GROUP BY c.relname"""


class Usage:
    """Asked when a person deploys, looks, or a canary is under way."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    async def states(self, project: ProjectListed) -> dict[str, int]:
        """Open conversations by state, the most first."""
        async with self._pools.acquire(*_place(project), project=project.project_id, epoch=project.epoch) as connection:
            return {r["state"]: r["n"] for r in await connection.fetch(_STATES, MOST_STATES)}

    async def columns(self, project: ProjectListed, tables: Collection[str]) -> dict[str, set[str]]:
        """Columns of those of the tables that are there."""
        if not tables:
            return {}
        async with self._pools.acquire(*_place(project), project=project.project_id, epoch=project.epoch) as connection:
            return {r["name"]: set(r["columns"] or ()) for r in await connection.fetch(_COLUMNS, list(tables))}

    async def configuration(self, project: ProjectListed) -> dict[str, Any]:
        """What is set of the bot's configuration, by key."""
        async with self._pools.acquire(*_place(project), project=project.project_id, epoch=project.epoch) as connection:
            try:
                return {r["key"]: r["value"] for r in await connection.fetch("SELECT key, value FROM loquat.configuration()")}
            except asyncpg.UndefinedFunctionError:  # a database that the sweep has not brought forward yet: nothing can be set there
                return {}


def _place(project: ProjectListed) -> tuple[str, str]:
    if project.cluster is None or project.database is None:
        raise DatabaseAway("the project has no database yet")
    return project.cluster, project.database
