"""Orders to merge and to erase contacts: executed once whatever breaks off, told on the bus, and done again in a database that comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Final
from uuid import UUID, uuid4

import pytest
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Defer, Done, Outcome, Received
from loquat_common.db import ProjectPools
from loquat_common.directory import Directory
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.migrate import load, migrate
from loquat_common.retention import Retention
from loquat_conversation_log.adapters.orders import Orders
from loquat_conversation_log.adapters.people import ProjectPeople
from loquat_conversation_log.domain.orders import Order
from loquat_conversation_log.handlers.contacts import Contacts
from loquat_conversation_log.handlers.returns import Returns
from loquat_events.catalog import PROJECTS
from loquat_events.contacts import ContactErased, EraseContact, MergeContacts
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.projects import ProjectListed

from tests.tenants import Desk, Project, message

if TYPE_CHECKING:
    from conftest import Platform

NOON: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
POINTS: Final = [f"conversation_log.contacts.{p}" for p in ("accepted", "step", "executed", "ended")]
BACK: Final = ["conversation_log.contacts.step", "conversation_log.returns.executed", "conversation_log.returns.published"]
LEFT: Final = "SELECT count(*) FROM public.messages WHERE text IS NOT NULL OR raw IS NOT NULL"


@dataclass(slots=True)
class Listing:
    """The directory's table, as far as it is asked."""

    entries: dict[str, AnyEvent] = field(default_factory=dict[str, AnyEvent])
    told: list[Callable[[str, AnyEvent | None], None]] = field(default_factory=list[Callable[[str, "AnyEvent | None"], None]])

    def get(self, key: str) -> AnyEvent | None:
        return self.entries.get(key)

    def age(self) -> float:
        return 0.0

    def on_change(self, call: Callable[[str, AnyEvent | None], None]) -> None:
        self.told.append(call)

    def list(self, project: Project, epoch: int = 1) -> None:
        listed = ProjectListed(
            project_id=project.project_id,
            organization_id="o",
            name="p",
            state="ready",
            cluster="tenants",
            database=project.database,
            epoch=epoch,
        )
        key = f"{project.project_id}:project"
        self.entries[key] = wrap(listed, project, uuid4())
        for call in self.told:
            call(key, self.entries[key])


def wrap(data: Payload, project: Project, key: UUID) -> AnyEvent:
    return Event[Payload].of(data, id=key, source="/test", time=NOON, project=project.project_id, lane="contacts")


@dataclass(slots=True)
class Office:
    """The handler of orders, with real rows and a real project database."""

    project: Project
    desk: Desk
    orders: Orders
    contacts: Contacts
    returns: Returns
    listing: Listing
    bus: MemoryBus
    points: Path

    async def order(self, data: Payload, key: UUID) -> Outcome:
        """One delivery; what the handler wants published is."""
        outcome = await self.contacts.handle(Received(wrap(data, self.project, key), "contacts.commands.v1", 0, 1))
        if isinstance(outcome, Done):
            await self.bus.publish(*outcome.publish)
        return outcome

    async def erase(self, contact: UUID, key: UUID) -> Outcome:
        return await self.order(EraseContact(project_id=self.project.project_id, contact_id=contact, ordered_by="key_of_anna"), key)

    async def merge(self, contact: UUID, into: UUID, key: UUID) -> Outcome:
        return await self.order(
            MergeContacts(project_id=self.project.project_id, contact_id=contact, into=into, ordered_by="key_of_anna"), key
        )

    async def state(self, key: UUID) -> tuple[str, str | None, int | None]:
        kept = await self.orders.get(self.project.project_id, key)
        assert kept is not None
        return kept.state, kept.reason, kept.epoch

    async def people(self, *addresses: str, messages: int = 3) -> list[UUID]:
        await self.desk.record(*(message(a, text="hi Annabel") for a in addresses for _ in range(messages)))
        root = await self.project.root()
        return [await root.fetchval("SELECT contact_id FROM loquat.addresses WHERE kind || ':' || value = $1", a) for a in addresses]

    def told(self) -> list[AnyEvent]:
        return list(self.bus.broker.events(PROJECTS))


