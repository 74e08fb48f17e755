"""Names that are data, migrations applied once, few connections to many databases."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from loquat_common import service
from loquat_common.db import DEEPEST, DatabaseAway, ProjectPools, WrongDatabase, as_service, decode
from loquat_common.lifecycle import Lifecycle
from loquat_common.migrate import Migration, MigrationError, migrate
from loquat_common.service import Service, finish
from loquat_common.settings import ClusterAddress, ServiceSettings
from loquat_common.sql import LONGEST, Ident, NotAnIdentifier, compose
from loquat_embedded.postgres import Cluster
from pydantic import SecretStr

from conftest import Platform

NAMES = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=30).filter(lambda s: len(s.encode()) <= LONGEST)
WHOAMI = (
    "CREATE SCHEMA loquat; CREATE FUNCTION loquat.whoami() RETURNS TABLE (project text, epoch bigint) LANGUAGE sql"
    " AS $$ SELECT 'p1'::text, 1::bigint $$"
)


@pytest.mark.parametrize("levels", [1000, 1025, 20_000])
def test_a_jsonb_is_read_however_deep_it_is(levels: int) -> None:
    read = decode('{"s": "[{\\"\\\\", "deep": ' + '[{"x": ' * (levels // 2) + "1" + "}]" * (levels // 2) + ', "after": [[], {"y": "}"}]}')
    assert (read["s"], read["after"], list(read)) == ('[{"\\', [[], {"y": "}"}], ["s", "deep", "after"])
    found: Any = read["deep"]
    there = 1
    while found not in (1, None):
        found, there = found["x"] if "x" in found else found[0], there + 1
    assert (found, there) == ((1, levels + 1) if levels == 1000 else (None, DEEPEST))


@pytest.mark.promise("P5")
@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(NAMES)
async def test_a_name_of_any_hostility_is_the_same_name_to_the_server(platform_cluster: Cluster, name: str) -> None:
    connection = await platform_cluster.connect()
    try:
        assert await connection.fetchval(f"SELECT 1 AS {Ident(name)}") == 1
        statement = await connection.prepare(f"SELECT 1 AS {Ident(name)}")
        assert statement.get_attributes()[0].name == name
        quoted = await connection.fetchval("SELECT quote_ident($1)", name)
        assert str(Ident(name)) in {quoted, f'"{quoted}"'}  # the server leaves plain names bare
    finally:
        await connection.close()


@pytest.mark.parametrize("name", ["", "a\0b", "x" * 64, "\N{SNOWMAN}" * 22, "\ud800"])
def test_what_cannot_be_a_name_is_refused(name: str) -> None:
    with pytest.raises(NotAnIdentifier):
        Ident(name)


def test_only_names_are_composed() -> None:
    assert compose("DROP TABLE {t}", t=Ident("s").dot('a"b; --')) == 'DROP TABLE "s"."a""b; --"'
    with pytest.raises(KeyError):
        compose("DROP TABLE {t}")


ONE = Migration(1, "pre", "one", "CREATE TABLE a (n int); INSERT INTO a VALUES (1)")
TWO = Migration(2, "pre", "two", "INSERT INTO a VALUES (2)")


async def test_migrations_are_applied_once_in_order_also_by_two_at_once(platform: Platform) -> None:
    pool = await platform.pool("connector")

    async def run() -> list[str]:
        async with pool.acquire() as connection:
            return await migrate(connection, schema="connector", component="test", migrations=[ONE, TWO])

    answers = await asyncio.gather(run(), run(), run())
    assert sorted(answers, key=len) == [[], [], ["0001_pre_one", "0002_pre_two"]]
    assert await pool.fetchval("SELECT array_agg(n ORDER BY n) FROM a") == [1, 2]


async def test_a_migration_that_was_changed_or_comes_too_early_is_refused_and_a_broken_one_leaves_nothing(platform: Platform) -> None:
    pool = await platform.pool("connector")
    async with pool.acquire() as connection:
        await migrate(connection, schema="connector", component="test", migrations=[TWO_ALONE])
        changed = Migration(2, "pre", "two", "SELECT 2")
        with pytest.raises(MigrationError, match="was changed"):
            await migrate(connection, schema="connector", component="test", migrations=[changed])
        with pytest.raises(MigrationError, match="comes before"):
            await migrate(connection, schema="connector", component="test", migrations=[ONE, TWO_ALONE])
        broken = Migration(3, "pre", "three", "CREATE TABLE half (n int); SELECT nothing_of_the_kind()")
        with pytest.raises(Exception, match="nothing_of_the_kind"):
            await migrate(connection, schema="connector", component="test", migrations=[TWO_ALONE, broken])
        assert await connection.fetchval("SELECT to_regclass('connector.half')") is None


AFTER = Migration(1, "post", "after", "UPDATE a SET n = n * 10")


async def test_what_old_code_would_miss_waits_until_it_is_asked_for_except_where_there_is_no_old_code(platform: Platform) -> None:
    pool = await platform.pool("connector")

    async def run(component: str, migrations: list[Migration], *, post: bool) -> list[str]:
        async with pool.acquire() as connection:
            return await migrate(connection, schema="connector", component=component, migrations=migrations, post=post)

    assert await run("test", [ONE], post=False) == ["0001_pre_one"]
    assert await run("test", [ONE, AFTER, TWO], post=False) == ["0002_pre_two"]
    assert await run("test", [ONE, AFTER, TWO], post=False) == []
    assert await run("test", [ONE, AFTER, TWO], post=True) == ["0001_post_after"]
    assert await pool.fetchval("SELECT array_agg(n ORDER BY n) FROM a") == [10, 20]
    await pool.execute("DROP TABLE a")
    assert await run("fresh", [ONE, AFTER, TWO], post=False) == ["0001_pre_one", "0001_post_after", "0002_pre_two"]


async def test_a_service_keeps_its_post_migrations_waiting_and_applies_them_when_told(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ServiceSettings(platform_dsn=SecretStr(platform.dsn("connector")))

    def load(_folder: object) -> list[Migration]:
        return [ONE, AFTER]

    monkeypatch.setattr(service, "load", load)
    pool = await platform.pool("connector")
    async with pool.acquire() as connection:
        await migrate(connection, schema="connector", component="connector", migrations=[ONE])
    async with Lifecycle(1) as life:
        await Service.start(life, settings, "connector", "loquat_connector.migrations")
    assert await pool.fetchval("SELECT n FROM a") == 1
    await finish("connector", settings)
    assert await pool.fetchval("SELECT n FROM a") == 10


TWO_ALONE = Migration(2, "pre", "two", "SELECT 1")


@pytest.fixture
async def pools(platform_cluster: Cluster) -> AsyncGenerator[ProjectPools]:
    root = await platform_cluster.connect()
    for name in ("pool_one", "pool_two"):
        await root.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        await root.execute(f"CREATE DATABASE {name}")
        inside = await platform_cluster.connect(name)
        await inside.execute(WHOAMI)
        await inside.close()
    address = ClusterAddress(host=platform_cluster.host, port=platform_cluster.port, password=SecretStr(platform_cluster.password))
    made = ProjectPools(as_service({"c": address}, "postgres"), cap=2, per_project=2, idle=0.01, wait=0.3)
    yield made
    await made.close()
    for name in ("pool_one", "pool_two"):
        await root.execute(f"DROP DATABASE {name} WITH (FORCE)")
    await root.close()


async def test_connections_are_few_are_used_again_and_make_room_for_others(pools: ProjectPools) -> None:
    async with pools.acquire("c", "pool_one", project="p1", epoch=1) as first:
        first_pid = await first.fetchval("SELECT pg_backend_pid()")
        assert await first.fetchval("SHOW search_path") == "pg_catalog, pg_temp"
    async with pools.acquire("c", "pool_one", project="p1", epoch=1) as again:
        assert await again.fetchval("SELECT pg_backend_pid()") == first_pid
        async with pools.acquire("c", "pool_two", project="p1", epoch=1):
            with pytest.raises(DatabaseAway, match="no connection came free"):
                async with pools.acquire("c", "pool_one", project="p1", epoch=1):
                    pass
    async with pools.acquire("c", "pool_two", project="p1", epoch=1), pools.acquire("c", "pool_two", project="p1", epoch=1):
        pass
    assert pools._open <= 2


async def test_a_database_of_another_project_or_epoch_is_not_used(pools: ProjectPools) -> None:
    for project, epoch in (("p2", 1), ("p1", 2)):
        with pytest.raises(WrongDatabase):
            async with pools.acquire("c", "pool_one", project=project, epoch=epoch):
                pass
    assert pools._open == 0


async def test_a_cluster_or_database_that_is_away_is_said_to_be_away(pools: ProjectPools) -> None:
    for cluster, database in (("nowhere", "pool_one"), ("c", "no_such_database")):
        with pytest.raises(DatabaseAway):
            async with pools.acquire(cluster, database, project="p1", epoch=1):
                pass


async def test_an_interrupted_transaction_leaves_nothing_behind(pools: ProjectPools) -> None:
    with pytest.raises(ZeroDivisionError):
        async with pools.acquire("c", "pool_one", project="p1", epoch=1) as connection:
            await connection.execute("BEGIN")
            await connection.execute("CREATE TABLE public.left_behind (n int)")
            raise ZeroDivisionError
    async with pools.acquire("c", "pool_one", project="p1", epoch=1) as connection:
        assert await connection.fetchval("SELECT to_regclass('public.left_behind')") is None


async def test_a_wrong_argument_is_the_callers_mistake_and_no_lost_database(pools: ProjectPools) -> None:
    with pytest.raises(asyncpg.DataError, match="invalid input"):
        async with pools.acquire("c", "pool_one", project="p1", epoch=1) as connection:
            await connection.fetchval("SELECT $1::int", "seven")
