"""No foreign key of the platform's is without an index: a deletion of what it points to would read the whole table, under locks."""

from __future__ import annotations

from importlib.resources import files
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.bootstrap import role_of, schema_of
from loquat_common.migrate import load, migrate
from loquat_events.catalog import SERVICES, Service

from conftest import PASSWORD, Platform
from tests.tenants import Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

FOUND: Final = """
SELECT k.conrelid::regclass::text || ' ' || k.conname AS name, EXISTS (
  SELECT FROM pg_index AS i
  WHERE i.indrelid = k.conrelid AND i.indisvalid
    AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] @> k.conkey AND (i.indkey::int2[])[0:cardinality(k.conkey) - 1] <@ k.conkey
    AND (i.indpred IS NULL OR pg_get_expr(i.indpred, i.indrelid) ~ '^\\([a-z_]+ IS NOT NULL\\)$')) AS indexed
FROM pg_constraint AS k WHERE k.contype = 'f' ORDER BY 1"""
"""Every foreign key, and whether the columns of it are the first of an index, in any order; one that leaves out nulls will do."""


async def unindexed(connection: Connection, *, at_least: int) -> list[str]:
    rows = await connection.fetch(FOUND)
    assert len(rows) >= at_least, "fewer foreign keys than there were: does the test still look at them?"
    return [r["name"] for r in rows if not r["indexed"]]


async def migrated(platform: Platform, service: Service) -> None:
    migrations = load(files(f"loquat_{schema_of(service)}.migrations"))
    connection = await platform.cluster.connect(platform.database, user=role_of(service), password=PASSWORD)
    assert await migrate(connection, schema=schema_of(service), component=service, migrations=migrations)
    await connection.close()


def owns_tables(service: Service) -> bool:
    return files(f"loquat_{schema_of(service)}").joinpath("migrations").is_dir()


async def test_every_foreign_key_of_the_control_database_has_an_index(platform: Platform) -> None:
    owners: list[Service] = [s for s in SERVICES if owns_tables(s)]
    assert len(owners) >= 5
    for service in owners:
        await migrated(platform, service)
    root = await platform.cluster.connect(platform.database)
    assert await unindexed(root, at_least=5) == []
    await root.close()


async def test_every_foreign_key_of_a_project_database_has_an_index(tenants: Tenants) -> None:
    project = await tenants.project()
    assert await unindexed(await project.root(), at_least=7) == []
    await tenants.drop(project)


async def test_every_foreign_key_of_a_tenant_clusters_operations_has_an_index(tenants: Tenants) -> None:
    root = await tenants.cluster.connect()
    assert await unindexed(root, at_least=0) == []
    await root.close()


async def test_one_without_an_index_would_be_found(tenants: Tenants) -> None:
    root = await tenants.cluster.connect()
    await root.execute(
        "BEGIN; CREATE TABLE a (x int, y int, PRIMARY KEY (x, y)); CREATE TABLE b (y int, x int, FOREIGN KEY (x, y) REFERENCES a)"
    )
    assert await unindexed(root, at_least=1) == ["b b_x_y_fkey"]
    await root.execute("CREATE INDEX ON b (y)")
    assert await unindexed(root, at_least=1) == ["b b_x_y_fkey"]
    await root.execute("CREATE INDEX ON b (y, x)")
    assert await unindexed(root, at_least=1) == []
    await root.execute("ROLLBACK")
    await root.close()
