"""The record of conversations: whatever comes in whatever order how often, the rows are the same; what is bad stands alone."""

from __future__ import annotations

import asyncio
import json
import random
import string
from collections import Counter
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import pytest
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Batching, BusUnavailable, Dead, Defer, Done, Outcome, Received
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_common.directory import Directory
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.sql import Ident, compose
from loquat_conversation_log.adapters.record import ProjectRecord
from loquat_conversation_log.handlers.record import Recorder
from loquat_events.catalog import CHANGES, DIRECTORY, INBOX, OUTBOX, RECEIPTS
from loquat_events.conversations import (
    Address,
    InboundMessage,
    MessageChanged,
    MessageOutcome,
    MessageQueued,
    MessageReceived,
    Outgoing,
    PersonUpdateReceived,
    ScheduleFired,
    SendOrdered,
    StatusReceived,
    TimerFired,
)
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import ProjectListed, ProjectState

from tests.system.world import until
from tests.tenants import Project

NOON: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
NUMBER: Final = "106540352242922"
POINTS: Final = ["conversation_log.before_record", "conversation_log.after_record", "conversation_log.after_changes"]
PEOPLE: Final = ["491", "492", "493"]


def key(name: str) -> UUID:
    return uuid5(NAMESPACE_URL, name)


def at(second: float) -> datetime:
    return NOON + timedelta(seconds=second)


def noon() -> datetime:
    return NOON


@dataclass(slots=True)
class Log:
    """The recorder on a bus in memory, with two real projects in its directory."""

    pools: ProjectPools
    broker: MemoryBroker
    directory: Directory
    folder: Path

    def recorder(self) -> Recorder:
        return Recorder(
            ProjectRecord(self.pools), self.directory, MemoryBus("conversation-log", self.broker), Failpoints(self.folder), noon
        )

    async def handle(self, *events: AnyEvent) -> list[Outcome]:
        """One batch."""
        received = [Received(e, "topic", 0, n) for n, e in enumerate(events)]
        return list(await self.recorder().handle(received))

    async def know(self, project: Project, state: ProjectState = "ready", epoch: int = 1) -> None:
        """The provisioner's word about a project, once it is known here."""
        entry = ProjectListed(
            project_id=project.project_id,
            organization_id="o",
            name="p",
            state=state,
            cluster="tenants",
            database=project.database,
            epoch=epoch,
        )
        await MemoryBus("provisioner", self.broker).publish(wrap(entry, entry.model_dump_json(), project, "project"))

        async def known() -> bool:
            return self.directory.get(project.project_id) == entry

        await until(known, "the directory says so")

    def changes(self) -> Counter[UUID]:
        """What the dashboard was told, by its id."""
        return Counter(e.id for e in self.broker.events(CHANGES))


@pytest.fixture
async def log(pools: ProjectPools, project: Project, neighbour: Project, tmp_path: Path) -> AsyncGenerator[Log]:
    broker = MemoryBroker()
    table = MemoryBus("conversation-log", broker).table(DIRECTORY)
    task = asyncio.create_task(table.run())
    made = Log(pools, broker, Directory(table), tmp_path)
    await made.know(project)
    await made.know(neighbour)
    yield made
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def wrap(data: Payload, name: str, project: Project, lane: str = "lane") -> AnyEvent:
    return Event[Payload].of(data, id=key(name), source="/test", time=NOON, project=project.project_id, lane=lane)


def received(project: Project, person: str, n: int, *, kind: str = "text", content: Any = None, wamid: str | None = None) -> AnyEvent:
    """A message of a person's."""
    name = f"{person} {n}"
    raw = json.dumps({"id": name, "type": kind, kind: content or {"body": name}})
    message = InboundMessage(type=kind, text=name, content=content or {"body": name}, wamid=wamid or f"wamid.{name}", raw=raw)
    data = MessageReceived(
        number_id=NUMBER,
        addresses=(Address(kind="wa_id", value=person), Address(kind="phone", value=f"+{person}")),
        name=f"Name of {person}",
        message=message,
        sent_at=at(n),
    )
    return wrap(data, name, project, person)


def outgoing(project: Project, n: int, conversation: UUID) -> AnyEvent:
    """A message that is to be sent. Its event's id is its own."""
    data = MessageQueued(
        message_id=key(f"out {n}"),
        cause=key("cause"),
        conversation_id=conversation,
        contact_id=key("contact"),
        number_id=NUMBER,
        addresses=(),
        message=Outgoing(type="buttons", text=f"out {n}", content={"buttons": [{"id": "a", "title": "A"}]}),
        sender="bot",
        queued_at=at(n),
    )
    return wrap(data, f"out {n}", project)


