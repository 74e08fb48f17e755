"""Projects are made step by step: every step is a row, a kill anywhere is resumed, a failure is shown and can be retried."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

import asyncpg
import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import BusUnavailable, Dead, Done, Retry
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.db import DatabaseAway
from loquat_common.tokens import Signer, new_key
from loquat_embedded.ports import free_port
from loquat_events.catalog import COMMANDS, PROJECTS
from loquat_events.projects import ProjectFailed, ProjectReady, ProjectStepped
from loquat_provisioner.domain.life import CREATION, KEPT, LOGINS, TRIES

from services.provisioner.tests.workshop import STARTER, Workshop, create, event, received, retry
from tests.system.world import until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

POINTS = [f"provisioner.{step.replace(' ', '_')}.{moment}" for step in CREATION for moment in ("before", "after")]
AWAY = "the tenant cluster does not answer"


# -- create


async def test_a_created_project_has_every_step_on_record_and_is_ready_with_its_starter_bot(shop: Workshop) -> None:
    order = create()
    assert isinstance(await shop.handle(order), Done)
    project = await shop.whole(order.project_id)
    assert (project.organization_id, project.name, project.cluster, project.epoch) == (order.organization_id, order.name, "tenants", 1)
    assert project.ready_at is not None
    steps = await shop.steps(order.project_id)
    assert [(s.name, s.status, s.attempts, s.reason) for s in steps] == [(name, "done", 1, None) for name in CREATION]
    assert all(s.ended_at is not None and s.started_at <= s.ended_at for s in steps)
    said = shop.events(order.project_id)
    assert [(d.step, d.status) for d in said if isinstance(d, ProjectStepped)] == [(name, "done") for name in CREATION]
    assert [d.at for d in said if isinstance(d, ProjectReady)] == [project.ready_at]
    assert len(said) == len(CREATION) + 1
    assert shop.bots.deployed == {order.project_id: [STARTER]}


async def test_the_directory_names_a_new_project_at_once_and_its_place_when_it_is_ready(shop: Workshop) -> None:
    project = await shop.project()
    first, last = shop.listings(project.project_id)
    assert first is not None
    assert last is not None
    assert (first.state, first.cluster, first.database) == ("creating", None, None)
    assert (last.state, last.cluster, last.database) == ("ready", "tenants", project.database)
    assert {first.organization_id, last.organization_id} == {project.organization_id}


@pytest.mark.promise("P8")
async def test_passwords_are_sealed_at_rest_and_stand_in_no_row_event_or_log(shop: Workshop) -> None:
    project = await shop.project()
    passwords = await shop.store.passwords(project.project_id)
    assert set(passwords) == set(KEPT), "the owner's own is not even made"
    assert len(set(passwords.values())) == len(KEPT)
    assert all(len(p) >= 40 for p in passwords.values())
    rows = await shop.rows()
    assert sum(project.project_id in r for r in rows) >= 1 + len(CREATION) + len(KEPT)
    events = [r.value.decode() for log in shop.bus.broker.logs.values() for r in log]
    log = (shop.tenants.cluster.home / "log").read_text(errors="replace")
    for text in (*rows, *events, *await shop.cluster(), log):
        assert not any(p in text for p in passwords.values())
    assert "SCRAM-SHA-256" not in log


@pytest.mark.promise("P4")
async def test_a_new_database_is_closed_to_the_public_and_to_other_projects_logins(shop: Workshop) -> None:
    mine, other = await shop.project(), await shop.project()
    assert mine.database is not None
    access: list[str] = await shop.root.fetchval("SELECT datacl::text[] FROM pg_database WHERE datname = $1", mine.database)
    assert access
    assert not any(a.startswith("=") for a in access), "nothing is granted to PUBLIC"
    for login in KEPT:
        for database in (mine.database, "postgres", "template1"):
            with pytest.raises(asyncpg.InsufficientPrivilegeError):
                await shop.enter(other, login, database)
        entered = await shop.enter(mine, login)
        for right in ("CREATE", "TEMPORARY"):
            assert not await entered.fetchval("SELECT has_database_privilege(session_user, current_database(), $1)", right)
        await entered.close()


async def test_an_order_delivered_again_and_again_changes_nothing(shop: Workshop) -> None:
    order = create()
    first = await shop.handle(order)
    before = (await shop.rows(), await shop.cluster(), shop.listings(order.project_id), dict(shop.bots.deployed))
    for again in (order, order, retry(order.project_id)):
        outcome = await shop.handle(again)
        assert isinstance(outcome, Done)
        assert isinstance(first, Done)
        assert [e.id for e in outcome.publish] == [e.id for e in first.publish], "the same facts, not new ones"
        assert (await shop.rows(), await shop.cluster(), shop.listings(order.project_id), dict(shop.bots.deployed)) == before


async def test_projects_ordered_at_the_same_time_are_made_side_by_side(shop: Workshop) -> None:
    """Lanes of several projects run at once in one process; the connection to the cluster does one thing at a time."""
    orders, process = [create() for _ in range(4)], shop.process()
    subscription = shop.bus.subscribe("provisioner", [COMMANDS], process.commands.handle)
    running = asyncio.create_task(subscription.run())
    await MemoryBus("gateway", shop.bus.broker).publish(*map(event, orders))

    async def ready() -> bool:
        return await shop.pool.fetchval("SELECT count(*) FROM projects WHERE state = 'ready'") == len(orders)

    await until(ready, "all are ready", 20)
    await subscription.drain(5)
    await running
    await process.databases.close()
    for order in orders:
        assert [(s.status, s.attempts) for s in await shop.steps(order.project_id)] == [("done", 1)] * len(CREATION)
    assert shop.bus.broker.stores["provisioner"].dead() == []
    assert len(await shop.names()) == len(orders) * (2 + len(LOGINS))


async def test_what_is_no_order_about_projects_is_a_dead_letter(shop: Workshop) -> None:
    order = create()
    stray = ProjectReady(project_id=order.project_id, at=event(order).time)
    assert await shop.handle(stray) == Dead("project.ready.v1 is no order about projects")


async def test_an_order_whose_name_cannot_be_kept_makes_a_project_that_is_seen(shop: Workshop) -> None:
    order = create().model_copy(update={"name": "A\0shop"})
    assert isinstance(await shop.handle(order), Done)
    project = await shop.row(order.project_id)
    assert (project.state, project.name) == ("ready", "A\ufffdshop")


async def test_the_cluster_with_the_fewest_projects_gets_the_next_one(shop: Workshop) -> None:
    places: list[str | None] = []
    for order in (create(), create(), create()):
        await shop.killed(order, "provisioner.reserve.after", clusters=("east", "west"))
        places.append((await shop.row(order.project_id)).cluster)
    assert places == ["east", "west", "east"]


# -- kills


async def half_made(shop: Workshop, project: str) -> bool:
    """Whether nobody but services could enter, had the process ended for good: a database without logins lets nobody of PUBLIC in."""
    database = (await shop.row(project)).database
    access = await shop.root.fetchrow(
        "SELECT datallowconn, coalesce(datacl::text[], '{=Tc/x}') AS acl FROM pg_database WHERE datname = $1", database
    )
    return access is None or not access["datallowconn"] or not any(a.startswith("=") for a in access["acl"])


@pytest.mark.promise("P4")
@pytest.mark.parametrize("point", POINTS)
async def test_a_kill_there_is_resumed_and_leaves_one_project_and_nothing_besides(shop: Workshop, point: str) -> None:
    order = create()
    await shop.killed(order, point)
    kept, listed = await shop.store.passwords(order.project_id), shop.states(order.project_id)
    assert listed == ["creating"], "nobody is told of a project that is not whole"
    assert await half_made(shop, order.project_id)
    place = (await shop.row(order.project_id)).database
    assert isinstance(await shop.handle(order), Done)
    project = await shop.whole(order.project_id)
    assert place in {None, project.database}
    assert kept in ({}, await shop.store.passwords(order.project_id)), "a password is chosen once"
    step = point.split(".")[1].replace("_", " ")
    assert {s.name: s.attempts for s in await shop.steps(order.project_id)} == {n: 1 + (n == step) for n in CREATION}
    assert sum(isinstance(d, ProjectReady) for d in shop.events(order.project_id)) == 1
    before = (await shop.rows(), await shop.cluster())
    await shop.handle(order)
    assert (await shop.rows(), await shop.cluster()) == before


async def test_a_kill_at_every_step_of_one_creation_makes_one_project_all_the_same(shop: Workshop) -> None:
    order = create()
    for point in POINTS:
        await shop.killed(order, point)
    assert isinstance(await shop.handle(order), Done)
    await shop.whole(order.project_id)


async def test_a_project_is_not_called_ready_before_the_directory_has_heard_of_it(shop: Workshop) -> None:
    order = create()
    await shop.killed(order, "provisioner.starter_bot.after")
    process = shop.process()
    shop.bus.broker.down = True
    with pytest.raises(BusUnavailable):
        await process.commands.handle(received(order))
    await process.databases.close()
    assert (await shop.row(order.project_id)).state == "creating"
    shop.bus.broker.down = False
    await shop.handle(order)
    await shop.whole(order.project_id)


# -- failures


async def test_a_cluster_that_is_away_is_tried_again_ever_later_then_shown_with_step_and_reason(shop: Workshop) -> None:
    order = create()
    shop.away = True
    outcomes = [await shop.handle(order) for _ in range(TRIES)]
    assert outcomes[:-1] == [Retry(1.0, AWAY), Retry(2.0, AWAY)]
    assert isinstance(outcomes[-1], Done)
    project = await shop.row(order.project_id)
    assert (project.state, project.reason) == ("failed", f"database: {AWAY}")
    assert [(s.name, s.status, s.attempts, s.reason) for s in await shop.steps(order.project_id)] == [
        ("reserve", "done", 1, None),
        ("database", "failed", TRIES, AWAY),
    ]
    (failed,) = shop.events(order.project_id)
    assert isinstance(failed, ProjectFailed)
    assert (failed.step, failed.reason) == ("database", AWAY)
    assert shop.states(order.project_id)[-1] == "failed"
    assert await shop.names() == set()


async def test_a_failed_project_waits_for_a_person_however_often_its_order_comes(shop: Workshop) -> None:
    order = create()
    shop.away = True
    for _ in range(TRIES):
        await shop.handle(order)
    shop.away = False
    before = await shop.rows()
    assert isinstance(await shop.handle(order), Done)
    assert await shop.rows() == before
    assert await shop.names() == set()


async def test_a_failure_whose_teller_died_is_told_when_the_order_comes_again(shop: Workshop) -> None:
    """The row says failed, and then the process ended: the directory still says creating."""
    order = create()
    shop.away = True
    for _ in range(TRIES - 1):
        await shop.handle(order)
    process = shop.process()
    lost = await process.commands.handle(received(order))
    assert isinstance(lost, Done)
    assert shop.states(order.project_id)[-1] == "creating"
    told = await shop.handle(order)
    assert isinstance(told, Done)
    assert [e.id for e in told.publish] == [e.id for e in lost.publish], "the same facts, not new ones"
    assert shop.states(order.project_id)[-1] == "failed"
    assert [d.step for d in shop.events(order.project_id) if isinstance(d, ProjectFailed)] == ["database"]


async def test_a_retry_goes_on_at_the_step_that_failed(shop: Workshop) -> None:
    order = create()
    shop.bots.refuses = 500
    outcomes = [await shop.handle(order) for _ in range(TRIES)]
    reason = "bot-runner refused the starter bot: It is refused by the test"
    assert outcomes[:-1] == [Retry(1.0, reason), Retry(2.0, reason)]
    assert (await shop.row(order.project_id)).reason == f"starter bot: {reason}"
    place, passwords, made = await shop.row(order.project_id), await shop.store.passwords(order.project_id), await shop.cluster()
    shop.bots.refuses = None
    assert isinstance(await shop.handle(retry(order.project_id)), Done)
    project = await shop.whole(order.project_id)
    assert (project.database, await shop.store.passwords(order.project_id), await shop.cluster()) == (place.database, passwords, made)
    assert {s.name: s.attempts for s in await shop.steps(order.project_id)} == dict.fromkeys(CREATION, 1)
    assert shop.states(order.project_id) == ["creating"] * TRIES + ["failed", "creating", "ready"]
    assert shop.bots.deployed == {order.project_id: [STARTER]}


async def test_a_retry_that_fails_has_its_tries_too_and_then_ends(shop: Workshop) -> None:
    order = create()
    shop.away = True
    for _ in range(TRIES):
        await shop.handle(order)
    again = retry(order.project_id)
    assert [await shop.handle(again) for _ in range(TRIES - 1)] == [Retry(1.0, AWAY), Retry(2.0, AWAY)]
    assert isinstance(await shop.handle(again), Done)
    assert (await shop.row(order.project_id)).state == "failed"
    failures = [e.id for e in shop.bus.broker.events(PROJECTS) if isinstance(e.data, ProjectFailed)]
    assert len(set(failures)) == 2, "a second failure is a second fact"
    shop.away = False
    await shop.handle(retry(order.project_id))
    await shop.whole(order.project_id)


async def test_a_bot_runner_that_is_away_is_named_and_waited_for(shop: Workshop) -> None:
    private, _ = new_key()
    nobody = InternalClient(f"http://127.0.0.1:{free_port()}", Signer("provisioner", private), "bot-runner")
    await nobody.start()
    order = create()
    assert await shop.handle(order, client=nobody) == Retry(1.0, "bot-runner does not answer")
    await nobody.stop()
    assert isinstance(await shop.handle(order), Done)
    await shop.whole(order.project_id)


async def test_a_cluster_that_hangs_in_the_middle_of_a_step_is_a_failure_with_a_reason(shop: Workshop) -> None:
    """It answers, and then it does not: the command's time-out ends the step, not the handler."""
    order = create()
    shop.limit = 0.3
    await shop.root.execute("BEGIN; LOCK TABLE pg_database IN SHARE MODE")
    try:
        assert await shop.handle(order) == Retry(1.0, AWAY)
    finally:
        await shop.root.execute("ROLLBACK")
    assert (await shop.steps(order.project_id))[-1].reason == AWAY
    shop.limit = 60
    await until(shop.idle, "what the server was told to do before is over")  # else it would be in the way of this try, not of the next
    assert isinstance(await shop.handle(order), Done)
    await shop.whole(order.project_id)


