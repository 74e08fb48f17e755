"""Backups, restores and clones: what the platform kept comes back whole, nothing of the past is done again, and a kill anywhere is resumed."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
import pytest
from loquat_common.bus.port import Dead, Done, Retry
from loquat_common.db import DatabaseAway
from loquat_events.projects import BackupChanged, CreateProject, DropBackup, ProjectRestored, RestoreBackup, TakeBackup
from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.adapters.reaper import Reaper
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.domain.life import KEPT, Names

from services.provisioner.tests.counter import open_counter
from services.provisioner.tests.workshop import ORGANIZATION, Workshop, delete, gone
from tests.system.world import until
from tests.tenants import Desk, message
from tests.tenants import Project as Tenant

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

BACKUP = [f"provisioner.backup.{p}" for p in ("told", "shut", "copied", "opened")]
RESTORE = [f"provisioner.restore.{p}" for p in ("told", "shut", "copied", "renewed", "swapped", "raised", "opened")]
CLONE = [
    f"provisioner.{p}" for p in ("database.before", "database.after", "open.renewed", "open.opened", "open.after", "starter_bot.after")
]


def take(project: Project, **more: Any) -> TakeBackup:
    return TakeBackup(project_id=project.project_id, backup_id=uuid4(), ordered_by="someone", **more)


def restore(project: Project, backup: UUID) -> RestoreBackup:
    return RestoreBackup(project_id=project.project_id, restore_id=uuid4(), backup_id=backup, ordered_by="someone")


def tenant(shop: Workshop, project: Project) -> Tenant:
    return Tenant(shop.tenants, Names(project.database or ""), project.project_id)


async def lived(shop: Workshop) -> tuple[Project, dict[str, Any]]:
    """A project with a table of its own, a message that was answered, an answer that waits to be sent, an event that waits to be run."""
    project = await shop.project()
    editor = await shop.enter(project, "editor")
    await editor.execute(
        "CREATE TABLE orders (id serial PRIMARY KEY, what text); INSERT INTO orders (what) VALUES ('before');"
        " CREATE FUNCTION twice(n int) RETURNS int LANGUAGE sql RETURN 2 * n; CREATE VIEW few AS SELECT * FROM orders"
    )
    await editor.close()
    here = tenant(shop, project)
    desk, first = await Desk.of(here), message("phone:491700000001", text="hello")
    await desk.run(first, replies=[{"type": "text", "text": "an answer that was not sent"}])
    await desk.begin(message("phone:491700000002", text="not run yet"))
    await here.close()
    return project, first


async def content(shop: Workshop, project: Project) -> dict[str, list[str]]:
    """Rows that matter, as the superuser sees them."""
    assert project.database is not None
    root = await shop.tenants.cluster.connect(project.database)
    try:
        return {
            name: [r["line"] for r in await root.fetch(query)]
            for name, query in {
                "orders": "SELECT what AS line FROM public.orders ORDER BY id",
                "messages": "SELECT coalesce(text, '') || ' ' || status AS line FROM public.messages ORDER BY text",
                "outbox": "SELECT body::text AS line FROM loquat.outbox",
                "open events": "SELECT id::text AS line FROM loquat.events WHERE outcome IS NULL",
                "owners": "SELECT relname || ' ' || relowner::regrole AS line FROM pg_class WHERE relnamespace = 'public'::regnamespace"
                " AND relkind IN ('r', 'v', 'S') UNION ALL SELECT proname || ' ' || proowner::regrole FROM pg_proc WHERE proname = 'twice' ORDER BY 1",
            }.items()
        }
    finally:
        await root.close()


async def more_happens(shop: Workshop, project: Project) -> None:
    editor = await shop.enter(project, "editor")
    await editor.execute("INSERT INTO orders (what) VALUES ('after'); CREATE TABLE later (id int)")
    await editor.close()


async def usable(shop: Workshop, project: Project) -> None:
    """Services find the project and the epoch that the directory says; its logins are its own, with the passwords that the platform keeps."""
    listed = shop.listings(project.project_id)[-1]
    assert listed is not None
    assert (listed.state, listed.database, listed.epoch) == ("ready", project.database, project.epoch)
    assert project.database is not None
    service = await shop.tenants.connect(project.database, "loquat_bot_runner")
    assert tuple(await service.fetchrow("SELECT project, epoch FROM loquat.whoami()") or ()) == (project.project_id, project.epoch)
    await service.close()
    for kind in KEPT:
        login = await shop.enter(project, kind)
        assert await login.fetchval("SELECT current_user") == Names(project.database).owner
        assert await login.fetchval("SHOW search_path") == "public"
        await login.execute("INSERT INTO orders (what) VALUES ('works')")
        await login.close()
    root = await shop.tenants.cluster.connect(project.database)
    access: list[str] = await root.fetchval("SELECT datacl::text[] FROM pg_database WHERE datname = current_database()")
    assert not any(a.startswith("=") for a in access), "nothing is granted to PUBLIC"
    await root.close()
    databases = shop.databases()
    assert await Reaper(databases).sweep(await databases.admin()) == []
    await databases.close()


async def extra(shop: Workshop) -> set[str]:
    """Databases that are no project's."""
    return {n for n in await shop.names() if n[0] in "bro"}


