"""Link columns follow merges and erases as the project's editor: what a table's own code does hurts that table and nobody else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import asyncpg
import pytest
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Done, Received
from loquat_common.failpoints import FailpointError, Failpoints
from loquat_common.http import Api
from loquat_events.contacts import ContactErased, ContactMerged
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectReady
from loquat_schema_manager.adapters.editors import Editors
from loquat_schema_manager.adapters.followed import Followed, FollowedRows
from loquat_schema_manager.adapters.following import Follower, Step
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.domain.followings import TRIES, Following, LinkColumn
from loquat_schema_manager.handlers.followings import Followings

from tests.changing import control
from tests.desk import open_desk
from tests.system.world import until
from tests.tenants import Desk, Project, message

if TYPE_CHECKING:
    from conftest import Platform

    Pool = asyncpg.Pool[asyncpg.Record]

NOW: Final = datetime(2026, 11, 24, 12, tzinfo=UTC)
_MARK: Final = "COMMENT ON COLUMN {} IS 'loquat:link={}'"
_TRIGGER: Final = """
CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {body} END $$;
CREATE TRIGGER hostile {when} ON {table} FOR EACH ROW EXECUTE FUNCTION {name}()"""


def _nothing(_api: Api, _editors: Editors, _bus: MemoryBus) -> None:
    """No operation is asked for here."""


def _told_nobody(_project: str, _table: str, _rows: int, _actor: str) -> None:
    """No live view."""


@dataclass(slots=True)
class Links:
    """The follower on one project, with two people and the bot's login."""

    project: Project
    pool: Pool
    rows: FollowedRows
    editors: Editors
    followings: Followings
    history: History
    bot: asyncpg.Connection[asyncpg.Record]
    log: Desk
    points: Path
    changed: list[tuple[str, int, str]]
    ids: dict[str, UUID] = field(default_factory=dict[str, UUID])

    async def person(self, name: str) -> UUID:
        """A contact who wrote once."""
        (recorded,) = await self.log.record(message(f"wa_id:{name}"))
        root = await self.project.root()
        self.ids[f"conversation of {name}"] = recorded["conversation_id"]
        self.ids[f"message of {name}"] = recorded["event_id"]
        return await root.fetchval("SELECT contact_id FROM public.conversations WHERE id = $1", recorded["conversation_id"])

    async def table(self, name: str, rest: str = "who uuid", link: str = "contact") -> None:
        await self.bot.execute(f"CREATE TABLE {name} (id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY, {rest})")
        await self.bot.execute(_MARK.format(f"{name}.who", link))

    async def hear(self, data: Payload, key: UUID) -> None:
        event = Event[Payload].of(data, id=key, source="/t", time=NOW, project=self.project.project_id, lane="contacts")
        assert await self.followings.handle(Received(event, "projects.events.v1", 0, 1)) == Done()

    async def merge(self, contact: UUID, into: UUID, *, epoch: int = 1, key: UUID | None = None) -> UUID:
        """As conversation-log: in the record, then told; the order."""
        await self.log.log.execute("SELECT loquat.merge_contacts($1, $2)", contact, into)
        order = uuid4()
        data = ContactMerged(
            project_id=self.project.project_id, order_id=order, contact_id=contact, into=into, epoch=epoch, actor="anna", at=NOW
        )
        await self.hear(data, key or uuid4())
        return order

    async def erase(self, contact: UUID, *, key: UUID | None = None) -> UUID:
        people = await self.log.log.fetchval("SELECT people FROM loquat.erase_contact($1, 1000)", contact)
        order = uuid4()
        data = ContactErased(
            project_id=self.project.project_id, order_id=order, contact_id=contact, people=people, epoch=1, actor="anna", at=NOW
        )
        await self.hear(data, key or uuid4())
        return order

    async def work(self) -> None:
        while await self.followings.once():
            continue

    async def shown(self, order: UUID) -> Followed:
        found = await self.rows.show(self.project.project_id, order)
        assert found is not None
        return found

    async def states(self, order: UUID) -> dict[str, tuple[str, int]]:
        return {c.table: (c.state, c.rows) for c in (await self.shown(order)).columns}

    async def values(self, table: str) -> list[Any]:
        return [r[0] for r in await self.bot.fetch(f"SELECT who FROM {table} ORDER BY id")]  # noqa: S608  (a test's name)


