"""Databases that are behind are brought forward: few at a time, never waiting long behind their tenants, shared by replicas."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
import pytest
from aiohttp import web
from loquat_common.client import InternalClient
from loquat_common.lifecycle import Server
from loquat_common.migrate import Migration
from loquat_common.settings import ClusterAddress
from loquat_common.tokens import Signer, new_key
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import ProjectListed, ProjectState
from loquat_schema_manager.adapters.cluster import system_migrations
from loquat_schema_manager.adapters.databases import ProjectShapes, opener
from loquat_schema_manager.adapters.squatters import Squatters
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.domain.shapes import Failing, Forward, Gone, Hindered, Hindrance, Outcome, Target
from loquat_schema_manager.handlers.sweep import Sweep
from pydantic import SecretStr

from tests.system.world import until
from tests.tenants import PASSWORD, Desk, Project, Tenants, message

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


@pytest.fixture
async def project(tenants: Tenants) -> AsyncGenerator[Project]:
    """A project of its own for one test: these change its schema."""
    made = await tenants.project()
    yield made
    await tenants.drop(made)


NEXT = "ALTER TABLE public.contacts ADD COLUMN pronouns text; CREATE INDEX contacts_pronouns__lq ON public.contacts (pronouns)"


def release(sql: str = NEXT) -> list[Migration]:
    """The system schema of the release after this one."""
    now = system_migrations()
    return [*now, Migration(now[-1].number + 1, "pre", "next", sql)]


def clusters(tenants: Tenants) -> dict[str, ClusterAddress]:
    return {"tenants": ClusterAddress(host=tenants.cluster.host, port=tenants.cluster.port, password=SecretStr(PASSWORD))}


async def nothing_to_free(_target: Target, _inside: Connection) -> int:
    return 0


def shapes(tenants: Tenants, migrations: Sequence[Migration] | None = None) -> ProjectShapes:
    return ProjectShapes(opener(clusters(tenants)), migrations or release(), nothing_to_free, lambda: 0.0)


def target_of(project: Project) -> Target:
    return Target("tenants", project.database, project.project_id)


def listed(project: Project, state: ProjectState = "ready") -> tuple[str, AnyEvent]:
    data = ProjectListed(
        project_id=project.project_id, organization_id="o", name="p", state=state, cluster="tenants", database=project.database
    )
    event = Event[Payload].of(
        data,
        id=fact_id("listed", project.project_id),
        source="/provisioner",
        time=datetime.now(UTC),
        project=project.project_id,
        lane="project",
    )
    return f"{project.project_id}:project", event


@dataclass(slots=True)
class Attempts:
    """What was tried, in order."""

    shapes: ProjectShapes
    targets: list[Target] = field(default_factory=list[Target])

    async def attempt(self, target: Target) -> Outcome:
        self.targets.append(target)
        return await self.shapes.bring_forward(target)


async def columns(project: Project) -> set[str]:
    root = await project.root()
    rows = await root.fetch("SELECT attname FROM pg_attribute WHERE attrelid = 'public.contacts'::regclass AND attnum > 0")
    return {r["attname"] for r in rows}


async def test_a_ready_project_is_noted_once_and_a_current_one_needs_nothing_more(tenants: Tenants, project: Project, store: Store) -> None:
    attempts = Attempts(shapes(tenants, system_migrations()))
    sweep = Sweep(store, attempts.shapes.version, attempts.attempt, 2)
    sweep.listed(*listed(project, "creating"))
    assert await sweep.once() == 0
    sweep.listed(*listed(project))
    sweep.listed(*listed(project))
    assert await sweep.once() == 1
    assert await sweep.once() == 0
    progress = await store.progress(attempts.shapes.version)
    assert (progress.total, progress.behind, progress.failing) == (1, 0, ())
    assert await store.outlook(attempts.shapes.version) == (0, None)


async def test_a_running_sweep_wakes_when_the_directory_changes(tenants: Tenants, project: Project, store: Store) -> None:
    sweep = Sweep(store, shapes(tenants).version, shapes(tenants).bring_forward, 2)
    running = asyncio.create_task(sweep.run())
    sweep.listed(*listed(project))

    async def done() -> bool:
        progress = await store.progress(shapes(tenants).version)
        return (progress.total, progress.behind) == (1, 0)

    await until(done, "the project is brought forward", 10)
    key, _ = listed(project)
    sweep.listed(key, None)

    async def forgotten() -> bool:
        return (await store.progress(shapes(tenants).version)).total == 0

    await until(forgotten, "the project is forgotten", 10)
    running.cancel()
    await asyncio.wait([running])
    assert running.cancelled()


async def test_two_replicas_bring_every_database_forward_once(tenants: Tenants, store: Store) -> None:
    projects = [await tenants.project() for _ in range(6)]
    attempts = Attempts(shapes(tenants))
    replicas = [Sweep(store, attempts.shapes.version, attempts.attempt, 2) for _ in range(2)]
    for project in projects:
        for replica in replicas:
            replica.listed(*listed(project))
    await asyncio.gather(*(r.once() for r in replicas))
    assert sorted(t.database for t in attempts.targets) == sorted(p.database for p in projects)
    for project in projects:
        assert "pronouns" in await columns(project)
        await tenants.drop(project)


async def test_work_goes_on_during_a_migration_and_after_it(tenants: Tenants, project: Project, desk: Desk) -> None:
    """Old code on the new schema: the functions do not mind a column more."""
    before, after = message("user_id:u1"), message("user_id:u1")
    await desk.run(before)
    assert await shapes(tenants).bring_forward(target_of(project)) == Forward(shapes(tenants).version)
    await desk.run(after, replies=[{"type": "text", "text": "x"}])
    assert (await desk.begin(before))["todo"] == "done"


@pytest.mark.promise("P5")
async def test_a_tenants_views_do_not_hold_up_an_added_column(tenants: Tenants, project: Project) -> None:
    editor = await project.login("editor")
    await editor.execute("CREATE VIEW report AS SELECT * FROM public.contacts")
    await editor.execute("CREATE MATERIALIZED VIEW counts AS SELECT name, count(*) FROM public.contacts GROUP BY name")
    assert isinstance(await shapes(tenants).bring_forward(target_of(project)), Forward)


@pytest.mark.promise("P5")
async def test_a_tenants_session_that_holds_a_lock_is_ended_and_others_are_not(tenants: Tenants, project: Project, desk: Desk) -> None:
    sitting, resting = await project.login("bot"), await project.login("direct")
    await resting.execute("BEGIN")
    await sitting.execute("BEGIN")
    await sitting.execute("SELECT count(*) FROM public.contacts")
    migration = asyncio.ensure_future(shapes(tenants).bring_forward(target_of(project)))
    slowest, loop = 0.0, asyncio.get_running_loop()
    while not migration.done():
        start = loop.time()
        await desk.record(message("user_id:u1"))
        slowest = max(slowest, loop.time() - start)
    assert isinstance(migration.result(), Forward)
    assert slowest < 1.0, "the platform waits behind a migration no longer than its lock time-out"
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await sitting.execute("SELECT 1")
    assert await resting.fetchval("SELECT 1") == 1


@pytest.mark.promise("P5")
async def test_a_grant_in_vain_on_a_system_table_does_not_hold_up_a_migration(tenants: Tenants, project: Project) -> None:
    """It rewrites the table's row in pg_class, with no lock on the table that would tell of it."""
    sitting = await project.login("bot")
    await sitting.execute("BEGIN; GRANT SELECT ON public.contacts TO PUBLIC")
    assert isinstance(await shapes(tenants).bring_forward(target_of(project)), Forward)
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.AdminShutdownError)):
        await sitting.execute("SELECT 1")