# -- backups


async def test_a_backup_is_a_sealed_copy_and_the_project_goes_on(shop: Workshop) -> None:
    project, _ = await lived(shop)
    before, order = await content(shop, project), take(project, note="before the release")
    service = await shop.tenants.connect(project.database or "", "loquat_conversation_log")
    assert isinstance(await shop.handle(order), Done)
    await gone(service)
    backup = await BackupStore(shop.pool).get(project.project_id, order.backup_id)
    assert backup is not None
    assert (backup.state, backup.epoch, backup.note) == ("kept", 1, "before the release")
    assert (backup.size_bytes or 0) > 8_000_000
    assert await extra(shop) == {backup.database}
    sealed = await shop.root.fetchrow("SELECT datallowconn, datacl::text[] AS acl FROM pg_database WHERE datname = $1", backup.database)
    assert sealed is not None
    assert not sealed["datallowconn"]
    assert not any(a.startswith("=") for a in sealed["acl"])
    assert shop.states(project.project_id)[-2:] == ["creating", "ready"], "services heard of the pause, and of its end"
    assert await content(shop, project) == before
    await usable(shop, project)
    (told,) = [d for d in shop.events(project.project_id) if isinstance(d, BackupChanged)]
    assert (told.backup_id, told.state, told.actor) == (order.backup_id, "kept", "someone")


@pytest.mark.parametrize("point", BACKUP)
async def test_a_kill_of_a_backup_there_is_resumed_and_leaves_one_backup_and_an_open_project(shop: Workshop, point: str) -> None:
    project, _ = await lived(shop)
    order = take(project)
    await shop.killed(order, point)
    outcome = await shop.handle(order)
    assert isinstance(outcome, Done)
    assert len(await extra(shop)) == 1
    await usable(shop, project)
    before = await shop.rows()
    again = await shop.handle(order)
    assert isinstance(again, Done)
    assert [e.id for e in again.publish] == [e.id for e in outcome.publish], "the same fact, not a new one"
    assert await shop.rows() == before


async def test_so_many_backups_are_kept_and_the_oldest_goes(shop: Workshop) -> None:
    project, _ = await lived(shop)
    orders = [take(project) for _ in range(3)]
    for order in orders:
        await shop.handle(order)
    states = {b.backup_id: b.state for b in await BackupStore(shop.pool).of_project(project.project_id, 10)}
    assert [states[o.backup_id] for o in orders] == ["dropped", "kept", "kept"]
    assert len(await extra(shop)) == 2
    assert isinstance(
        await shop.handle(DropBackup(project_id=project.project_id, backup_id=orders[1].backup_id, ordered_by="someone")), Done
    )
    assert len(await extra(shop)) == 1
    told = [(d.backup_id, d.state) for d in shop.events(project.project_id) if isinstance(d, BackupChanged) and d.state == "dropped"]
    assert told == [(o.backup_id, "dropped") for o in orders[:2]]


async def test_whoever_is_in_the_middle_of_something_may_end_it_before_the_copy(shop: Workshop) -> None:
    project, _ = await lived(shop)
    bot = await shop.enter(project, "bot")
    await bot.execute("BEGIN; INSERT INTO orders (what) VALUES ('half')")
    shop.patience = 10
    taking = asyncio.create_task(shop.handle(take(project)))

    async def told() -> bool:
        return shop.states(project.project_id)[-1] == "creating"

    await until(told, "the pause is told")
    await bot.execute("COMMIT")
    assert isinstance(await taking, Done)
    assert (await content(shop, project))["orders"] == ["before", "half"]
    bot.terminate()


@pytest.mark.promise("P4")
async def test_a_tenant_who_never_ends_cannot_hold_up_a_backup(shop: Workshop) -> None:
    project, _ = await lived(shop)
    bot = await shop.enter(project, "bot")
    await bot.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")
    shop.patience = 0.2
    assert isinstance(await shop.handle(take(project)), Done)
    await gone(bot)
    await usable(shop, project)


