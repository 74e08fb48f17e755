"""The rules of the system schema, read from the catalogs of a real project database."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path
from uuid import uuid4

import asyncpg
import pytest
from loquat_common.sql import Ident, compose
from loquat_embedded.binaries import programs
from loquat_schema_manager.adapters.cluster import bootstrap_cluster, build_template, migrate_system, system_migrations

from tests.tenants import PASSWORD, TENANT_SERVICES, Project, Tenants

_UNINDEXED = """
SELECT k.conrelid::regclass::text, k.conname FROM pg_constraint AS k
WHERE k.contype = 'f' AND k.connamespace::regnamespace::text IN ('public', 'loquat') AND NOT EXISTS (
  SELECT FROM pg_index AS i WHERE i.indrelid = k.conrelid AND i.indkey[0] = k.conkey[1] AND cardinality(k.conkey) = 1)"""

_CALLERS = """
SELECT p.proname, coalesce((SELECT array_agg(a.grantee::regrole::text ORDER BY 1) FROM aclexplode(p.proacl) AS a WHERE a.grantee <> p.proowner), '{}') AS callers
FROM pg_proc AS p WHERE p.pronamespace = 'loquat'::regnamespace"""


async def test_every_foreign_key_has_an_index(project: Project) -> None:
    root = await project.root()
    assert await root.fetch(_UNINDEXED) == []
    assert await root.fetchval("SELECT count(*) FROM pg_constraint WHERE contype = 'f'") >= 7


async def test_every_index_of_the_platform_in_public_ends_in_lq(project: Project) -> None:
    root = await project.root()
    names = [
        r["relname"]
        for r in await root.fetch(
            "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind = 'i' AND relowner = 'loquat_system'::regrole"
        )
    ]
    assert len(names) >= 9
    assert [n for n in names if not n.endswith("__lq")] == []


@pytest.mark.promise("P5")
async def test_each_function_has_exactly_the_callers_that_the_design_names(project: Project) -> None:
    root, owner = await project.root(), project.names.owner
    found = {r["proname"]: set(r["callers"]) for r in await root.fetch(_CALLERS)}
    runner, log = "loquat_bot_runner", "loquat_conversation_log"
    assert {name: callers for name, callers in found.items() if callers} == {
        "record_inbound": {runner, log},
        "begin_run": {runner},
        "commit_run": {runner},
        "touched_by": {runner},
        "clear_outbox": {runner},
        "record_result": {owner},
        "record_outbound": {log},
        "apply_receipts": {log},
        "events_of": {runner},
        "conversations_of": {runner},
        "merge_contacts": {log},
        "erase_contact": {log},
        "ledger": {runner, log},
        "whoami": {"loquat_service"},
        "open_project": {"loquat_provisioner"},
        "renew_project": {"loquat_provisioner"},
        "name_bot": {"loquat_provisioner"},
        **{name: {runner} for name in ("context_of", "configure", "unconfigure", "configuration", "secrets_changed")},
        **{name: {runner} for name in ("timed_of", "timers_armed", "clear_sends")},
        **{name: {runner} for name in ("say_now", "unsaid", "clear_said")},
        **{name: {runner} for name in ("begin_event", "following", "fail_event", "ask_of", "holder_of", "settings", "change_settings")},
        **{name: {runner} for name in ("sync_automations", "automations", "turn_automation", "automation_history")},
        **{name: {owner} for name in ("memory_get", "memory_set", "memory_increment", "memory_delete")},
    }


@pytest.mark.promise("P5")
async def test_no_function_looks_anywhere_but_in_the_catalog_for_a_name(project: Project) -> None:
    """A body that is parsed when it is made (prosqlbody) is bound to what it names; all others say where to look."""
    root = await project.root()
    loose = await root.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'loquat'::regnamespace AND prosqlbody IS NULL"
        " AND NOT coalesce(proconfig, '{}') @> ARRAY['search_path=pg_catalog, pg_temp']"
    )
    assert loose == []
    owners = await root.fetch("SELECT DISTINCT proowner::regrole::text FROM pg_proc WHERE pronamespace = 'loquat'::regnamespace")
    assert [r[0] for r in owners] == ["loquat_system"]


@pytest.mark.promise("P5")
async def test_a_project_may_read_three_tables_call_its_bots_five_functions_and_nothing_else(project: Project) -> None:
    root = await project.root()
    rows = await root.fetch(
        "SELECT c.oid::regclass::text AS name, p.kind FROM pg_class AS c, unnest(ARRAY['SELECT', 'INSERT', 'UPDATE', 'DELETE', 'TRUNCATE',"
        " 'REFERENCES', 'TRIGGER', 'MAINTAIN']) AS p(kind) WHERE c.relowner = 'loquat_system'::regrole AND c.relkind = 'r'"
        " AND has_table_privilege($1, c.oid, p.kind) ORDER BY 1",
        project.names.owner,
    )
    assert [tuple(r) for r in rows] == [("contacts", "SELECT"), ("conversations", "SELECT"), ("messages", "SELECT")]
    functions = await root.fetch(
        "SELECT proname FROM pg_proc WHERE pronamespace = 'loquat'::regnamespace AND has_function_privilege($1, oid, 'EXECUTE')",
        project.names.owner,
    )
    assert {r["proname"] for r in functions} == {"record_result", "memory_get", "memory_set", "memory_increment", "memory_delete"}
    assert not await root.fetchval("SELECT has_database_privilege($1, current_database(), 'TEMPORARY, CREATE')", project.names.owner)


@pytest.mark.promise("P5")
async def test_no_row_type_of_the_platforms_can_become_a_tenants_column(project: Project) -> None:
    """Such a column would block every later ALTER TABLE of that table."""
    root = await project.root()
    usable = await root.fetch(
        "SELECT t.typname FROM pg_type AS t WHERE t.typowner = 'loquat_system'::regrole AND t.typrelid <> 0 AND has_type_privilege($1, t.oid, 'USAGE')",
        project.names.owner,
    )
    assert usable == []


async def _fresh(tenants: Tenants, *steps: int) -> str:
    """A database made of loquat_base by the system's migrations, up to each of `steps` in turn; its name."""
    name, manager = f"shape_{uuid4().hex[:12]}", tenants.as_service("schema-manager")
    admin = await manager("postgres")
    await admin.execute(compose("CREATE DATABASE {name} TEMPLATE loquat_base", name=Ident(name)))
    await admin.close()
    inside = await manager(name)
    for step in steps:
        await migrate_system(inside, system_migrations()[:step])
    await inside.close()
    return name


