"""How much a project's database holds and who is connected. Catalogs only: nothing of a tenant's is evaluated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg

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

# purpose: tables with the rows that the statistics know of, the largest first. reltuples is -1 before the first ANALYZE.
_TABLES: Final = """
SELECT c.relname AS name, r.rolname = 'loquat_system' AS system, greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0) AS rows, c.oid,
    sum(greatest(c.reltuples::bigint, pg_stat_get_live_tuples(c.oid), 0)) OVER ()::bigint AS all_rows
FROM pg_class AS c JOIN pg_roles AS r ON r.oid = c.relowner
WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'm')
ORDER BY c.relpages DESC, rows DESC, c.relname LIMIT $1"""

# purpose: a table's size; waits for whoever holds it, so it has a lock time-out
_SIZES: Final = "SELECT o AS oid, pg_total_relation_size(o) AS size FROM unnest($1::oid[]) AS u(o)"
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
        sizes = await _sizes(inside, [t["oid"] for t in tables])
    return Usage(
        row["size"],
        row["closed_for_size"],
        {kind: logins.get(names.login(kind), (0, 0)) for kind in LOGINS},
        tables[0]["all_rows"] if tables else 0,
        [Table(t["name"], t["rows"], sizes.get(t["oid"]), t["system"]) for t in tables],
    )


async def _sizes(inside: Connection, tables: list[int]) -> dict[int, int]:
    """All together; where one is held, one by one."""
    await inside.execute("SET lock_timeout = '200ms'")
    try:
        return {r["oid"]: r["size"] for r in await inside.fetch(_SIZES, tables, timeout=10)}
    except asyncpg.LockNotAvailableError:
        found: dict[int, int] = {}
    await inside.execute("SET lock_timeout = '10ms'")
    for table in tables:
        try:
            found |= {r["oid"]: r["size"] for r in await inside.fetch(_SIZES, [table], timeout=10)}
        except asyncpg.LockNotAvailableError:
            continue
    return found