def outcome(project: Project, n: int, word: str, second: float, **more: Any) -> AnyEvent:
    """What the connector learned."""
    data = MessageOutcome.model_validate({"message_id": key(f"out {n}"), "status": word, "attempt": 1, "at": at(second), **more})
    return wrap(data, f"outcome {n} {word}", project)


def status(project: Project, n: int, word: str, second: float, *, known: bool = True, **more: Any) -> AnyEvent:
    """Meta's word about a message; if not `known`, without the id that we sent along."""
    given = {"number_id": NUMBER, "message_id": key(f"out {n}") if known else None, "wamid": f"wamid.out.{n}", "status": word}
    data = StatusReceived.model_validate({**given, "at": at(second), "raw": "{}", **more})
    return wrap(data, f"status {n} {word} {second}", project)


async def opened(log: Log, project: Project) -> dict[str, UUID]:
    """One message of each person; their conversations."""
    assert await log.handle(*(received(project, p, 0) for p in PEOPLE)) == [Done()] * len(PEOPLE)
    rows = await (await project.root()).fetch(
        "SELECT c.id, a.value FROM public.conversations AS c JOIN loquat.addresses AS a USING (contact_id) WHERE a.kind = 'wa_id'"
    )
    return {r["value"]: r["id"] for r in rows}


def mixed(project: Project, conversations: dict[str, UUID]) -> list[AnyEvent]:
    """Some of everything that can come."""
    events = [received(project, p, n) for p in PEOPLE for n in range(1, 5)]
    events += [received(project, p, 9, kind="hologram", content={"depth": 3, "null": None}) for p in PEOPLE]
    events += [outgoing(project, n, conversations[PEOPLE[n % 3]]) for n in range(4)]
    events += [outcome(project, 0, "accepted", 10, wamid="wamid.out.0"), status(project, 0, "sent", 11)]
    events += [status(project, 0, "delivered", 13, pricing="service", billable=False), status(project, 0, "read", 14)]
    events += [outcome(project, 1, "unknown", 10), status(project, 1, "delivered", 12)]
    events += [outcome(project, 2, "failed", 10, error_code=131047, error_title="Re-engagement message")]
    events += [status(project, 3, "sent", 10), status(project, 3, "pondered", 11), status(project, 3, "failed", 12, error_code=131026)]
    events += [status(project, 99, "sent", 10)]
    order = SendOrdered(
        number_id=NUMBER, addresses=(Address(kind="wa_id", value=PEOPLE[0]),), message=Outgoing(type="text", text="x"), ordered_by="u"
    )
    update = PersonUpdateReceived(number_id=NUMBER, field="calls", raw='{"event": "connect\\u0000"}')
    timer = TimerFired(timer_id=key("t"), name="t", conversation_id=conversations[PEOPLE[0]], contact_id=key("c"), due_at=NOON)
    schedule = ScheduleFired(automation_id=key("a"), name="s", due_at=NOON)
    timed = [wrap(timer, "timer", project), wrap(schedule, "schedule", project)]
    return [*events, wrap(order, "order", project), wrap(update, "update", project), *timed]


async def rows(project: Project) -> dict[str, list[str]]:
    """All that is recorded, but for what the database chose: times of recording and ids of conversations."""
    root = await project.root()
    queries = {
        "messages": "SELECT m.id, m.direction, m.type, m.text, m.content, m.raw::text, m.wamid, m.reply_to, m.sender, m.status, m.error_code,"
        " (SELECT jsonb_object_agg(key, value::timestamptz) FROM jsonb_each_text(m.transitions)) AS transitions, m.error_title, m.pricing,"
        " m.billable, m.sent_at, c.number_id, p.name, p.phone_number FROM public.messages AS m JOIN public.conversations AS c"
        " ON c.id = m.conversation_id JOIN public.contacts AS p ON p.id = c.contact_id",
        "events": "SELECT id, kind, outcome, conversation_id IS NULL AS alone FROM loquat.events",
        "updates": "SELECT event_id, number_id, field, addresses, raw::text FROM loquat.updates",
        "receipts": "SELECT key, status, body FROM loquat.receipts",
        "contacts": "SELECT name, phone_number, (SELECT array_agg(a.value ORDER BY a.value) FROM loquat.addresses AS a WHERE a.contact_id = c.id)"
        " FROM public.contacts AS c",
        "conversations": "SELECT number_id, status, state FROM public.conversations",
    }
    return {name: sorted(repr(dict(r)) for r in await root.fetch(query)) for name, query in queries.items()}