async def _dump(tenants: Tenants, database: str) -> str:
    """Its schema, rights included, without what differs in every dump."""
    cluster = tenants.cluster
    command = [
        programs() / "pg_dump",
        "-h",
        cluster.host,
        "-p",
        str(cluster.port),
        "-U",
        "postgres",
        "--schema-only",
        "--restrict-key=x",
        database,
    ]
    done = await asyncio.to_thread(
        subprocess.run, command, env={"PGPASSWORD": cluster.password}, capture_output=True, check=True, timeout=60
    )
    return done.stdout.decode()


@pytest.mark.skipif(not Path(programs() / "pg_dump").exists(), reason="this PostgreSQL comes without pg_dump")
async def test_a_database_migrated_step_by_step_is_as_one_made_at_once(tenants: Tenants) -> None:
    last = len(system_migrations())
    names = [await _fresh(tenants, last), await _fresh(tenants, *range(1, last + 1))]
    at_once, by_steps = [await _dump(tenants, name) for name in names]
    assert at_once == by_steps
    assert "CREATE TABLE public.messages" in at_once
    for name in names:
        manager = await tenants.as_service("schema-manager")("postgres")
        await manager.execute(compose("DROP DATABASE {name}", name=Ident(name)))
        await manager.close()


@pytest.mark.promise("P4")
async def test_nobody_enters_a_sealed_template_or_the_base_not_even_its_builder(tenants: Tenants) -> None:
    name = await build_template(tenants.as_service("schema-manager"))
    for database in (name, "loquat_base"):
        for service in TENANT_SERVICES:
            with pytest.raises(asyncpg.PostgresError):
                await tenants.as_service(service)(database)


async def test_a_sealed_template_is_never_touched_again(tenants: Tenants) -> None:
    admin = await tenants.databases.admin()
    look = "SELECT oid, datistemplate, datallowconn FROM pg_database WHERE datname ~ '^loquat_template_'"
    before = await admin.fetch(look)
    await build_template(tenants.as_service("schema-manager"))
    assert await admin.fetch(look) == before


async def test_a_template_whose_building_was_cut_off_is_built_anew(tenants: Tenants) -> None:
    """Of a version that no other test uses: a project is cloned from the newest sealed one."""
    first, manager = system_migrations()[:1], tenants.as_service("schema-manager")
    admin = await manager("postgres")
    await admin.execute("CREATE DATABASE loquat_template_1 TEMPLATE loquat_base")
    assert await build_template(manager, first) == "loquat_template_1"
    row = await admin.fetchrow("SELECT datistemplate, datallowconn FROM pg_database WHERE datname = 'loquat_template_1'")
    assert row is not None
    assert tuple(row) == (True, False)
    await admin.execute("ALTER DATABASE loquat_template_1 IS_TEMPLATE false")
    await admin.execute("DROP DATABASE loquat_template_1")
    await admin.close()


async def test_the_bootstrap_of_a_cluster_may_be_repeated(tenants: Tenants) -> None:
    await bootstrap_cluster(tenants.cluster.connect, {s.replace("-", "_"): PASSWORD for s in TENANT_SERVICES})
    project = await tenants.project()
    await tenants.drop(project)


@pytest.mark.promise("P4")
async def test_no_service_is_a_superuser_or_may_become_one(tenants: Tenants) -> None:
    admin = await tenants.cluster.connect()
    rows = await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^loquat_' AND (rolsuper OR rolreplication OR rolbypassrls)")
    may = await admin.fetch("SELECT rolname FROM pg_roles WHERE rolname ~ '^(loquat|p)_' AND pg_has_role(rolname, 'postgres', 'MEMBER')")
    await admin.close()
    assert rows == may == []