@pytest.fixture
async def links(project: Project, platform: Platform, tmp_path: Path) -> AsyncGenerator[Links]:
    changed = list[tuple[str, int, str]]()
    async with open_desk(project, _nothing) as desk:
        pool, bot, log = await control(platform), await desk.bot(), await Desk.of(project)

        def note(_project: str, table: str, rows: int, actor: str) -> None:
            changed.append((table, rows, actor))

        rows = FollowedRows(pool, lambda: 0.5)
        followings = Followings(rows, Follower(desk.editors, note), Failpoints(tmp_path), attempt=20)
        yield Links(project, pool, rows, desk.editors, followings, History(desk.editors, note), bot, log, tmp_path, changed)


async def test_links_of_a_merged_contact_are_links_to_the_other_one_and_rows_are_counted_and_told(links: Links) -> None:
    a, b = await links.person("491"), await links.person("492")
    await links.table('"odd "" name"')
    await links.table("unmarked")
    await links.bot.execute("COMMENT ON COLUMN unmarked.who IS 'who it is'")
    for table in ('"odd "" name"', "unmarked"):
        await links.bot.execute(f"INSERT INTO {table} (who) SELECT $1::uuid FROM generate_series(1, 2500) UNION ALL SELECT $2::uuid", a, b)  # noqa: S608
    order = await links.merge(a, b)
    await links.work()
    assert set(await links.values('"odd "" name"')) == {b}
    assert set(await links.values("unmarked")) == {a, b}
    assert (await links.shown(order)).state == "done"
    assert await links.states(order) == {'odd " name': ("done", 2500)}
    assert sum(n for _, n, _ in links.changed) == 2500
    assert {(t, who) for t, _, who in links.changed} == {('odd " name', "anna")}


async def test_links_of_an_erased_person_are_null_or_their_rows_are_gone_and_so_is_what_history_noted(links: Links) -> None:
    a, b = await links.person("491"), await links.person("492")
    for table, rest, link in (
        ("notes", "who uuid, body text", "contact"),
        ("cards", "who uuid NOT NULL, body text", "contact"),
        ("talks", "who uuid, body text", "conversation"),
        ("words", "who uuid NOT NULL, body text", "message"),
    ):
        await links.table(table, rest, link)
        await links.history.switch(links.project.project_id, table, enabled=True)
        for name, person in (("491", a), ("492", b)):
            target = person if link == "contact" else links.ids[f"{link} of {name}"]
            await links.bot.execute(f"INSERT INTO {table} (who, body) VALUES ($1, $2)", target, name)  # noqa: S608
    await links.bot.execute("CREATE TABLE parts (id int, who uuid) PARTITION BY LIST (id)")
    await links.bot.execute("CREATE TABLE parts_1 PARTITION OF parts FOR VALUES IN (1); CREATE TABLE parts_2 PARTITION OF parts DEFAULT")
    await links.bot.execute(_MARK.format("parts.who", "contact"))
    await links.bot.execute("INSERT INTO parts VALUES (1, $1), (2, $1), (1, $2), (2, $2)", b, a)
    order = await links.erase(a)
    await links.work()
    kept = {t: await links.values(t) for t in ("notes", "cards", "talks", "words", "parts")}
    assert kept == {
        "notes": [None, b],
        "cards": [b],
        "talks": [None, links.ids["conversation of 492"]],
        "words": [links.ids["message of 492"]],
        "parts": [b, None, b, None],
    }
    assert await links.states(order) == {**dict.fromkeys(("notes", "cards", "talks", "words"), ("done", 1)), "parts": ("done", 2)}
    noted = [r[0] for r in await links.bot.fetch("SELECT h::text FROM row_history AS h")]
    assert len(noted) == 4
    assert not [h for h in noted if str(a) in h or str(links.ids["message of 491"]) in h or str(links.ids["conversation of 491"]) in h]


HOSTILE: Final[list[tuple[str, str, str]]] = [
    ("BEFORE UPDATE", "RAISE 'no';", "raised"),
    ("BEFORE UPDATE", "RAISE SQLSTATE 'XX001';", "raised"),
    ("BEFORE UPDATE", "RAISE SQLSTATE '57P01';", "raised"),
    ("BEFORE UPDATE", "RETURN NULL;", "kept"),
    ("BEFORE UPDATE", "NEW.who := OLD.who; RETURN NEW;", "kept"),
    ("BEFORE UPDATE", "PERFORM set_config('role', 'none', true); DELETE FROM public.contacts; RETURN NEW;", "forbidden"),
]