@pytest.fixture
async def office(platform: Platform, pools: ProjectPools, project: Project, tmp_path: Path) -> Office:
    pool = await platform.pool("conversation-log")
    async with pool.acquire() as connection:
        migrations = load(files("loquat_conversation_log.migrations"))
        await migrate(connection, schema="conversation_log", component="conversation-log", migrations=migrations)
    listing, bus, points = Listing(), MemoryBus("conversation-log", MemoryBroker()), Failpoints(tmp_path)
    orders, directory = Orders(pool), Directory(listing)  # pyright: ignore[reportArgumentType]  (a part of a table)
    contacts = Contacts(ProjectPeople(pools, batch=2), orders, directory, points, lambda: NOON)
    returns = Returns(orders, contacts, listing, bus, points, lambda: NOON)  # pyright: ignore[reportArgumentType]
    listing.list(project)
    return Office(project, await Desk.of(project), orders, contacts, returns, listing, bus, tmp_path)


@pytest.mark.promise("P2")
@pytest.mark.parametrize("point", POINTS)
async def test_an_erase_cut_off_at_any_point_is_finished_when_it_comes_again_and_told_under_one_id(office: Office, point: str) -> None:
    (anna,), key, root = await office.people("wa_id:4915112347001"), uuid4(), await office.project.root()
    (office.points / point).write_text("raise")
    with pytest.raises(FailpointError):
        await office.erase(anna, key)
    for _ in range(2):
        await office.erase(anna, key)
        assert (await office.state(key), await root.fetchval(LEFT)) == (("done", None, 1), 0)
    told = office.told()
    assert len({e.id for e in told}) == 1
    assert [e.data.people for e in told if isinstance(e.data, ContactErased)] == [(anna,)] * 2
    assert b"4915112347001" not in told[0].to_json()


@pytest.mark.promise("P2")
@pytest.mark.parametrize("point", [p for p in POINTS if not p.endswith("step")])
async def test_a_merge_cut_off_at_any_point_is_done_once_when_it_comes_again(office: Office, point: str) -> None:
    (a, b), key, root = await office.people("wa_id:491", "wa_id:492"), uuid4(), await office.project.root()
    (office.points / point).write_text("raise")
    with pytest.raises(FailpointError):
        await office.merge(a, b, key)
    assert isinstance(await office.merge(a, b, key), Done)
    assert await office.state(key) == ("done", None, 1)
    assert await root.fetchval("SELECT count(DISTINCT contact_id) FROM public.conversations") == 1
    assert len(office.told()) == 1


async def test_what_cannot_be_done_any_more_is_refused_with_the_word_for_it_and_told_to_nobody(office: Office) -> None:
    (a, b, c), keys = await office.people("wa_id:491", "wa_id:492", "wa_id:493"), [uuid4() for _ in range(4)]
    await office.merge(a, b, keys[0])
    await office.merge(a, c, keys[1])
    await office.merge(c, a, keys[2])
    await office.erase(a, keys[3])
    assert [(await office.state(k))[:2] for k in keys] == [
        ("done", None),
        ("refused", "merged"),
        ("refused", "into_merged"),
        ("refused", "merged"),
    ]
    assert len(office.told()) == 1


@pytest.mark.promise("P2")
async def test_a_merge_that_was_done_stays_done_when_it_comes_again_after_the_next_one(office: Office) -> None:
    (a, b, c), first, then = await office.people("wa_id:491", "wa_id:492", "wa_id:493"), uuid4(), uuid4()
    for contact, into, key in ((a, b, first), (b, c, then), (a, b, first)):
        assert isinstance(await office.merge(contact, into, key), Done)
    assert [await office.state(k) for k in (first, then)] == [("done", None, 1)] * 2
    assert len({e.id for e in office.told()}) == 2


async def test_a_handler_about_to_commit_and_a_database_that_is_behind_are_waited_for(office: Office) -> None:
    (anna,), key, root = await office.people("wa_id:491"), uuid4(), await office.project.root()
    event = message("wa_id:491")
    begun = await office.desk.begin(event)
    bot = await office.project.login("bot")
    await bot.execute("BEGIN")
    await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], {"replies": []})
    assert isinstance(await office.erase(anna, key), Defer)
    await bot.execute("ROLLBACK")
    await root.execute("ALTER FUNCTION loquat.erase_contact RENAME TO erase_contact_later")
    try:
        assert isinstance(await office.erase(anna, key), Defer)
    finally:
        await root.execute("ALTER FUNCTION loquat.erase_contact_later RENAME TO erase_contact")
    assert (await office.state(key))[0] == "waiting"
    await office.erase(anna, key)
    assert (await office.state(key))[0] == "done"


