"""What the conformance suite needs of an engine, besides the port: members that can be lost, and the engine's own restart."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, cast
from uuid import uuid4

from aiokafka import AIOKafkaConsumer, TopicPartition
from loquat_common.bus.consumer import Consumer
from loquat_common.bus.deferred import DeadLetters, migrations
from loquat_common.bus.items import Batch, Write
from loquat_common.bus.kafka import KafkaBus
from loquat_common.bus.limits import Limits
from loquat_common.bus.log import DeferredStore
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_common.bus.port import Bus, Handler, Subscription
from loquat_common.bus.postgres import PostgresBus
from loquat_common.bus.record import Record, partition_of
from loquat_common.migrate import migrate
from loquat_common.settings import BusSettings
from loquat_embedded.kafka import Kafka
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import INBOX, Service, Topic
from loquat_events.conversations import Address, InboundMessage, MessageReceived
from loquat_events.envelope import AnyEvent, Event, Payload

from conftest import Platform

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

LEASE = 2.0
PATIENCE = 40.0


async def until(condition: Callable[[], object], what: str, patience: float = PATIENCE) -> None:
    """Returns when the condition is true; looks every 10 ms."""
    try:
        async with asyncio.timeout(patience):
            while not condition():  # noqa: ASYNC110  (the code under test tells nobody)
                await asyncio.sleep(0.01)
    except TimeoutError:
        raise AssertionError(f"not within {patience:g} s: {what}") from None


def event(project: str, lane: str, n: int, *, size: int = 0) -> AnyEvent:
    """The n-th event of a lane."""
    message = InboundMessage(type="text", text=str(n), wamid=f"{lane}.{n}", raw="x" * size)
    data = MessageReceived(number_id="1", addresses=(Address(kind="wa_id", value=lane),), message=message, sent_at=datetime.now(UTC))
    return Event[Payload].of(data, id=uuid4(), source="/gateway", time=datetime.now(UTC), project=project, lane=lane)


def number(received: AnyEvent) -> int:
    """Its n."""
    assert isinstance(received.data, MessageReceived)
    return int(received.data.message.text or -1)


def neighbours(count: int) -> list[str]:
    """Projects of one partition, new ones each time."""
    found: dict[int, list[str]] = {}
    while True:
        name = f"p{uuid4().hex[:8]}"
        same = found.setdefault(partition_of(name, "x", INBOX), [])
        same.append(name)
        if len(same) == count:
            return same


class Member:
    """A running subscription."""

    def __init__(self, bus: Bus, subscription: Subscription) -> None:
        self.bus, self.subscription = bus, subscription
        self.task = asyncio.create_task(subscription.run())

    def recorded(self) -> list[Write[Record]]:
        """What it writes to rows from now on."""
        consumer = cast("Consumer", getattr(self.subscription, "_consumer"))  # noqa: B009  (the port does not show rows)
        store, written = consumer._store, list[Write[Record]]()  # pyright: ignore[reportPrivateUsage]

        class Recording:
            async def settle(self, batch: Batch[Record]) -> AbstractSet[str]:
                filled = await store.settle(batch)
                written.extend(batch.writes)
                return filled

            def __getattr__(self, name: str) -> Any:
                return getattr(store, name)

        consumer._store = cast("DeferredStore", Recording())  # pyright: ignore[reportPrivateUsage]
        return written

    async def drain(self) -> bool:
        """Leaves in an orderly way; False if it took too long."""
        done = await self.subscription.drain(10)
        await self.task
        await self.bus.stop()
        return done

    async def crash(self) -> None:
        """Nothing is finished, nothing committed."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)
        await self.bus.stop()