@pytest.mark.promise("P4")
@pytest.mark.parametrize(("when", "body", "code"), HOSTILE)
async def test_a_table_that_refuses_says_why_is_tried_again_and_keeps_no_other(links: Links, when: str, body: str, code: str) -> None:
    a, b = await links.person("491"), await links.person("492")
    for table in ("after_it", "bad", "a_before_it"):
        await links.table(table)
        await links.bot.execute(f"INSERT INTO {table} (who) VALUES ($1)", a)  # noqa: S608
    await links.bot.execute(_TRIGGER.format(name="hostile", body=body, when=when, table="bad"))
    order = await links.merge(a, b)
    for _ in range(TRIES):
        await links.pool.execute("UPDATE followings SET next_at = now(); UPDATE followed_columns SET next_at = now()")
        await links.work()
    found = await links.shown(order)
    assert await links.states(order) == {"a_before_it": ("done", 1), "after_it": ("done", 1), "bad": ("failed", 0)}
    (bad,) = [c for c in found.columns if c.table == "bad"]
    assert (found.state, bad.attempts, (bad.reason or "").partition(":")[0]) == ("failed", TRIES, code)
    assert await links.values("bad") == [a]


@pytest.mark.parametrize(("shut", "attempts"), [(True, 0), (False, 1)])
async def test_a_cluster_that_is_away_is_no_refusal_and_a_table_whose_session_is_ended_has_refused(
    links: Links, *, shut: bool, attempts: int
) -> None:
    a, b = await links.person("491"), await links.person("492")
    await links.table("notes")
    await links.bot.execute("INSERT INTO notes (who) VALUES ($1)", a)
    root, editor = await links.project.root(), await (await links.project.login("editor")).fetchval("SELECT session_user")
    waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock')"

    class Ended(Follower):
        """Its session is ended while it waits for the table; where it is `shut`, the project's editor is not let in again."""

        async def step(self, following: Following, column: LinkColumn) -> Step:
            task = asyncio.create_task(super().step(following, column))
            await until(lambda: root.fetchval(waits, editor), "it waits", 5)
            if shut:
                await root.execute(f'ALTER ROLE "{editor}" NOLOGIN')
            await root.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", editor)
            return await task

    order = await links.merge(a, b)
    await links.bot.execute("BEGIN; LOCK TABLE notes IN EXCLUSIVE MODE")
    try:
        assert await Followings(links.rows, Ended(links.editors, _told_nobody), Failpoints(None)).once()
    finally:
        await root.execute(f'ALTER ROLE "{editor}" LOGIN')
        await links.bot.execute("ROLLBACK")
    (column,) = (await links.shown(order)).columns
    assert (column.state, column.attempts) == ("open", attempts)


async def test_what_was_given_up_is_begun_again_when_it_is_said_again(links: Links) -> None:
    a, key = await links.person("491"), uuid4()
    await links.table("bad")
    await links.bot.execute("INSERT INTO bad (who) VALUES ($1)", a)
    await links.bot.execute(_TRIGGER.format(name="hostile", body="RAISE 'no';", when="BEFORE UPDATE", table="bad"))
    order = await links.erase(a, key=key)
    for _ in range(TRIES):
        await links.pool.execute("UPDATE followings SET next_at = now(); UPDATE followed_columns SET next_at = now()")
        await links.work()
    await links.bot.execute("DROP TRIGGER hostile ON bad")
    await links.work()
    assert (await links.shown(order)).state == "failed"
    await links.erase(a, key=key)
    await links.work()
    assert await links.states(order) == {"bad": ("done", 1)}


@pytest.mark.promise("P4")
async def test_a_trigger_that_never_ends_and_one_that_always_has_more_cost_one_attempt_each_and_no_other_project(links: Links) -> None:
    a, b = await links.person("491"), await links.person("492")
    for table in ("sleepy", "endless", "well"):
        await links.table(table)
        await links.bot.execute(f"INSERT INTO {table} (who) VALUES ($1)", a)  # noqa: S608
    await links.bot.execute(
        _TRIGGER.format(name="again", body="INSERT INTO endless (who) VALUES (OLD.who); RETURN NULL;", when="AFTER UPDATE", table="endless")
    )
    await links.bot.execute("BEGIN; LOCK TABLE sleepy IN EXCLUSIVE MODE")  # as good as a trigger that sleeps, and soon over
    order = await links.merge(a, b)
    ticks = iter(range(1000))
    quick = Followings(
        links.rows,
        Follower(links.editors, _told_nobody),
        Failpoints(None),
        attempt=20,
        clock=lambda: next(ticks) * 1.0,
    )
    assert await quick.once()
    states = {c.table: (c.state, c.attempts, (c.reason or "").partition(":")[0]) for c in (await links.shown(order)).columns}
    assert states["endless"] == ("open", 1, "unfinished")
    await links.pool.execute("UPDATE followings SET next_at = now()")
    assert await quick.once()
    states = {c.table: (c.state, c.attempts, (c.reason or "").partition(":")[0]) for c in (await links.shown(order)).columns}
    assert states["sleepy"] == ("open", 1, "locked")
    assert states["well"] == ("done", 0, "")
    await links.bot.execute("ROLLBACK")


