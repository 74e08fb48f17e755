"""How many rows a table has, whatever became of its statistics."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import TYPE_CHECKING

import pytest
from loquat_common import estimates
from loquat_embedded.postgres import Cluster

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

TABLE = "CREATE TABLE t (id int, word text) WITH (autovacuum_enabled = false)"
FILL = "INSERT INTO t SELECT g, 'a word of some length' FROM generate_series(1, 10000) AS g"


@pytest.fixture
async def databases(platform_cluster: Cluster) -> AsyncGenerator[tuple[Connection, Connection]]:
    """A connection to a fresh database, and one besides it; `estimates_copy` is dropped too."""
    admin = await platform_cluster.connect()
    await admin.execute("CREATE DATABASE estimates")
    inside = await platform_cluster.connect("estimates")
    yield inside, admin
    await inside.close()
    for name in ("estimates", "estimates_copy"):
        await admin.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    await admin.close()


async def done(connection: Connection, *statements: str) -> None:
    """And known to the statistics."""
    for sql in statements:
        await connection.execute(sql)
        await connection.execute("SELECT pg_stat_force_next_flush()")


async def estimate(connection: Connection) -> int:
    pages = "(pg_relation_size(c.oid) / 8192)"
    return await connection.fetchval(f"SELECT {estimates.rows('c', pages)} FROM pg_class AS c WHERE c.oid = 't'::regclass")  # noqa: S608


async def copy(cluster: Cluster, inside: Connection, admin: Connection) -> Connection:
    await inside.close()
    await admin.execute("CREATE DATABASE estimates_copy TEMPLATE estimates")
    return await cluster.connect("estimates_copy")


async def test_the_counters_of_a_table_that_nobody_looked_at_are_believed(databases: tuple[Connection, Connection]) -> None:
    inside, _ = databases
    await done(inside, TABLE)
    assert await estimate(inside) == 0
    await done(inside, FILL)
    assert await estimate(inside) == 10_000
    await done(inside, "UPDATE t SET id = -id", "DELETE FROM t WHERE id < -100")
    assert await estimate(inside) == 100
    await done(inside, "DELETE FROM t")
    assert await estimate(inside) == 0
    await done(inside, FILL, "TRUNCATE t")
    assert await estimate(inside) == 0


async def test_an_old_analyze_does_not_outlive_what_changed_since(databases: tuple[Connection, Connection]) -> None:
    inside, _ = databases
    await done(inside, TABLE, FILL, "ANALYZE t", FILL)
    assert await estimate(inside) == 20_000
    await done(inside, "DELETE FROM t")
    assert await estimate(inside) == 0
    await done(inside, FILL, "VACUUM t", "DELETE FROM t WHERE id > 10")
    assert await estimate(inside) == 10


async def test_a_copy_of_a_database_has_as_many_rows(platform_cluster: Cluster, databases: tuple[Connection, Connection]) -> None:
    await done(databases[0], TABLE, FILL, "ANALYZE t", FILL)
    inside = await copy(platform_cluster, *databases)
    assert 19_000 < await estimate(inside) < 21_000  # by its pages: the second half was never looked at
    await done(inside, "INSERT INTO t SELECT generate_series(1, 5)")
    assert 19_000 < await estimate(inside) < 21_000
    await done(inside, "DELETE FROM t")
    assert await estimate(inside) < 1_000
    await inside.close()


async def test_a_copy_that_nobody_ever_looked_at_is_guessed_by_its_pages(
    platform_cluster: Cluster, databases: tuple[Connection, Connection]
) -> None:
    await done(databases[0], TABLE, FILL)
    inside = await copy(platform_cluster, *databases)
    assert 5_000 < await estimate(inside) < 20_000
    await done(inside, "INSERT INTO t SELECT generate_series(1, 5)")
    assert 5_000 < await estimate(inside) < 20_000
    await inside.close()


async def test_whatever_the_owner_of_a_table_says_of_it_the_estimate_is_a_number_of_rows(databases: tuple[Connection, Connection]) -> None:
    inside, _ = databases
    await done(inside, TABLE, FILL)
    for said in ("3e38", "NaN", "Infinity"):
        lie = f"SELECT pg_restore_relation_stats('schemaname', 'public', 'relname', 't', 'relpages', 1, 'reltuples', '{said}'::real)"
        await done(inside, lie, "SELECT pg_stat_reset()")
        assert 0 <= await estimate(inside) <= 2_000_000_000_000
