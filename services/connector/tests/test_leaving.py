"""Projects that leave: nothing of them stays, their numbers are free, nobody else's rows are touched."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from datetime import timedelta
from uuid import uuid4

import pytest
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Done, Table
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_connector.adapters.people import ForgottenSends
from loquat_connector.domain.verdict import Verdict
from loquat_connector.handlers.leaving import Leaving
from loquat_events.catalog import DIRECTORY, NUMBERS
from loquat_events.envelope import Event, Payload
from loquat_events.numbers import AccountUpdateReceived
from loquat_events.projects import ProjectListed, ProjectState

from services.connector.tests.office import NUMBER, PROJECT, Office, now, queued
from tests.system.world import until

OTHER, SECOND = "prj_b", "106540352242999"
TABLES = ("numbers", "sends", "attempts", "outcomes", "account_updates", "deferred", "erased_contacts")


@dataclass(slots=True)
class Place:
    """A connector that follows the directory."""

    office: Office
    provisioner: MemoryBus
    directory: Table
    leaving: Leaving
    departures: Departures

    async def list(self, project: str, state: ProjectState) -> None:
        """The directory says so, and the connector knows."""
        data = ProjectListed(project_id=project, organization_id="o", name="p", state=state, cluster="c", database="d")
        event = Event[Payload].of(data, id=uuid4(), source="/provisioner", time=now(), project=project, lane="project")
        await self.provisioner.publish(event)
        await self._seen(project, state)

    async def delete(self, project: str) -> None:
        """Its entry is gone, and the connector knows."""
        await self.provisioner.remove(DIRECTORY, project=project, lane="project")
        await self._seen(project, None)

    async def _seen(self, project: str, state: ProjectState | None) -> None:
        async def look() -> bool:
            event = self.directory.get(f"{project}:project")
            return (event.data.state if event is not None and isinstance(event.data, ProjectListed) else None) == state

        await until(look, "the directory was read", 5)

    async def left(self) -> dict[str, int]:
        """Rows by table."""
        return {t: n for t in TABLES if (n := await self.office.pool.fetchval(f"SELECT count(*) FROM {t}"))}  # noqa: S608

    async def fill(self, project: str, number: str) -> None:
        """Something of everything."""
        office = self.office
        await office.attach(number, project, "EAA")
        sent, waiting = queued(number=number), queued(number=number)
        for order in (sent, waiting):
            await office.handle(order, project)
        send = next(s for s in await office.queue.candidates(10, []) if s.message_id == sent.message_id)
        await office.queue.claim(send)
        await office.queue.end(send, Verdict("accepted", wamid="w"))
        await office.handle(AccountUpdateReceived(waba_id="waba", number_id=number, field="quality", raw="{}"), "waba")
        await ForgottenSends(office.pool).bar(project, [uuid4()])
        await office.pool.execute(
            "INSERT INTO deferred (group_name, partition, seq, event_id, lane, project, event, state, attempts, next_at, reason)"
            " VALUES ('g', 't/0', 1, $1, 'l', $2, '{}', 'dead', 1, now(), 'r')",
            str(uuid4()),
            project,
        )


@pytest.fixture
async def place(bare_office: Office) -> AsyncGenerator[Place]:
    office = bare_office
    directory = office.bus.table(DIRECTORY)
    leaving = Leaving(directory, office.queue, office.numbers, office.accounts, DeadLetters(office.pool).forget, 0.0, lambda: None)
    departures = Departures(directory, leaving.known, leaving.forget)
    task = asyncio.create_task(directory.run())
    await directory.caught_up()
    made = Place(office, MemoryBus("provisioner", office.bus.broker), directory, leaving, departures)
    for project, number in ((PROJECT, NUMBER), (OTHER, SECOND)):
        await made.list(project, "ready")
        await made.fill(project, number)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def route(office: Office, number: str = NUMBER) -> str | None:
    """Who has the number, as the gateways heard it last."""
    records = [r for r in office.bus.broker.logs[f"{NUMBERS.name}/0"] if r.lane == number]
    return records[-1].value.decode() or None


@pytest.mark.promise("P4")
async def test_a_projects_number_is_let_go_when_its_deletion_begins_and_anybody_may_connect_it(place: Place) -> None:
    office = place.office
    await place.list(PROJECT, "deleting")
    await place.leaving.once()
    await office.tell()
    assert route(office) is None
    assert [n.phone_number_id for n in await office.numbers.of_project(OTHER)] == [SECOND]
    await office.tell()
    assert await office.numbers.get(NUMBER) is None, "the token is gone with its row"
    assert await office.numbers.attach("prj_c", NUMBER, "waba", "EAAc", None) is not None


@pytest.mark.promise("P4")
async def test_of_a_deleted_project_nothing_stays_and_its_neighbour_has_all_its_own(place: Place) -> None:
    office, both = place.office, await place.left()
    await place.delete(PROJECT)
    assert await place.departures.once() == [PROJECT]
    await office.tell()
    await office.tell()
    assert route(office) is None
    assert both.pop("outcomes") == 1, "told by now"
    assert await place.left() == {t: n // 2 for t, n in both.items()}
    assert route(office, SECOND) is not None
    assert await place.departures.once() == []


async def test_a_deletion_that_was_cut_off_goes_on(place: Place) -> None:
    await place.delete(PROJECT)
    letters = place.leaving._letters

    async def cut(_project: str) -> None:
        raise RuntimeError("the process died")

    place.leaving._letters = cut
    with pytest.raises(RuntimeError):
        await place.departures.once()
    place.leaving._letters = letters
    await place.office.tell()
    assert await place.departures.once() == [PROJECT]
    await place.office.tell()
    assert await place.office.queue.projects() == [OTHER]
    assert await place.office.numbers.projects() == [OTHER]


async def test_what_was_kept_for_a_project_that_leaves_is_not_replayed_to_the_next_one(place: Place) -> None:
    await place.office.pool.execute(
        "INSERT INTO unrouted (event_id, number_id, waba_id, change, received_at) SELECT gen_random_uuid(), n, 'w', '{}', now() FROM unnest($1::text[]) AS n",
        [NUMBER, SECOND],
    )
    await place.delete(PROJECT)
    await place.departures.once()
    assert [r["number_id"] for r in await place.office.pool.fetch("SELECT number_id FROM unrouted")] == [SECOND]


async def test_a_directory_that_was_lost_is_not_the_end_of_all_projects(place: Place) -> None:
    """As after a move to another engine: only what a tombstone names goes."""
    before = await place.left()
    lost = MemoryBus("connector")
    directory = lost.table(DIRECTORY)
    leaving = Leaving(
        directory, place.office.queue, place.office.numbers, place.office.accounts, DeadLetters(place.office.pool).forget, 0.0, lambda: None
    )
    departures = Departures(directory, leaving.known, leaving.forget)
    task = asyncio.create_task(directory.run())
    assert await departures.once() == []
    assert await place.left() == before
    await MemoryBus("provisioner", lost.broker).remove(DIRECTORY, project=PROJECT, lane="project")

    async def gone() -> bool:
        return await departures.once() == [PROJECT]

    await until(gone, "the tombstone counts", 5)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


@pytest.mark.promise("P4")
async def test_a_message_that_comes_again_when_its_project_is_forgotten_leaves_no_row(place: Place) -> None:
    office, projects, before = place.office, Directory(place.directory), now() - timedelta(minutes=1)
    office.messages = office.handler(lambda project, at: projects.is_gone(project, at, now()))
    await place.list(PROJECT, "deleting")
    await place.delete(PROJECT)
    assert PROJECT in await place.departures.once()
    rows = await place.left()
    assert isinstance(await office.handle(queued(), PROJECT, at=before), Done)
    assert await place.left() == rows
    await office.handle(queued(number=SECOND), OTHER, at=before)
    assert (await place.left())["sends"] == rows["sends"] + 1
