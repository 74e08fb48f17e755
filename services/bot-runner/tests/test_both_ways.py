"""What a person changes by the API the bot sees at its next query; what the bot commits live views are told of, with the right counts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, cast
from uuid import UUID, uuid4

import asyncpg
import pytest
from loquat.database import Database
from loquat_bot_runner.adapters.deployments import Deployed
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.errors import BotError
from loquat_bot_runner.handlers.inbox import Inbox
from loquat_bot_runner.handlers.timed import Timed
from loquat_bot_runner.ports import Task
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.db import ProjectPools, as_service
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.settings import ClusterAddress
from loquat_events.bots import BotDeployed
from loquat_events.catalog import DEPLOYMENTS, DIRECTORY, INBOX, PROJECTS, Service
from loquat_events.conversations import MessageReceived
from loquat_events.envelope import Event, Payload
from loquat_events.projects import ProjectListed, TableChanged
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.handlers.tablechanges import TableChanges
from loquat_schema_manager.http.rows import RowsApi
from pydantic import SecretStr

from tests.desk import USER, open_desk
from tests.tenants import PASSWORD, Project, Tenants

Handler = Callable[[Database], Awaitable[None]]


def now() -> datetime:
    return datetime.now(UTC)


@dataclass
class Bot:
    """The SDK's own transaction on the bot's own login, without the process around it."""

    pool: Any
    handler: Handler | None = None

    def observes(self, _project: str) -> bool:
        return False

    def takes_back(self, _project: str) -> bool:
        return False

    def gathers(self, _project: str) -> bool:
        return False

    async def call(self, task: Task, voice: object = None) -> dict[str, Any]:
        del voice
        assert self.handler is not None
        database = Database(self.pool)
        result: dict[str, Any] = {"replies": []}
        try:
            await self.handler(database)
            await database.commit(UUID(task.event["id"]), task.state_version, result)
        except ArithmeticError as error:
            raise BotError("failed") from error
        finally:
            await database.close()
        return result


class NoRuns:
    """The platform's own table of runs is not what is looked at here."""

    async def record_run(self, _project: str, _run: object) -> None:
        return


@dataclass
class House:
    project: Project
    broker: MemoryBroker
    inbox: Inbox
    bot: Bot

    def event(self) -> Event[Payload]:
        message = {"type": "text", "text": "hi", "wamid": uuid4().hex, "raw": "{}"}
        data = {"number_id": "1", "addresses": [{"kind": "wa_id", "value": "49"}], "message": message, "sent_at": now()}
        return Event[Payload].of(
            MessageReceived.model_validate(data), id=uuid4(), source="/gateway", time=now(), project=self.project.project_id, lane="49"
        )

    async def take(self, handler: Handler, event: Event[Payload] | None = None, attempts: int = 0) -> Outcome:
        self.bot.handler = handler
        return await self.inbox.handle(Received(event or self.event(), INBOX.name, 0, 0, attempts))


def told(outcome: Outcome) -> dict[str, int]:
    assert isinstance(outcome, Done)
    changes = [e.data for e in outcome.publish if isinstance(e.data, TableChanged)]
    assert {c.actor for c in changes} <= {"bot"}
    return {c.table: c.count for c in changes}


class NoSecrets:
    async def of(self, _project: str, _epoch: int, _mark: object) -> dict[str, str]:
        return {}


@pytest.fixture
async def house(tenants: Tenants, tmp_path: Path) -> AsyncGenerator[House]:
    project, broker = await tenants.project(), MemoryBroker()
    cluster = tenants.cluster
    address = ClusterAddress(host=cluster.host, port=cluster.port, password=SecretStr(PASSWORD))
    async with AsyncExitStack() as stack:
        pools = ProjectPools(as_service({"tenants": address}, "loquat_bot_runner"))
        stack.push_async_callback(tenants.drop, project)
        stack.push_async_callback(pools.close)
        login = project.names.login("bot")
        pool = await stack.enter_async_context(
            asyncpg.create_pool(
                host=cluster.host, port=cluster.port, database=project.database, user=login, password=PASSWORD, min_size=1, max_size=1
            )
        )
        await pool.execute("CREATE TABLE bookings (id serial PRIMARY KEY, guest text)")
        bus = MemoryBus("bot-runner", broker)
        listed = ProjectListed(
            project_id=project.project_id, organization_id="o", name="p", state="ready", cluster="tenants", database=project.database
        )
        deployed = BotDeployed(project_id=project.project_id, version="v1", at=now(), deployment_id="1", deployed_by="anna")
        said: list[tuple[Payload, Service, str]] = [(listed, "provisioner", "project"), (deployed, "bot-runner", "bot")]
        for data, service, lane in said:
            event = Event[Payload].of(data, id=uuid4(), source=f"/{service}", time=now(), project=project.project_id, lane=lane)
            await MemoryBus(service, broker).publish(event)
        tables = [bus.table(DIRECTORY), bus.table(DEPLOYMENTS)]
        reading = [asyncio.create_task(t.run()) for t in tables]
        for table in tables:
            await table.caught_up()
        bot = Bot(pool)
        runs, bots, store, secrets = ProjectRuns(pools), cast("Any", bot), cast("Any", NoRuns()), cast("Any", NoSecrets())
        failpoints = Failpoints(tmp_path)
        timed = Timed(cast("Any", None), runs, bus, failpoints, now, cast("Any", None))
        inbox = Inbox(runs, bots, store, Directory(tables[0]), Deployed(tables[1]), bus, failpoints, now, secrets, timed)
        yield House(project, broker, inbox, bot)
        for task in reading:
            task.cancel()


