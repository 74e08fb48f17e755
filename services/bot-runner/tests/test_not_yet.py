"""A runner whose tables are behind waits: it does not take a new project for a deleted one, nor its bot for none."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast
from uuid import uuid4

import pytest
from loquat_bot_runner.adapters.deployments import Deployed
from loquat_bot_runner.handlers.inbox import Inbox
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Defer, Done, Received
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_events.catalog import DEPLOYMENTS, DIRECTORY, INBOX
from loquat_events.conversations import MessageReceived
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectListed

pytestmark = pytest.mark.promise("P1")
NOW = datetime.now(UTC)


@pytest.fixture
def broker() -> MemoryBroker:
    return MemoryBroker()


@pytest.fixture
async def inbox(broker: MemoryBroker, tmp_path: Path) -> AsyncGenerator[Inbox]:
    bus, nothing = MemoryBus("bot-runner", broker), cast("Any", None)
    tables = [bus.table(DIRECTORY), bus.table(DEPLOYMENTS)]
    reading = [asyncio.create_task(t.run()) for t in tables]
    for table in tables:
        await table.caught_up()
    yield Inbox(
        nothing, nothing, nothing, Directory(tables[0]), Deployed(tables[1]), bus, Failpoints(tmp_path), lambda: NOW, nothing, nothing
    )
    for task in reading:
        task.cancel()


def received(at: datetime) -> Received:
    message = {"type": "text", "text": "hi", "wamid": "w", "raw": "{}"}
    data = MessageReceived.model_validate(
        {"number_id": "1", "addresses": [{"kind": "wa_id", "value": "49"}], "message": message, "sent_at": at}
    )
    return Received(Event[Payload].of(data, id=uuid4(), source="/gateway", time=at, project="prj", lane="49"), INBOX.name, 0, 0)


async def test_a_message_of_a_project_that_is_not_listed_waits_until_the_directory_is_younger_than_it(inbox: Inbox) -> None:
    assert await inbox.handle(received(NOW)) == Defer(1.0, "the directory does not know the project yet")
    assert await inbox.handle(received(NOW - timedelta(minutes=1))) == Done()


async def test_a_message_of_a_project_without_a_bot_waits_until_the_deployments_are_younger_than_it(
    broker: MemoryBroker, inbox: Inbox
) -> None:
    data = ProjectListed(project_id="prj", organization_id="o", name="p", state="ready", cluster="c", database="d")
    listed = Event[Payload].of(data, id=uuid4(), source="/provisioner", time=NOW, project="prj", lane="project")
    await MemoryBus("provisioner", broker).publish(listed)
    await asyncio.sleep(0)  # the table's task runs
    outcome = await inbox.handle(received(NOW))
    assert outcome == Defer(1.0, "whether the project has a bot is not known yet")
