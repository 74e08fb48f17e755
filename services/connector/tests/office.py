"""A connector at work in a test: its real parts on a real control database, the simulator as Meta, statuses that come back by webhook."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID, uuid4

import aiohttp
from aiohttp import web
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.port import Outcome, Received
from loquat_common.crypto import KeyRing
from loquat_common.db import open_pool
from loquat_common.failpoints import Failpoints
from loquat_common.lifecycle import Server
from loquat_common.sql import Ident, compose
from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.graph import Graph
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.queue import SendQueue
from loquat_connector.adapters.routes import Teller
from loquat_connector.adapters.sender import Sender
from loquat_connector.domain.pacing import Pacing
from loquat_connector.handlers.messages import Messages
from loquat_events.conversations import Address, MessageOutcome, MessageQueued, Outgoing, StatusReceived, TypingBegun
from loquat_events.envelope import Event, Payload
from loquat_events.meta import split_change
from loquat_simulator.app import build
from loquat_simulator.webhooks import Webhooks
from loquat_simulator.world import World

from conftest import Platform
from tests.system.world import until

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

PROJECT: Final = "prj_a"
NUMBER: Final = "106540352242922"
ANNA: Final = "4915112345678"
TOKEN: Final = "EAAsecretTokenOfTheTest0123456789"
SECRET: Final = "an-app-secret"
LIMIT: Final = 0.6
"""Seconds that a call of these tests may take; the simulator's own time-out is 15 s."""


def now() -> datetime:
    return datetime.now(UTC)


def queued(to: str = ANNA, *, number: str = NUMBER, message: dict[str, Any] | None = None, text: str = "hi") -> MessageQueued:
    """A message that is to be sent."""
    return MessageQueued(
        message_id=uuid4(),
        cause=uuid4(),
        conversation_id=uuid4(),
        contact_id=uuid4(),
        number_id=number,
        addresses=(Address(kind="wa_id", value=to),),
        message=Outgoing.model_validate(message or {"type": "text", "text": text}),
        sender="bot",
        queued_at=now(),
    )