@pytest.mark.promise("P4")
async def test_a_lock_of_the_platforms_own_is_respected_and_the_database_left_for_later(
    tenants: Tenants, project: Project, store: Store
) -> None:
    holder = await project.root()
    await holder.execute("BEGIN; LOCK TABLE public.contacts IN ACCESS SHARE MODE")
    sweep = Sweep(store, shapes(tenants).version, shapes(tenants).bring_forward, 1)
    sweep.listed(*listed(project))
    assert await sweep.once() == 1
    assert await holder.fetchval("SELECT 1") == 1
    (failing,) = (await store.progress(shapes(tenants).version)).failing
    assert (failing.target, failing.attempts, failing.reason) == (target_of(project), 1, "its tables are locked")
    behind, due = await store.outlook(shapes(tenants).version)
    assert behind == 1
    assert due is not None
    assert 8 < due <= 10
    await holder.execute("COMMIT")
    assert isinstance(await shapes(tenants).bring_forward(target_of(project)), Forward)


async def test_a_migration_that_fails_on_one_database_does_not_keep_the_others(tenants: Tenants, store: Store) -> None:
    broken, sound = await tenants.project(), await tenants.project()
    editor = await broken.login("editor")
    await editor.execute("CREATE TABLE public.contacts_pronouns__lq ()")
    version = shapes(tenants).version
    sweep = Sweep(store, version, shapes(tenants).bring_forward, 2)
    for project in (broken, sound):
        sweep.listed(*listed(project))
    assert await sweep.once() == 2
    failing = (await store.progress(version)).failing
    assert [(f.target, f.version, f.attempts) for f in failing] == [(target_of(broken), 0, 1)]
    assert failing[0].reason.startswith("a migration failed there: DuplicateTableError")
    assert "pronouns" not in await columns(broken), "a migration that fails leaves nothing"
    assert "pronouns" in await columns(sound)
    for project in (broken, sound):
        await tenants.drop(project)