def in_batches(events: list[AnyEvent], dice: random.Random) -> list[list[AnyEvent]]:
    left, batches = list(events), list[list[AnyEvent]]()
    while left:
        size = dice.choice([1, 2, 5, 20, 100])
        batches.append(left[:size])
        left = left[size:]
    return batches


@pytest.mark.promise("P2")
@pytest.mark.promise("P6")
async def test_any_order_any_split_and_any_repetition_give_the_same_rows(log: Log, project: Project) -> None:
    events = mixed(project, await opened(log, project))
    assert await log.handle(*events) == [Done()] * len(events)
    once, told = await rows(project), set(log.changes())
    assert len(once["messages"]) == 3 + 15 + 4
    assert len(once["events"]) == 3 + 15 + 4
    assert len(once["receipts"]) == 1, "a status of a message that never came"
    for seed in range(12):
        dice = random.Random(seed)  # noqa: S311  (a die, no secret)
        await project.wipe()
        again = mixed(project, await opened(log, project))
        dice.shuffle(again)
        for batch in in_batches(again + dice.choices(again, k=15), dice):
            assert await log.handle(*batch) == [Done()] * len(batch), seed
        assert await rows(project) == once, seed
    assert set(log.changes()) == told


@pytest.mark.promise("P2")
async def test_a_status_that_comes_before_its_message_waits_for_it_and_statuses_only_rise(log: Log, project: Project) -> None:
    conversations = await opened(log, project)
    shown = "SELECT status FROM public.messages WHERE id = $1"
    root, steps = await project.root(), list[str]()
    for event in (
        status(project, 0, "delivered", 5),
        outgoing(project, 0, conversations[PEOPLE[0]]),
        status(project, 0, "sent", 4),
        outcome(project, 0, "accepted", 3, wamid="wamid.out.0"),
        status(project, 0, "read", 6, known=False),
        status(project, 0, "failed", 7),
    ):
        await log.handle(event)
        steps.append(await root.fetchval(shown, key("out 0")))
    assert steps == [None, "delivered", "delivered", "delivered", "read", "read"]


@pytest.mark.promise("P6")
async def test_a_type_that_nobody_knows_is_recorded_with_all_that_came(log: Log, project: Project) -> None:
    strange = received(project, "491", 1, kind="hologram", content={"depth": [1, {"x": None}], "text": "a\0b\ud800c"})
    assert await log.handle(strange) == [Done()]
    row = await (await project.root()).fetchrow("SELECT type, content, raw::text FROM public.messages")
    assert row is not None
    assert (row["type"], row["content"]) == ("hologram", {"depth": [1, {"x": None}], "text": "a\ufffdb\ufffdc"})
    assert json.loads(row["raw"])["hologram"]["text"] == "a\0b\ud800c"
    assert [e.data.status for e in log.broker.events(CHANGES) if isinstance(e.data, MessageChanged)] == ["received"]


def too_long(project: Project) -> AnyEvent:
    """No index takes this wamid, and no gateway lets it pass: a bug, as the database sees it."""
    dice = random.Random(1)  # noqa: S311  (a die, no secret)
    return received(project, "491", 77, wamid="".join(dice.choices(string.ascii_letters + string.digits, k=20_000)))


async def test_one_bad_event_of_fifty_dies_alone_with_its_reason_and_the_others_are_recorded(log: Log, project: Project) -> None:
    events = [received(project, f"49{n}", n) for n in range(47)]
    bad = [(5, too_long(project)), (30, outgoing(project, 1, key("no such conversation"))), (49, too_long(project))]
    for n, event in bad:
        events.insert(n, event)
    outcomes = await log.handle(*events)
    assert [n for n, o in enumerate(outcomes) if o != Done()] == [n for n, _ in bad]
    reasons = [o.reason for o in outcomes if isinstance(o, Dead)]
    assert [r.rpartition(": ")[2] for r in reasons] == [
        "ProgramLimitExceededError 54000",
        "ForeignKeyViolationError 23503",
        "ProgramLimitExceededError 54000",
    ]
    root = await project.root()
    assert await root.fetchval("SELECT count(*) FROM public.messages") == 47
    assert await root.fetchval("SELECT count(*) FROM loquat.events") == 47
    assert len(log.changes()) == 47


