from __future__ import annotations
import asyncio, time, asyncpg, pytest
from loquat_schema_manager.adapters.cluster import bootstrap_cluster
from loquat_schema_manager.adapters import upgrades
from tests.tenants import Project, Tenants


async def test_war(tenants: Tenants, project: Project) -> None:
    root = await tenants.cluster.connect()
    stop = False

    async def war(kind):
        n = k = 0
        err = None
        while not stop:
            try:
                c = await tenants.connect(project.database, project.names.login(kind), "a-password-of-tests")
            except Exception as e:
                await asyncio.sleep(0.005)
                k += 1
                continue
            try:
                while not stop:
                    await c.execute(
                        "SET idle_in_transaction_session_timeout = 0; SET transaction_timeout = 0; BEGIN; GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify TO PUBLIC"
                    )
                    n += 1
                    await asyncio.sleep(0.1)
                    await c.execute("COMMIT")
            except Exception as e:
                k += 1
                err = e
        print("LAST", repr(err))
        print("war", n, k)

    AGE = """
DROP EVENT TRIGGER limit_lock_wait;
DROP SCHEMA loquat_walls CASCADE;
GRANT SELECT ON pg_catalog.pg_shdepend, pg_catalog.pg_db_role_setting TO PUBLIC;
GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify, pg_catalog.pg_advisory_lock(bigint) TO PUBLIC"""
    r = await project.root()
    await r.execute(AGE)
    tasks = [asyncio.create_task(war(k)) for k in ("bot", "editor") for _ in range(2)]
    await asyncio.sleep(0.5)
    for _ in range(3):
        t = time.time()
        left = await bootstrap_cluster(tenants.cluster.connect, {}, all_again=True)
        print("LEFT", left, time.time() - t)
    stop = True
    await asyncio.gather(*tasks)
    await root.close()


async def test_what_tenant_can(tenants: Tenants, project: Project) -> None:
    for kind in ("bot", "editor", "direct"):
        try:
            c = await project.login(kind)
        except Exception as e:
            print(kind, e)
            continue
        for s in (
            "CREATE SCHEMA loquat_walls",
            "CREATE SCHEMA extensions2",
            "CREATE SCHEMA abc",
            "CREATE FUNCTION pg_temp.x() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            "CREATE EVENT TRIGGER zz ON ddl_command_start EXECUTE FUNCTION loquat_walls.limit_lock_wait()",
            "COMMENT ON DATABASE %s IS 'x'" % project.database,
            "CREATE TABLE st (a int); INSERT INTO st VALUES (1); SELECT pg_restore_relation_stats('schemaname','public','relname','st','reltuples', 3e38::real, 'relpages', 1)",
            "SELECT reltuples FROM pg_class WHERE relname='st'",
            "ALTER ROLE CURRENT_USER SET default_transaction_read_only = off",
        ):
            try:
                print(kind, s[:60], await c.fetch(s) if s.startswith("SELECT") else await c.execute(s))
            except Exception as e:
                print(kind, s[:60], "ERR", e)