@asynccontextmanager
async def provisioner_with(tenants: Tenants, project: Project, asked: list[str]) -> AsyncGenerator[InternalClient]:
    """What the provisioner answers to the question for the editor's login."""

    async def credentials(request: web.Request) -> web.Response:
        asked.append(request.path)
        cluster = tenants.cluster
        login = {"host": cluster.host, "port": cluster.port, "database": project.database, "user": project.names.login("editor")}
        return web.json_response({**login, "password": PASSWORD})

    app = web.Application()
    app.router.add_get("/internal/projects/{id}/credentials/editor", credentials)
    server = Server(app, "127.0.0.1", 0)
    await server.start()
    client = InternalClient(f"http://127.0.0.1:{server.port}", Signer("schema-manager", new_key()[0]), "provisioner")
    await client.start()
    try:
        yield client
    finally:
        await client.stop()
        await server.stop()


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    "squat",
    [
        "CREATE TABLE public.mine (id int); CREATE INDEX contacts_pronouns__lq ON public.mine (id)",
        "CREATE TABLE public.contacts_pronouns__lq ()",
        "CREATE VIEW public.contacts_pronouns__lq AS SELECT 1 AS one",
        "CREATE SEQUENCE public.contacts_pronouns__lq",
        "CREATE TYPE public.contacts_pronouns__lq AS (a int)",
        "CREATE MATERIALIZED VIEW public.contacts_pronouns__lq AS SELECT 1 AS one",
    ],
    ids=["index", "table", "view", "sequence", "type", "materialized view"],
)
async def test_a_name_that_a_tenant_took_is_freed_through_the_editors_login(tenants: Tenants, project: Project, squat: str) -> None:
    await (await project.login("direct")).execute(squat)
    asked: list[str] = []
    async with provisioner_with(tenants, project, asked) as client:
        subject = ProjectShapes(opener(clusters(tenants)), release(), Squatters(client).rename, lambda: 0.0)
        assert isinstance(await subject.bring_forward(target_of(project)), Forward)
    assert asked == [f"/internal/projects/{project.project_id}/credentials/editor"]
    root = await project.root()
    rows = await root.fetch(
        "SELECT relname, relowner::regrole::text AS owner FROM pg_class WHERE relname ~ '(squatter_|contacts_pronouns__lq)'"
    )
    assert {r["relname"].partition("_")[0]: r["owner"].strip('"') for r in rows} == {
        "squatter": project.names.owner,
        "contacts": "loquat_system",
    }


async def test_a_database_that_is_gone_is_forgotten_and_one_of_an_unknown_cluster_is_tried_again(
    tenants: Tenants, project: Project, store: Store
) -> None:
    subject = shapes(tenants)
    assert await subject.bring_forward(Target("tenants", "p_000000000000", "x")) == Gone()
    away = await subject.bring_forward(Target("elsewhere", project.database, "x"))
    assert isinstance(away, Hindered)
    assert away.hindrance is Hindrance.AWAY
    await store.note([Target("tenants", "p_000000000000", "x"), Target("elsewhere", "p_1", "y")])
    sweep = Sweep(store, subject.version, subject.bring_forward, 1)
    assert await sweep.once() == 2
    failing: tuple[Failing, ...] = (await store.progress(subject.version)).failing
    assert [f.target.cluster for f in failing] == ["elsewhere"]
    sweep.listed("y:project", None)
    await sweep.once()
    assert (await store.progress(subject.version)).total == 0


async def test_a_migration_that_was_changed_after_it_ran_is_refused(tenants: Tenants, project: Project) -> None:
    first, *rest = system_migrations()
    changed = [Migration(first.number, first.phase, first.name, first.sql + "\n-- changed"), *rest]
    outcome = await shapes(tenants, changed).bring_forward(target_of(project))
    assert outcome == Hindered(Hindrance.BROKEN, "0001_pre_tables was changed after it had been applied")