@dataclass(slots=True)
class Office:
    """One connector, or several on the same rows."""

    platform: Platform
    pool: Pool
    ring: KeyRing
    folder: Path
    world: World
    http: aiohttp.ClientSession
    meta: str = ""
    webhook: str = ""
    queue: SendQueue = field(init=False)
    numbers: Numbers = field(init=False)
    accounts: Accounts = field(init=False)
    bus: MemoryBus = field(default_factory=lambda: MemoryBus("connector"))
    messages: Messages = field(init=False)
    awake: list[Sender] = field(default_factory=list[Sender])
    statuses: list[StatusReceived] = field(default_factory=list[StatusReceived])
    holding: bool = False
    typings: list[TypingBegun] = field(default_factory=list[TypingBegun])

    def __post_init__(self) -> None:
        self.queue, self.numbers = SendQueue(self.pool), Numbers(self.pool, self.ring)
        self.accounts = Accounts(self.pool)
        self.messages = self.handler(lambda _project, _at: False)

    def handler(self, gone: Callable[[str, datetime], bool]) -> Messages:
        """One that knows which projects are gone."""
        return Messages(gone, self.queue, self.numbers, self.accounts, self.failpoints(), self.wake, lambda: None, self.typed)

    def typed(self, _project: str, begun: TypingBegun) -> None:
        self.typings.append(begun)

    def failpoints(self) -> Failpoints:
        return Failpoints(self.folder)

    def arm(self, point: str) -> None:
        (self.folder / point).write_text("raise")

    def fired(self, point: str) -> bool:
        return any(self.folder.glob(f"{point}.*.fired"))

    def wake(self) -> None:
        for sender in self.awake:
            sender.wake()

    def teller(self, moving: float = 0.0) -> Teller:
        return Teller(self.queue, self.numbers, self.bus, self.failpoints(), moving, now, self.wake)

    async def tell(self, moving: float = 0.0) -> None:
        """What the teller does at once."""
        await self.teller(moving)._round()

    async def handle(
        self, data: Payload, project: str = PROJECT, *, source: str = "/test", id: UUID | None = None, at: datetime | None = None
    ) -> Outcome:
        """As the bus would hand it over."""
        event = Event[Payload].of(data, id=id or uuid4(), source=source, time=at or now(), project=project, lane="lane")
        return await self.messages.handle(Received(event, "topic", 0, 0))

    async def attach(self, number: str = NUMBER, project: str = PROJECT, token: str = TOKEN) -> None:
        """A number that can send, known to Meta, too."""
        assert await self.numbers.attach(project, number, "waba", token, None) is not None
        await self.tell()
        await self.register(number, token)

    async def register(self, number: str = NUMBER, token: str = TOKEN) -> None:
        """A number that Meta knows."""
        order = {"phone_number_id": number, "webhook_url": self.webhook, "app_secret": SECRET, "verify_token": "v", "token": token}
        await self.simulate("/api/numbers", order)

    async def fault(self, kind: str, times: int = 1) -> None:
        """From Meta's next call on."""
        await self.simulate("/api/faults", {"kind": kind, "times": times})

    async def simulate(self, path: str, order: dict[str, Any]) -> None:
        async with self.http.post(self.meta + path, json=order) as response:
            assert response.status < 300, await response.text()

    def phone(self, contact: str = ANNA, number: str = NUMBER) -> list[str | None]:
        """What the contact's phone shows."""
        return [b.text for b in self.world.phone(number, contact).bubbles if b.direction == "in"]

    async def receive(self, request: web.Request) -> web.Response:
        """As the gateway would: what is signed is split; statuses go on, or are held."""
        raw = await request.read()
        assert request.headers["X-Hub-Signature-256"] == "sha256=" + hmac.digest(SECRET.encode(), raw, hashlib.sha256).hex()
        for change in (await request.json())["entry"][0]["changes"]:
            for fact in split_change(change, "waba"):
                if isinstance(fact.payload, StatusReceived):
                    self.statuses.append(fact.payload)
                    if not self.holding:
                        await self.handle(fact.payload, id=fact.id)
        return web.Response()

    @asynccontextmanager
    async def sending(
        self,
        *,
        pacing: Pacing | None = None,
        queue: SendQueue | None = None,
        ring: KeyRing | None = None,
        limit: float = LIMIT,
        url: str = "",
    ) -> AsyncGenerator[Sender]:
        """A sender of this connector, or of another one beside it."""
        graph = Graph(url or self.meta, "v25.0", limit=limit)
        await graph.start()
        numbers = self.numbers if ring is None else Numbers(self.pool, ring)
        sender = Sender(queue or self.queue, numbers, graph, pacing or Pacing(), self.failpoints(), lambda: None)
        self.awake.append(sender)
        task = asyncio.create_task(sender.run())
        try:
            yield sender
            assert not task.done(), task
        finally:
            self.awake.remove(sender)
            attempts = list(sender._busy.values())
            task.cancel()
            await asyncio.gather(task, *attempts, return_exceptions=True)
            await graph.stop()

    async def row(self, message: MessageQueued) -> asyncpg.Record:
        """Its place in the queue."""
        row = await self.pool.fetchrow(
            "SELECT *, extract(epoch FROM next_at - clock_timestamp())::float AS wait FROM sends WHERE message_id = $1", message.message_id
        )
        assert row is not None
        return row

    async def attempts(self, message: MessageQueued) -> list[asyncpg.Record]:
        """All attempts to send it."""
        return await self.pool.fetch("SELECT * FROM attempts WHERE message_id = $1 ORDER BY n", message.message_id)

    async def reached(self, message: MessageQueued, *states: str, attempts: int = 1) -> asyncpg.Record:
        """Its row, once it is in one of these states after so many attempts that have an end."""

        async def look() -> asyncpg.Record | None:
            row, made = await self.row(message), await self.attempts(message)
            return row if row["state"] in states and len(made) == attempts and all(a["ended_at"] for a in made) else None

        return await until(look, f"{states} after {attempts} attempts", 10)

    async def settled(self, *messages: MessageQueued) -> None:
        """Until Meta has accepted all of them."""

        async def look() -> bool:
            ids = [m.message_id for m in messages]
            count = await self.pool.fetchval("SELECT count(*) FROM sends WHERE message_id = ANY ($1) AND state = 'accepted'", ids)
            return count == len(messages)

        await until(look, "all are accepted", 15)

    async def hurry(self) -> None:
        """What waits for its time is due."""
        await self.pool.execute("UPDATE sends SET next_at = now() WHERE state = 'queued'")
        self.wake()

    async def lapse(self) -> None:
        """The leases of all attempts are over."""
        await self.pool.execute("UPDATE sends SET lease_until = now() - interval '1 second' WHERE state = 'sending'")
        self.wake()

    async def outcomes(self) -> list[MessageOutcome]:
        """What is to be told of messages."""
        return [o for _, _, o in await self.queue.outcomes(1000)]

    def calls(self) -> list[dict[str, Any]]:
        """What Meta was asked."""
        return list(self.world.attempts)


@asynccontextmanager
async def open_office(platform: Platform, folder: Path) -> AsyncGenerator[Office]:
    """A connector without rows, and a Meta that knows no number."""
    pool = await open_pool(platform.dsn("connector"), search_path="connector, pg_catalog", max_size=12)
    for table in ("attempts", "sends", "outcomes", "numbers", "unrouted", "account_updates", "deferred", "erased_contacts"):
        await pool.execute(compose("DELETE FROM {table}", table=Ident(table)))
    world = World()
    webhooks = Webhooks(world)
    await webhooks.start()
    app = web.Application()
    async with aiohttp.ClientSession() as http:
        office = Office(platform, pool, KeyRing.from_json(KeyRing.new()), folder, world, http)
        app.router.add_post("/webhook", office.receive)
        gateway = Server(app, "127.0.0.1", 0, drain_seconds=0.1)
        meta = Server(build(world, webhooks), "127.0.0.1", 0, drain_seconds=0.1)
        await gateway.start()
        await meta.start()
        office.meta, office.webhook = f"http://127.0.0.1:{meta.port}", f"http://127.0.0.1:{gateway.port}/webhook"
        yield office
        await webhooks.stop()
        await meta.stop()
        await gateway.stop()
    pool.terminate()
