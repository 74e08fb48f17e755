"""What a service keeps of a project goes with the project, and never before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Table
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_events.catalog import DIRECTORY
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectListed


@pytest.fixture
async def bus() -> MemoryBus:
    return MemoryBus("provisioner")


@pytest.fixture
async def table(bus: MemoryBus) -> AsyncGenerator[Table]:
    made = bus.table(DIRECTORY)
    reading = asyncio.create_task(made.run())
    await made.caught_up()
    yield made
    reading.cancel()


async def listed(bus: MemoryBus, project: str) -> None:
    data = ProjectListed(project_id=project, organization_id="o", name="p", state="creating")
    await bus.publish(Event[Payload].of(data, id=uuid4(), source="/provisioner", time=datetime.now(UTC), project=project, lane="project"))


async def test_rows_of_projects_that_are_gone_are_dropped_at_the_start_and_when_one_goes(bus: MemoryBus, table: Table) -> None:
    rows, went = {"here", "gone"}, asyncio.Event()
    await listed(bus, "here")

    async def known() -> list[str]:
        return sorted(rows)

    async def forget(project: str) -> None:
        rows.discard(project)
        went.set()

    running = asyncio.create_task(Departures(table, known, forget).run())
    async with asyncio.timeout(10):
        await went.wait()
        assert rows == {"here"}
        went.clear()
        await bus.remove(DIRECTORY, project="here", lane="project")
        await went.wait()
    assert rows == set()
    running.cancel()


async def test_a_directory_that_was_lost_is_not_the_end_of_all_projects(bus: MemoryBus, table: Table) -> None:
    rows = {"one", "two"}

    async def known() -> list[str]:
        return sorted(rows)

    async def forget(project: str) -> None:
        rows.discard(project)

    departures = Departures(table, known, forget)
    assert await departures.once() == []
    await listed(bus, "one")
    await bus.remove(DIRECTORY, project="one", lane="project")
    assert await departures.once() == ["one"], "this one was seen to go"
    assert rows == {"two"}


async def test_a_project_whose_row_is_younger_than_the_last_look_at_the_directory_is_not_taken_for_gone(
    bus: MemoryBus, table: Table
) -> None:
    """The table is behind when the row is seen; the entry was published before the row was made."""
    forgotten = list[str]()

    async def known() -> list[str]:
        await listed(bus, "new")
        return ["new"]

    async def forget(project: str) -> None:
        forgotten.append(project)

    assert await Departures(table, known, forget).once() == []
    assert forgotten == []


async def test_a_missing_entry_speaks_only_when_the_table_was_read_after_the_event(table: Table) -> None:
    directory, now = Directory(table), datetime.now(UTC)
    assert not directory.is_gone("prj", now, now), "published a moment ago: the table may be behind"
    assert directory.is_gone("prj", now - timedelta(minutes=1), now)