class Engine(ABC):
    """Common to all."""

    name: str
    restarts = True

    def __init__(self) -> None:
        self.service: Service = "bot-runner"
        self.group = f"bot-runner-{uuid4().hex[:8]}"
        self.publisher: Bus
        self._members: list[Member] = []

    async def begin(self) -> None:
        self.publisher = await self.bus("gateway")

    async def end(self) -> None:
        for member in self._members:
            if not member.task.done():
                await member.crash()
        await self.publisher.stop()

    async def member(
        self, handler: Handler, *, limits: Limits | None = None, replica: str = "one", topics: Sequence[Topic] = (INBOX,)
    ) -> Member:
        bus = await self.bus(self.service, limits, replica)
        made = Member(bus, bus.subscribe(self.group, topics, handler))
        self._members.append(made)
        return made

    async def publish(self, events: Iterable[AnyEvent]) -> None:
        await self.publisher.publish(*events)

    @abstractmethod
    async def bus(self, service: Service, limits: Limits | None = None, replica: str = "one") -> Bus: ...

    @abstractmethod
    async def restart(self) -> None: ...

    @abstractmethod
    async def dead(self, project: str) -> list[tuple[Any, str]]: ...

    @abstractmethod
    async def redrive(self, project: str, letter: Any) -> bool: ...

    @abstractmethod
    async def discard(self, project: str, letter: Any) -> bool: ...


class MemoryEngine(Engine):
    name = "memory"
    restarts = False

    def __init__(self) -> None:
        super().__init__()
        self.broker = MemoryBroker()

    async def bus(self, service: Service, limits: Limits | None = None, replica: str = "one") -> Bus:
        del replica
        return MemoryBus(service, self.broker, limits or Limits())

    async def restart(self) -> None:
        raise AssertionError("memory is gone when it restarts")

    async def dead(self, project: str) -> list[tuple[Any, str]]:
        store = self.broker.stores[self.group]
        return [(k, store.rows[k].reason) for k in store.dead() if store.rows[k].record.project == project]

    async def redrive(self, project: str, letter: Any) -> bool:
        del project
        return self.broker.stores[self.group].redrive(*letter)

    async def discard(self, project: str, letter: Any) -> bool:
        del project
        return self.broker.stores[self.group].discard(*letter)


class _WithRows(Engine):
    """Engines whose deferred rows are in Postgres."""

    def __init__(self, platform: Platform) -> None:
        super().__init__()
        self.platform = platform

    async def begin(self) -> None:
        pool = await self.platform.pool(self.service)
        async with pool.acquire() as connection:
            await migrate(connection, schema="bot_runner", component="bus", migrations=migrations())
        self.letters = DeadLetters(pool)
        await super().begin()

    async def dead(self, project: str) -> list[tuple[Any, str]]:
        return [(int(letter.id), letter.reason) for letter in await self.letters.list(project)]

    async def redrive(self, project: str, letter: Any) -> bool:
        return await self.letters.redrive(project, letter)

    async def discard(self, project: str, letter: Any) -> bool:
        return await self.letters.discard(project, letter, "of no use")


class PostgresEngine(_WithRows):
    name = "postgres"

    def __init__(self, cluster: Cluster, platform: Platform) -> None:
        super().__init__(platform)
        self.cluster = cluster

    async def bus(self, service: Service, limits: Limits | None = None, replica: str = "one") -> Bus:
        del replica
        made = PostgresBus(await self.platform.pool(service), self.platform.dsn(service), service, limits=limits, lease=LEASE)
        await made.start()
        return made

    async def restart(self) -> None:
        self.cluster.kill()
        await self.cluster.start()


class KafkaEngine(_WithRows):
    name = "kafka"

    def __init__(self, platform: Platform, broker: Kafka) -> None:
        super().__init__(platform)
        self.broker = broker

    async def begin(self) -> None:
        if self.broker.pid is None:
            await self.broker.start()
        await super().begin()
        await self._from_now()

    async def _from_now(self) -> None:
        """The broker is shared: this test's group begins where the log ends."""
        consumer: Any = AIOKafkaConsumer(bootstrap_servers=self.broker.servers, group_id=self.group, enable_auto_commit=False)
        await consumer.start()
        places = [TopicPartition(INBOX.name, n) for n in range(INBOX.partitions)]
        consumer.assign(places)
        await consumer.commit(await consumer.end_offsets(places))
        await consumer.stop()

    async def bus(self, service: Service, limits: Limits | None = None, replica: str = "one") -> Bus:
        settings = BusSettings(environment="test", bus="kafka", kafka_servers=self.broker.servers, bus_lease=6, replica=replica)
        made = KafkaBus(await self.platform.pool(service), settings, service, limits=limits)
        await made.start()
        return made

    async def restart(self) -> None:
        self.broker.kill()
        await self.broker.start()