async def test_a_backup_that_cannot_be_made_is_shown_with_its_reason_and_the_project_is_open(shop: Workshop) -> None:
    """A superuser's session cannot be ended by us."""
    project, _ = await lived(shop)
    root, order = await shop.tenants.cluster.connect(project.database or ""), take(project)
    assert isinstance(await shop.handle(order), Retry)
    assert isinstance(await shop.handle(order, attempts=2), Done)
    await root.close()
    backup = await BackupStore(shop.pool).get(project.project_id, order.backup_id)
    assert backup is not None
    assert (backup.state, backup.reason) == ("failed", "somebody is still connected to the database")
    assert await extra(shop) == set()
    await usable(shop, project)


async def test_a_cluster_that_is_away_defers_a_backup_without_end(shop: Workshop) -> None:
    project, _ = await lived(shop)
    order = take(project)
    shop.away = True
    with pytest.raises(DatabaseAway):
        await shop.handle(order)
    shop.away = False
    assert isinstance(await shop.handle(order), Done)
    await usable(shop, project)


async def test_a_deleted_project_leaves_none_of_its_backups_behind(shop: Workshop) -> None:
    project, _ = await lived(shop)
    order = take(project)
    await shop.handle(order)
    await shop.killed(restore(project, order.backup_id), "provisioner.restore.copied")
    assert await shop.handle(delete(project.project_id)) == Done()
    assert await shop.cluster() == []


# -- restores


async def kept(shop: Workshop) -> tuple[Project, UUID, dict[str, list[str]]]:
    """A project that went on after its backup."""
    project, _ = await lived(shop)
    order, before = take(project), await content(shop, project)
    await shop.handle(order)
    await more_happens(shop, project)
    return project, order.backup_id, before


async def restored(shop: Workshop, project: Project, before: dict[str, list[str]]) -> Project:
    """As it was, but that nothing of the past waits to be done."""
    after, now = await content(shop, project), await shop.row(project.project_id)
    assert after["orders"] == ["before"]
    assert after["owners"] == before["owners"]
    assert (len(before["outbox"]), len(before["open events"])) == (1, 1)
    assert (after["outbox"], after["open events"]) == ([], [])
    assert after["messages"] == ["an answer that was not sent unknown", "hello received", "not run yet received"]
    assert (now.state, now.database, now.epoch) == ("ready", project.database, project.epoch + 1)
    await usable(shop, now)
    return now


async def test_a_restored_project_is_what_it_was_in_a_new_epoch_and_sends_nothing_again(shop: Workshop) -> None:
    project, backup, before = await kept(shop)
    order = restore(project, backup)
    assert isinstance(await shop.handle(order), Done)
    now = await restored(shop, project, before)
    assert len(await extra(shop)) == 1, "the backup is still kept"
    (told,) = [d for d in shop.events(project.project_id) if isinstance(d, ProjectRestored)]
    assert (told.restore_id, told.state, told.epoch, told.actor) == (order.restore_id, "done", now.epoch, "someone")
    assert isinstance(await shop.handle(restore(now, backup)), Done)
    assert (await shop.row(project.project_id)).epoch == project.epoch + 2, "and once more"


async def test_a_service_of_the_old_epoch_does_not_work_on_the_restored_database(shop: Workshop) -> None:
    project, backup, _ = await kept(shop)
    old = await shop.tenants.connect(project.database or "", "loquat_bot_runner")
    await shop.handle(restore(project, backup))
    await gone(old)


async def test_an_event_that_comes_again_after_a_restore_gives_the_same_message_ids(shop: Workshop) -> None:
    """It was run after the backup, and its offset was not committed: the connector knows the ids and sends nothing twice."""
    project, backup, _ = await kept(shop)
    here, event = tenant(shop, project), message("phone:491700000003", text="after the backup")
    first = await (await Desk.of(here)).run(event, replies=[{"type": "text", "text": "answered"}])
    await here.close()
    await shop.handle(restore(project, backup))
    again = await (await Desk.of(here)).run(event, replies=[{"type": "text", "text": "answered"}])
    await here.close()
    assert [m["message_id"] for m in again] == [m["message_id"] for m in first]


