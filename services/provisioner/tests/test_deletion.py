"""Projects are deleted after their grace; whatever was made of them is gone, however often the order comes and whatever was cut off."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import BusUnavailable, Dead, Defer, Done
from loquat_common.db import DatabaseAway
from loquat_events.catalog import COMMANDS
from loquat_events.projects import ProjectDeleted
from loquat_provisioner.domain.life import CREATION, TRIES

from services.provisioner.tests.workshop import ORGANIZATION, Workshop, create, delete, event, gone, retry
from tests.system.world import until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

GRACE = 3600
CREATING = ["provisioner.reserve.before", *(f"provisioner.{step.replace(' ', '_')}.after" for step in CREATION)]
DROPPING = ["provisioner.drop.before", "provisioner.drop.after"]


async def left_behind(shop: Workshop, project: str) -> None:
    """Nothing but the row that says so."""
    assert await shop.cluster() == []
    assert await shop.store.passwords(project) == {}
    assert await shop.steps(project) == []
    assert (await shop.row(project)).state == "deleted"
    assert await shop.store.of_organization(ORGANIZATION, 10) == []
    assert shop.states(project)[-1] is None, "the directory has a tombstone"
    assert len({e.id for e in shop.said(project) if isinstance(e.data, ProjectDeleted)}) == 1


async def test_a_deletion_waits_for_its_grace_and_the_first_order_decides(shop: Workshop) -> None:
    project = await shop.project()
    outcome = await shop.handle(delete(project.project_id, GRACE))
    assert isinstance(outcome, Defer)
    assert GRACE - 60 < outcome.after <= GRACE
    assert (await shop.row(project.project_id)).state == "deleting"
    assert shop.states(project.project_id)[-1] == "deleting"
    await (await shop.enter(project, "editor")).close()
    sooner = await shop.handle(delete(project.project_id, 0))
    assert isinstance(sooner, Defer)
    assert GRACE - 60 < sooner.after <= outcome.after
    assert shop.states(project.project_id).count("deleting") == 1
    await shop.pool.execute("UPDATE projects SET delete_at = now()")
    assert await shop.handle(delete(project.project_id, GRACE)) == Done()
    await left_behind(shop, project.project_id)


@pytest.mark.promise("P8")
async def test_a_deleted_projects_database_roles_and_passwords_are_gone_and_its_sessions_ended(shop: Workshop) -> None:
    project, other = await shop.project(), await shop.project()
    assert project.database is not None
    kept = [line for line in await shop.cluster() if str(other.database) in line]
    sessions = [await shop.enter(project, "bot"), await shop.tenants.connect(project.database, "loquat_conversation_log")]
    assert await shop.handle(delete(project.project_id)) == Done()
    for session in sessions:
        await gone(session)
    assert await shop.cluster() == kept, "the neighbour is as it was"
    assert not any(project.database in line for line in await shop.cluster())
    assert await shop.handle(delete(other.project_id)) == Done()
    await left_behind(shop, project.project_id)
    left = [row for row in await shop.rows() if project.project_id in row]
    assert len(left) == 1


async def test_a_deletion_delivered_again_changes_nothing_and_says_nothing(shop: Workshop) -> None:
    project = await shop.project()
    await shop.handle(delete(project.project_id))
    before = (await shop.rows(), shop.listings(project.project_id), shop.events(project.project_id))
    assert await shop.handle(delete(project.project_id)) == Done()
    assert (await shop.rows(), shop.listings(project.project_id), shop.events(project.project_id)) == before


@pytest.mark.parametrize("point", DROPPING)
async def test_a_kill_around_the_drop_is_resumed_and_leaves_nothing(shop: Workshop, point: str) -> None:
    project = await shop.project()
    await shop.killed(delete(project.project_id), point)
    assert (await shop.row(project.project_id)).state == "deleting"
    assert (await shop.names() == set()) == point.endswith("after")
    assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)


@pytest.mark.parametrize("point", CREATING)
async def test_a_project_whose_creation_was_cut_off_there_is_deleted_without_a_trace(shop: Workshop, point: str) -> None:
    order = create()
    await shop.killed(order, point)
    assert await shop.handle(delete(order.project_id)) == Done()
    await left_behind(shop, order.project_id)


async def test_a_failed_project_is_deleted_like_any_other(shop: Workshop) -> None:
    order = create()
    shop.bots.refuses = 503
    for _ in range(TRIES):
        await shop.handle(order)
    assert (await shop.row(order.project_id)).state == "failed"
    assert await shop.handle(delete(order.project_id)) == Done()
    await left_behind(shop, order.project_id)


async def test_a_deletion_of_nothing_does_nothing(shop: Workshop) -> None:
    before = await shop.rows()
    assert await shop.handle(delete("prj_unknown")) == Done()
    assert await shop.rows() == before
    assert (shop.events("prj_unknown"), shop.listings("prj_unknown")) == ([], [])


@pytest.mark.parametrize("grace", [0, GRACE])
async def test_an_order_to_create_or_retry_that_comes_after_the_deletion_does_nothing(shop: Workshop, grace: int) -> None:
    project = await shop.project()
    await shop.handle(delete(project.project_id, grace))
    before = (await shop.rows(), await shop.cluster(), shop.listings(project.project_id), shop.events(project.project_id))
    for late in (create(project.project_id), retry(project.project_id)):
        assert await shop.handle(late) == Done()
        assert (await shop.rows(), await shop.cluster(), shop.listings(project.project_id), shop.events(project.project_id)) == before


async def test_the_directory_hears_of_a_deletion_although_the_bus_was_away_when_it_began(shop: Workshop) -> None:
    """Else its bot would answer all through the grace."""
    project = await shop.project()
    shop.bus.broker.down = True
    with pytest.raises(BusUnavailable):
        await shop.handle(delete(project.project_id, GRACE))
    shop.bus.broker.down = False
    assert isinstance(await shop.handle(delete(project.project_id, GRACE)), Defer)
    assert shop.states(project.project_id)[-1] == "deleting"


async def test_the_end_of_a_deletion_is_told_although_the_bus_was_away_at_first(shop: Workshop) -> None:
    project = await shop.project()
    await shop.killed(delete(project.project_id), "provisioner.drop.after")
    shop.bus.broker.down = True
    with pytest.raises(BusUnavailable):
        await shop.handle(delete(project.project_id))
    assert (await shop.row(project.project_id)).state == "deleting"
    shop.bus.broker.down = False
    assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)


async def test_a_cluster_that_is_away_defers_a_deletion_without_end(shop: Workshop) -> None:
    project = await shop.project()
    shop.away = True
    for _ in range(TRIES + 1):
        with pytest.raises(DatabaseAway):  # which the bus defers, no attempt counted
            await shop.handle(delete(project.project_id))
    shop.away = False
    assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)


async def test_a_deletion_on_a_cluster_that_is_not_set_up_is_a_dead_letter_with_a_reason(shop: Workshop) -> None:
    project = await shop.project()
    assert await shop.handle(delete(project.project_id), clusters=("other",)) == Dead("the cluster tenants is not set up any more")
    assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)


@pytest.mark.promise("P4")
async def test_a_tenant_cannot_hold_up_the_deletion_of_its_project(shop: Workshop) -> None:
    """A login may change itself, and so hold its own role for as long as its transaction lasts."""
    project = await shop.project()
    tenant = await shop.enter(project, "bot")
    await tenant.execute("SET ROLE NONE; BEGIN")
    await tenant.execute(f"ALTER ROLE {project.database}_bot PASSWORD 'mine'")
    async with asyncio.timeout(4):  # below the cluster's lock time-out
        assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)
    await gone(tenant)


async def test_a_drop_that_the_server_did_not_finish_is_finished(shop: Workshop) -> None:
    """As PostgreSQL leaves a database when it crashes in the middle of DROP DATABASE: nothing but another one is possible."""
    project = await shop.project()
    await shop.root.execute("UPDATE pg_database SET datconnlimit = -2 WHERE datname = $1", project.database)
    assert await shop.handle(delete(project.project_id)) == Done()
    await left_behind(shop, project.project_id)


async def test_a_creation_and_its_deletion_ordered_at_once_are_done_in_that_order(shop: Workshop) -> None:
    process, order = shop.process(), create()
    subscription = shop.bus.subscribe("provisioner", [COMMANDS], process.commands.handle)
    running = asyncio.create_task(subscription.run())
    await MemoryBus("gateway", shop.bus.broker).publish(event(order), event(delete(order.project_id)))

    async def deleted() -> bool:
        return await shop.pool.fetchval("SELECT count(*) FROM projects WHERE state = 'deleted'") == 1

    await until(deleted, "it is deleted", 20)
    await subscription.drain(5)
    await running
    await process.databases.close()
    assert shop.states(order.project_id) == ["creating", "ready", "deleting", None]
    await left_behind(shop, order.project_id)