async def book(db: Database) -> None:
    await db.execute("INSERT INTO bookings (guest) SELECT 'g' || n FROM generate_series(1, 5) AS n")
    await db.execute("UPDATE bookings SET guest = 'x' WHERE guest IN ('g1', 'g2')")
    await db.execute("DELETE FROM bookings WHERE guest = 'g3'")


async def test_a_bots_commit_is_told_with_the_rows_of_this_transaction_alone(house: House) -> None:
    assert told(await house.take(book)) == {"bookings": 8}

    async def one(db: Database) -> None:
        await db.execute("INSERT INTO bookings (guest) VALUES ('one')")

    assert told(await house.take(one)) == {"bookings": 1}

    async def look(db: Database) -> None:
        assert await db.fetchval("SELECT count(*) FROM bookings") == 5

    assert told(await house.take(look)) == {}


async def test_rows_of_a_handler_that_failed_are_not_counted_with_those_of_its_next_try(house: House) -> None:
    event = house.event()

    async def fail(db: Database) -> None:
        await book(db)
        raise ArithmeticError

    assert not isinstance(await house.take(fail, event), Done)
    assert told(await house.take(book, event, attempts=1)) == {"bookings": 8}


async def test_an_event_that_comes_again_after_a_crash_tells_the_same_again(house: House) -> None:
    event = house.event()
    first = await house.take(book, event)
    again = await house.take(book, event)
    assert (told(first), told(again)) == ({"bookings": 8}, {"bookings": 8})
    ids = [[e.id for e in o.publish if isinstance(e.data, TableChanged)] for o in (first, again) if isinstance(o, Done)]
    assert ids[0] == ids[1]


async def test_partitions_count_for_their_table_and_names_come_as_they_are(house: House) -> None:
    async def make(db: Database) -> None:
        await db.execute('CREATE TABLE "we""ird" (n int) PARTITION BY RANGE (n)')
        await db.execute('CREATE TABLE a PARTITION OF "we""ird" FOR VALUES FROM (0) TO (10)')
        await db.execute('CREATE TABLE b PARTITION OF "we""ird" FOR VALUES FROM (10) TO (20)')
        await db.execute('INSERT INTO "we""ird" SELECT generate_series(5, 14)')

    assert told(await house.take(make)) == {'we"ird': 10}


async def test_a_persons_change_is_seen_by_the_bots_next_query_and_told(house: House) -> None:
    broker = MemoryBroker()
    changes = TableChanges(MemoryBus("schema-manager", broker), now, uuid4, window=0.0)
    async with open_desk(house.project, lambda api, editors, _bus: RowsApi(Rows(editors, changes.note)).add_to(api)) as data:
        made = await data.good("POST", "/tables/bookings/rows", {"rows": [{"guest": "Ann"}, {"guest": "Bob"}]})
        seen = list[str]()

        async def look(db: Database) -> None:
            seen.extend(r["guest"] for r in await db.fetch("SELECT guest FROM bookings ORDER BY id"))
            await db.execute("UPDATE bookings SET guest = 'Eve' WHERE guest = 'Bob'")

        assert told(await house.take(look)) == {"bookings": 1}
        assert seen == ["Ann", "Bob"]
        bob = made["items"][1]
        stale = {"key": bob["key"], "version": bob["version"], "values": {"guest": "Bobby"}}
        refused = await data.bad("PATCH", "/tables/bookings/rows", stale, status=409, code="row_changed")
        assert refused["current"]["values"]["guest"] == "Eve"
    await changes.flush()
    assert [(e.data.table, e.data.count, e.data.actor) for e in broker.events(PROJECTS) if isinstance(e.data, TableChanged)] == [
        ("bookings", 2, USER)
    ]


async def test_a_database_that_is_behind_runs_its_bot_and_tells_nothing(house: House) -> None:
    await (await house.project.root()).execute("DROP FUNCTION loquat.touched_by")
    event = house.event()
    assert told(await house.take(book, event)) == {}
    assert told(await house.take(book, event)) == {}
    assert await (await house.project.root()).fetchval("SELECT count(*) FROM bookings") == 4