async def test_a_result_that_waited_at_the_backup_is_not_applied_by_the_next_event(shop: Workshop) -> None:
    """A bot had recorded it and nobody had committed it: whoever begins next would help."""
    project, _ = await lived(shop)
    here, waiting = tenant(shop, project), message("phone:491700000001", text="recorded")
    desk = await Desk.of(here)
    begun = await desk.begin(waiting)
    bot = await shop.enter(project, "bot")
    result = {"replies": [{"type": "text", "text": "of the past"}]}
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(waiting["id"]), begun["version"], result)
    await bot.close()
    await here.close()
    order = take(project)
    await shop.handle(order)
    await shop.handle(restore(project, order.backup_id))
    desk = await Desk.of(here)
    sent = await desk.run(message("phone:491700000001", text="the next one"), replies=[{"type": "text", "text": "now"}])
    assert [m["body"]["text"] for m in sent] == ["now"]
    assert await desk.runner.fetchval("SELECT count(*) FROM public.conversations") == 2
    await here.close()


async def test_the_owners_direct_connection_survives_a_restore(shop: Workshop) -> None:
    project, backup, _ = await kept(shop)
    async with open_counter(shop, project=project) as counter:
        access = await counter.good("POST", "/access")
        await shop.handle(restore(project, backup))
        direct = await shop.tenants.connect(access["database"], access["user"], access["password"])
        assert await direct.fetchval("SELECT current_user") == counter.names.owner
        await direct.close()


@pytest.mark.parametrize("point", RESTORE)
async def test_a_kill_of_a_restore_there_is_resumed_and_leaves_one_database(shop: Workshop, point: str) -> None:
    project, backup, before = await kept(shop)
    order = restore(project, backup)
    await shop.killed(order, point)
    for kind in ("bot", "editor"):
        if point not in {"provisioner.restore.told", "provisioner.restore.opened"}:
            with pytest.raises(asyncpg.ObjectNotInPrerequisiteStateError):
                await shop.enter(project, kind)
    outcome = await shop.handle(order)
    assert isinstance(outcome, Done)
    await restored(shop, project, before)
    assert len(await extra(shop)) == 1
    rows = await shop.rows()
    again = await shop.handle(order)
    assert isinstance(again, Done)
    assert [e.id for e in again.publish] == [e.id for e in outcome.publish]
    assert await shop.rows() == rows


async def test_a_kill_at_every_point_of_one_restore_restores_once(shop: Workshop) -> None:
    project, backup, before = await kept(shop)
    order = restore(project, backup)
    for point in RESTORE:
        await shop.killed(order, point)
    assert isinstance(await shop.handle(order), Done)
    await restored(shop, project, before)


async def test_a_restore_that_fails_leaves_the_project_as_it_is(shop: Workshop) -> None:
    project, backup, _ = await kept(shop)
    order, before = restore(project, backup), await content(shop, project)
    database = (await extra(shop)).pop()
    await shop.root.execute(f"DROP DATABASE {database}")
    assert isinstance(await shop.handle(order), Retry)
    assert isinstance(await shop.handle(order, attempts=2), Done)
    assert await content(shop, project) == before
    assert (await shop.row(project.project_id)).epoch == project.epoch
    await usable(shop, project)
    (told,) = [d for d in shop.events(project.project_id) if isinstance(d, ProjectRestored)]
    assert (told.state, told.reason) == ("failed", "what is to be copied is not there any more")


async def test_another_projects_backup_is_no_backup(shop: Workshop) -> None:
    _, backup, _ = await kept(shop)
    other = await shop.project()
    assert await shop.handle(restore(other, backup)) == Dead("the project has no such backup")


# -- clones


async def cloned(shop: Workshop, source: Project, clone_id: str) -> Project:
    """The new project: the rows of the old one, nothing to do, nothing of the old one's roles."""
    clone = await shop.row(clone_id)
    assert (clone.state, clone.organization_id, clone.epoch) == ("ready", ORGANIZATION, source.epoch + 1)
    assert clone.database not in {None, source.database}
    after = await content(shop, clone)
    assert after["orders"] == ["before"]
    assert (after["outbox"], after["open events"]) == ([], [])
    assert after["messages"] == ["an answer that was not sent unknown", "hello received", "not run yet received"]
    owner = Names(clone.database or "").owner
    assert {f"orders {owner}", f"orders_id_seq {owner}", f"few {owner}", f"twice {owner}", "contacts loquat_system"} <= set(after["owners"])
    query = (
        "SELECT count(*) FROM pg_shdepend AS s JOIN pg_roles AS r ON r.oid = s.refobjid JOIN pg_database AS d ON d.oid = s.dbid"
        " WHERE d.datname = $1 AND r.rolname ~ $2"
    )
    assert await shop.root.fetchval(query, clone.database, f"^{source.database}_") == 0
    assert await shop.root.fetchval(
        "SELECT count(*) FROM pg_auth_members WHERE member = 'loquat_provisioner'::regrole AND inherit_option"
    ) == (
        await shop.root.fetchval(
            "SELECT count(*) FROM pg_auth_members AS m JOIN pg_roles AS r ON r.oid = m.roleid"
            " WHERE member = 'loquat_provisioner'::regrole AND inherit_option AND rolname !~ '^p_'"
        )
    ), "the provisioner holds no tenant's rights"
    await usable(shop, clone)
    return clone


