"""How much a project's database holds and who is connected. Catalogs only: nothing of a tenant's is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common import estimates

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import LOGINS, Login, Names

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

# purpose: size, and whether it is closed for it
_PROJECT: Final = """
SELECT pg_database_size(d.oid) AS size, p.closed_for_size
FROM loquat_operations.projects AS p JOIN pg_database AS d ON d.datname = p.database WHERE p.database = $1"""

# purpose: connections of each login
_LOGINS: Final = """
SELECT l.rolname, l.connection_limit,
    (SELECT count(*) FROM pg_stat_activity AS s WHERE s.usename = l.rolname AND s.backend_type = 'client backend') AS connections
FROM loquat_operations.logins AS l WHERE l.database = $1"""

# purpose: tables with an estimate of their rows that waits for nobody, the largest first
_TABLES: Final = f"""
SELECT t.*, sum(t.rows) OVER ()::bigint AS all_rows FROM (
  SELECT c.relname AS name, r.rolname = 'loquat_system' AS system, {estimates.rows("c", "c.relpages")} AS rows, c.oid, c.relpages
  FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm')) AS t
ORDER BY t.relpages DESC, t.rows DESC, t.name LIMIT $1"""  # noqa: S608  (constants)

# purpose: a table's size, and its rows for the pages that it has; waits for whoever holds it, so it has a lock time-out
_SIZES: Final = f"""
SELECT c.oid, pg_total_relation_size(c.oid) AS size, {estimates.rows("c", "(pg_relation_size(c.oid) / current_setting('block_size')::bigint)")} AS rows
FROM pg_class AS c WHERE c.oid = ANY ($1::oid[])"""  # noqa: S608  (constants)
_SHOWN: Final = 500


@dataclass(frozen=True, slots=True)
class Table:
    """A table's share. No size while somebody holds it."""

    name: str
    rows: int
    size: int | None
    system: bool


@dataclass(frozen=True, slots=True)
class Usage:
    """Bytes, rows and (connections, limit) by login."""

    size: int
    closed_for_size: bool
    logins: dict[Login, tuple[int, int]]
    rows: int
    tables: list[Table]


async def usage(databases: ProjectDatabases, names: Names) -> Usage | None:
    """None: the cluster does not know the project.

    Raises:
        DatabaseAway: the cluster does not answer.
    """
    async with databases.alone() as admin:
        row = await admin.fetchrow(_PROJECT, names.database, timeout=10)
        logins = {r["rolname"]: (r["connections"], r["connection_limit"]) for r in await admin.fetch(_LOGINS, names.database, timeout=10)}
    if row is None:
        return None
    async with databases.inside(names.database) as inside:
        tables = await inside.fetch(_TABLES, _SHOWN, timeout=10)
        seen = await _seen(inside, [t["oid"] for t in tables])
    rows = {t["oid"]: seen[t["oid"]]["rows"] if t["oid"] in seen else t["rows"] for t in tables}
    return Usage(
        row["size"],
        row["closed_for_size"],
        {kind: logins.get(names.login(kind), (0, 0)) for kind in LOGINS},
        sum(rows.values()) + (tables[0]["all_rows"] - sum(t["rows"] for t in tables) if tables else 0),
        [Table(t["name"], rows[t["oid"]], seen[t["oid"]]["size"] if t["oid"] in seen else None, t["system"]) for t in tables],
    )


async def _seen(inside: Connection, tables: list[int]) -> dict[int, asyncpg.Record]:
    """All together; where one is held, one by one."""
    await inside.execute("SET lock_timeout = '200ms'")
    try:
        return {r["oid"]: r for r in await inside.fetch(_SIZES, tables, timeout=10)}
    except asyncpg.LockNotAvailableError:
        found: dict[int, asyncpg.Record] = {}
    await inside.execute("SET lock_timeout = '10ms'")
    for table in tables:
        try:
            found |= {r["oid"]: r for r in await inside.fetch(_SIZES, [table], timeout=10)}
        except asyncpg.LockNotAvailableError:
            continue
    return found