@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
@pytest.mark.parametrize("point", POINTS)
async def test_a_death_at_any_point_and_the_batch_again_give_the_same_rows_and_the_same_changes(
    log: Log, project: Project, point: str
) -> None:
    events = mixed(project, await opened(log, project))
    before = log.changes()
    (log.folder / point).write_text("raise")
    with pytest.raises(FailpointError):
        await log.handle(*events)
    assert await log.handle(*events) == [Done()] * len(events)
    found, told = await rows(project), log.changes() - before
    await project.wipe()
    whole = mixed(project, await opened(log, project))
    assert await log.handle(*whole) == [Done()] * len(whole)
    assert await rows(project) == found
    assert set(told) == set(log.changes() - before - told) - set(before)
    assert max(told.values()) == (2 if point == POINTS[2] else 1)


@pytest.mark.promise("P2")
async def test_changes_that_the_bus_did_not_take_are_told_when_the_batch_comes_again(log: Log, project: Project) -> None:
    event = received(project, "491", 1)
    log.broker.down = True
    with pytest.raises(BusUnavailable):
        await log.handle(event)
    log.broker.down = False
    assert not log.changes()
    assert await log.handle(event, event) == [Done(), Done()]
    assert list(log.changes().values()) == [2]
    assert await (await project.root()).fetchval("SELECT count(*) FROM public.messages") == 1


async def test_what_is_told_names_the_message_and_its_conversation_and_no_text(log: Log, project: Project) -> None:
    conversations = await opened(log, project)
    await log.handle(outgoing(project, 0, conversations["491"]), status(project, 0, "sent", 1), status(project, 1, "sent", 1, known=False))
    told = [e.data for e in log.broker.events(CHANGES) if isinstance(e.data, MessageChanged)]
    assert {(d.message_id, d.conversation_id, d.direction, d.status) for d in told} == {
        *((key(f"{p} 0"), conversations[p], "in", "received") for p in PEOPLE),
        (key("out 0"), conversations["491"], "out", "queued"),
        (key("out 0"), None, "out", "sent"),
    }
    assert {e.projectid for e in log.broker.events(CHANGES)} == {project.project_id}
    assert not any("text" in (e.data.model_fields_set | e.data.__dict__.keys()) for e in log.broker.events(CHANGES))


async def test_a_project_that_is_made_or_moved_is_waited_for_and_one_that_is_gone_is_not(log: Log, project: Project) -> None:
    event = received(project, "491", 1)
    waiting: list[tuple[ProjectState, int]] = [("creating", 1), ("failed", 1), ("ready", 2)]
    for state, epoch in waiting:
        await log.know(project, state, epoch)
        assert [type(o) for o in await log.handle(event, event)] == [Defer, Defer]
    assert not log.changes()
    await log.know(project, "deleting")
    assert await log.handle(event) == [Done()]
    assert await (await project.root()).fetchval("SELECT count(*) FROM public.messages") == 1
    elsewhere = event.model_copy(update={"projectid": "prj_nobodys"})
    assert [type(o) for o in await log.handle(elsewhere)] == [Defer], "the directory may be behind"
    long_ago = elsewhere.model_copy(update={"time": elsewhere.time - timedelta(minutes=1)})
    assert await log.handle(long_ago) == [Done()]


@pytest.mark.promise("P3")
@pytest.mark.promise("P7")
async def test_a_project_whose_database_is_away_waits_in_rows_while_its_neighbour_is_recorded(
    log: Log, project: Project, neighbour: Project
) -> None:
    bus, gateway = MemoryBus("conversation-log", log.broker), MemoryBus("gateway", log.broker)
    group = bus.subscribe_batches("conversation-log", [INBOX, OUTBOX, RECEIPTS], log.recorder().handle, Batching(linger=0.001))
    store, task = log.broker.stores["conversation-log"], asyncio.create_task(group.run())
    root, name = await neighbour.root(), Ident(project.database)
    count = "SELECT count(*) FROM public.messages"
    await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS false", name=name))
    try:
        with pytest.raises(DatabaseAway):
            await log.handle(received(project, "491", 1))
        await gateway.publish(*(received(p, "491", n) for n in range(1, 6) for p in (project, neighbour)))

        async def apart() -> bool:
            waiting = [(r.record.project, r.state, r.attempts) for r in store.rows.values()]
            return waiting == [(project.project_id, "deferred", 0)] * 5 and await root.fetchval(count) == 5

        await until(apart, "the neighbour is recorded, the others wait in rows and no attempt was counted")
    finally:
        await root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS true", name=name))
    back = await project.root()

    async def recorded() -> bool:
        for row in store.rows.values():
            row.next_at = 0.0  # sooner than in earnest
        return not store.rows and await back.fetchval(count) == 5

    await until(recorded, "all are recorded")
    assert await group.drain(5)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