@pytest.mark.promise("P2")
@pytest.mark.parametrize("point", [None, *BACK])
async def test_who_was_erased_is_erased_again_in_a_database_that_comes_back_from_before(office: Office, point: str | None) -> None:
    (a, b), key, root = await office.people("wa_id:491", "wa_id:492"), uuid4(), await office.project.root()
    await office.merge(a, b, uuid4())
    await office.erase(b, key)
    # as of before both: two people, with their words
    await root.execute("UPDATE public.contacts SET merged_into = NULL, erased_at = NULL, name = 'Annabel'")
    await root.execute(
        "UPDATE public.conversations SET contact_id = $1 WHERE id = (SELECT min(id::text)::uuid FROM public.conversations)", a
    )
    await root.execute("UPDATE public.messages SET text = 'hi Annabel'")
    await root.execute("UPDATE loquat.identity SET epoch = 2")
    try:
        office.listing.list(office.project, epoch=2)
        if point is not None:
            (office.points / point).write_text("raise")
            with pytest.raises(FailpointError):
                await office.returns.once()
        assert await office.returns.once()
        assert (await office.state(key), await root.fetchval(LEFT)) == (("done", None, 2), 0)
        assert await root.fetchval("SELECT count(*) FROM public.contacts WHERE name IS NOT NULL") == 0
        said = [e for e in office.told() if isinstance(e.data, ContactErased) and e.data.epoch == 2]
        assert len({e.id for e in said}) == 1
        assert {e.data.people for e in said if isinstance(e.data, ContactErased)} == {tuple(sorted((a, b)))}
        assert await office.returns.once(), "nothing is left to do"
    finally:
        await root.execute("UPDATE loquat.identity SET epoch = 1")


async def test_a_project_that_is_away_keeps_no_other_from_being_erased_again(office: Office, neighbour: Project) -> None:
    (anna,), key = await office.people("wa_id:491"), uuid4()
    await office.erase(anna, key)
    office.listing.list(neighbour, epoch=7)
    lost = EraseContact(project_id=neighbour.project_id, contact_id=anna, ordered_by="k")
    office.listing.list(neighbour)
    await office.contacts.handle(Received(wrap(lost, neighbour, uuid4()), "contacts.commands.v1", 0, 1))
    office.listing.list(neighbour, epoch=7)
    root = await office.project.root()
    await root.execute("UPDATE loquat.identity SET epoch = 2")
    try:
        office.listing.list(office.project, epoch=2)
        await asyncio.wait_for(office.returns.once(), 10)
        assert (await office.state(key))[2] == 2
    finally:
        await root.execute("UPDATE loquat.identity SET epoch = 1")


async def test_orders_that_protect_nothing_go_after_their_days_and_erases_are_remembered_for_good(office: Office) -> None:
    old = "INSERT INTO contact_orders (id, project_id, kind, contact_id, into_id, ordered_by, state, epoch, ordered_at, ended_at)"
    values = "SELECT uuidv7(), 'p', k, uuidv7(), CASE WHEN k = 'merge' THEN uuidv7() END, 'anna', s, 1, now() - $1::interval, CASE WHEN s <> 'waiting' THEN now() - $1::interval END"
    given = "FROM unnest(ARRAY['merge', 'erase']) AS k, unnest(ARRAY['waiting', 'done', 'refused']) AS s"
    for age in (timedelta(days=91), timedelta(days=89)):
        await office.orders._pool.execute(f"{old} {values} {given}", age)
    assert await Retention(office.orders.sweep).sweep() == 4
    rows = await office.orders._pool.fetch(
        "SELECT kind || ' ' || state FROM contact_orders WHERE ordered_at < now() - interval '90 days' ORDER BY 1"
    )
    assert [r[0] for r in rows] == ["erase done", "erase waiting"]
    (anna,), key = await office.people("wa_id:4915112347099"), uuid4()
    asked = Order(key, office.project.project_id, "erase", anna, None, "anna")
    await office.orders.accept(asked, 1)
    await office.orders.end(key, "refused", epoch=1)
    await office.orders._pool.execute("UPDATE contact_orders SET ordered_at = now() - interval '1 year' WHERE id = $1", key)
    await office.orders.accept(asked, 1)
    assert await office.orders.sweep() == 0, "one that was refused and is given again is a new one"