async def test_one_process_goes_on_when_its_cluster_comes_back(shop: Workshop) -> None:
    process, order = shop.process(), create()
    assert isinstance(await process.commands.handle(received(create())), Done)
    await shop.root.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'loquat_provisioner' AND datname = 'postgres'"
    )
    shop.away = True
    assert await process.commands.handle(received(order)) == Retry(1.0, AWAY)
    shop.away = False
    assert isinstance(await process.commands.handle(received(order)), Done)
    await process.databases.close()
    assert (await shop.row(order.project_id)).state == "ready"


async def test_a_cluster_that_is_not_set_up_is_named(shop: Workshop) -> None:
    order = create()
    assert await shop.handle(order, clusters=()) == Retry(1.0, "no tenant cluster is set up")
    await shop.killed(order, "provisioner.database.before")
    assert await shop.handle(order, clusters=("other",)) == Retry(2.0, "the cluster tenants is not set up any more")
    assert isinstance(await shop.handle(order), Done)


async def test_passwords_that_do_not_open_are_a_failure_with_a_reason_and_never_an_empty_password(shop: Workshop) -> None:
    order = create()
    await shop.killed(order, "provisioner.logins.before")
    right, shop.ring = shop.ring, KeyRing.from_json(KeyRing.new())
    reason = "the project's passwords do not open with this key ring"
    assert await shop.handle(order) == Retry(2.0, reason)
    assert not any("_bot" in name for name in await shop.names())
    shop.ring = right
    assert isinstance(await shop.handle(order), Done)
    await shop.whole(order.project_id)


async def test_a_control_database_that_is_away_costs_no_attempt(shop: Workshop) -> None:
    order = create()
    await shop.control("ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await shop.control("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = '{name}'")
    with pytest.raises(DatabaseAway):  # which the bus defers
        await shop.handle(order)
    await shop.control("ALTER DATABASE {name} ALLOW_CONNECTIONS true")
    assert isinstance(await shop.handle(order), Done)
    assert {s.attempts for s in await shop.steps(order.project_id)} == {1}


async def test_a_retry_of_nothing_does_nothing(shop: Workshop) -> None:
    before = await shop.rows()
    assert await shop.handle(retry("prj_unknown")) == Done()
    assert await shop.rows() == before