@pytest.mark.promise("P2")
async def test_a_process_that_dies_between_two_batches_is_followed_by_one_that_goes_on(links: Links) -> None:
    a, b = await links.person("491"), await links.person("492")
    await links.table("notes")
    await links.bot.execute("INSERT INTO notes (who) SELECT $1 FROM generate_series(1, 1500)", a)
    order = await links.merge(a, b)
    (links.points / "schema_manager.following.step").write_text("raise")
    with pytest.raises(FailpointError):
        await links.followings.once()
    assert not await links.followings.once(), "it is leased"
    await FollowedRows(links.pool, lambda: 0.5, "another").release()
    assert not await links.followings.once(), "by somebody else"
    await links.rows.release()
    await links.work()
    assert set(await links.values("notes")) == {b}
    assert await links.states(order) == {"notes": ("done", 500)}, "the count of one batch was lost"


async def test_a_later_merge_decides_whatever_was_late_and_a_restored_database_has_its_own_events(links: Links) -> None:
    a, b, c = [await links.person(n) for n in ("491", "492", "493")]
    await links.table("notes")
    await links.bot.execute("INSERT INTO notes (who) VALUES ($1), ($2)", a, b)
    first, second = await links.merge(a, b), await links.merge(b, c)
    await links.pool.execute("UPDATE followings SET next_at = now() + interval '1 hour' WHERE order_id = $1", first)
    await links.work()
    await links.pool.execute("UPDATE followings SET next_at = now()")
    await links.work()
    assert await links.values("notes") == [c, c]
    assert [(await links.shown(o)).state for o in (first, second)] == ["done", "done"]
    stale = await links.merge(a, b, epoch=0)
    await links.work()
    assert (await links.shown(stale)).reason == "the database was restored since"


async def test_other_events_are_nothing_to_it_and_a_project_that_is_gone_is_forgotten(links: Links) -> None:
    await links.hear(ProjectReady(project_id=links.project.project_id, at=NOW), uuid4())
    assert await links.rows.projects() == []
    order = await links.merge(await links.person("491"), await links.person("492"))
    assert await links.rows.projects() == [links.project.project_id]
    await links.rows.forget(links.project.project_id)
    assert await links.rows.show(links.project.project_id, order) is None


async def test_the_loop_begins_with_what_its_process_left_behind_and_wakes_when_something_is_noted(links: Links) -> None:
    a, b, c = [await links.person(n) for n in ("491", "492", "493")]
    await links.table("notes")
    await links.bot.execute("INSERT INTO notes (who) VALUES ($1)", a)
    first = await links.merge(a, b)
    assert await links.rows.claim() is not None
    task = asyncio.create_task(links.followings.run())
    try:
        for order in (first, await links.merge(b, c)):

            async def done(order: UUID = order) -> bool:
                return (await links.shown(order)).state == "done"

            await until(done, "it is followed", 10)
        assert await links.values("notes") == [c]
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def test_what_was_followed_long_ago_goes_and_that_a_person_was_erased_stays_known(links: Links) -> None:
    a, b, c = [await links.person(name) for name in ("491", "492", "493")]
    await links.table("notes")
    await links.bot.execute("INSERT INTO notes (who) VALUES ($1), ($2)", a, c)
    told = uuid4()
    merge, erase = await links.merge(a, b, key=told), await links.erase(c)
    await links.work()
    assert await links.rows.sweep() == 0
    await links.pool.execute("UPDATE followings SET ended_at = now() - interval '91 days'")
    while await links.rows.sweep():
        continue
    assert await links.rows.show(links.project.project_id, merge) is None
    assert await links.shown(erase) == Followed("done", None, ())
    again = ContactMerged(project_id=links.project.project_id, order_id=merge, contact_id=a, into=b, epoch=1, actor="anna", at=NOW)
    await links.hear(again, told)
    await links.work()
    assert await links.states(merge) == {"notes": ("done", 0)}, "heard again, it finds nothing to do"