async def clone_of(shop: Workshop, project: Project) -> tuple[TakeBackup, CreateProject]:
    """The orders; the first is carried out."""
    order = take(project, clone_id=f"prj_{uuid4().hex[:16]}", clone_name="A preview")
    outcome = await shop.handle(order)
    assert isinstance(outcome, Done)
    (created,) = outcome.publish
    assert isinstance(created.data, CreateProject)
    assert created.projectid == order.clone_id
    return order, created.data


async def test_a_clone_is_a_project_of_its_own_with_the_rows_and_nothing_to_do(shop: Workshop) -> None:
    project, _ = await lived(shop)
    before = await content(shop, project)
    order, create = await clone_of(shop, project)
    assert order.clone_id is not None
    assert shop.states(order.clone_id) == ["creating"], "it is seen from the beginning"
    assert isinstance(await shop.handle(create), Done)
    await cloned(shop, project, order.clone_id)
    assert (await shop.row(order.clone_id)).name == "A preview"
    assert await extra(shop) == set(), "the copy between is gone"
    assert await content(shop, project) == before
    await usable(shop, project)


@pytest.mark.promise("P4")
async def test_a_clone_and_its_source_are_strangers(shop: Workshop) -> None:
    project, _ = await lived(shop)
    editor = await shop.enter(project, "editor")
    await editor.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC; SET ROLE NONE")
    await editor.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    await editor.close()
    order, create = await clone_of(shop, project)
    await shop.handle(create)
    clone = await cloned(shop, project, order.clone_id or "")
    for kind in KEPT:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.enter(project, kind, clone.database)
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await shop.enter(clone, kind, project.database)
    assert await shop.handle(delete(project.project_id)) == Done(), "and the source can go"
    await usable(shop, clone)


@pytest.mark.parametrize("point", CLONE)
async def test_a_kill_of_a_clone_there_is_resumed(shop: Workshop, point: str) -> None:
    project, _ = await lived(shop)
    order, create = await clone_of(shop, project)
    await shop.killed(create, point)
    assert isinstance(await shop.handle(create), Done)
    await cloned(shop, project, order.clone_id or "")
    assert await extra(shop) == set()


@pytest.mark.parametrize("point", BACKUP)
async def test_a_kill_of_the_copy_for_a_clone_there_is_resumed(shop: Workshop, point: str) -> None:
    project, _ = await lived(shop)
    order = take(project, clone_id=f"prj_{uuid4().hex[:16]}", clone_name="A preview")
    await shop.killed(order, point)
    outcome = await shop.handle(order)
    assert isinstance(outcome, Done)
    (created,) = outcome.publish
    assert isinstance(await shop.handle(created.data), Done)
    await cloned(shop, project, order.clone_id or "")


@pytest.mark.parametrize("point", CLONE[1:])
async def test_a_source_that_is_deleted_while_its_clone_is_made_leaves_a_whole_clone_and_no_role(shop: Workshop, point: str) -> None:
    project, _ = await lived(shop)
    order, create = await clone_of(shop, project)
    await shop.killed(create, point)
    assert await shop.handle(delete(project.project_id)) == Done()
    assert isinstance(await shop.handle(create), Done)
    clone = await cloned(shop, project, order.clone_id or "")
    other = await shop.project()
    await shop.handle(delete(other.project_id))
    assert {n[:14] for n in await shop.names()} == {clone.database}


async def test_a_source_that_is_deleted_before_its_clone_is_begun_is_a_failure_with_a_reason(shop: Workshop) -> None:
    project, _ = await lived(shop)
    order, create = await clone_of(shop, project)
    assert await shop.handle(delete(project.project_id)) == Done()
    assert isinstance(await shop.handle(create), Retry)
    (step,) = [s for s in await shop.steps(order.clone_id or "") if s.status == "failed"]
    assert step.reason == "what is to be copied is not there any more"
