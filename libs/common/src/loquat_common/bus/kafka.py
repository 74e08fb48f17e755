"""The bus on Apache Kafka. The only module that knows aiokafka; what it does behind our back, and how each setting answers it: docs/adr/0001."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaProducer
from aiokafka.errors import KafkaError, MessageSizeTooLargeError, RecordListTooLargeError
from loquat_events.catalog import Service, Topic, parse
from loquat_events.envelope import AnyEvent

from loquat_common import metrics
from loquat_common.bus.batcher import Batcher
from loquat_common.bus.deferred import PostgresStore
from loquat_common.bus.kafkamember import KafkaLog
from loquat_common.bus.kafkatable import Following, KafkaTable
from loquat_common.bus.kafkatopics import REQUEST, prepare
from loquat_common.bus.limits import Limits
from loquat_common.bus.port import BatchHandler, Batching, BusUnavailable, EventTooLarge, Handler
from loquat_common.bus.record import Record, partition_of
from loquat_common.bus.rights import checked
from loquat_common.bus.subscription import GroupSubscription
from loquat_common.settings import BusSettings

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

LIMIT: Final = 5.0
"""Seconds until a publish counts as not confirmed."""
_BATCH: Final = 512 << 10
"""Bytes of one partition's batch. An idempotent producer has one under way per partition; aiokafka's own 16 KB hold some twenty events."""
_WAITING: Final = 10_000
"""Events that may wait for their confirmation; beyond it publishers are refused at once: back-pressure."""


class KafkaBus:
    """The port on one cluster. Deferred rows stand in the service's schema of the control database, as with any engine."""

    def __init__(self, pool: Pool, settings: BusSettings, service: Service, *, limits: Limits | None = None) -> None:
        self._pool, self._settings = pool, settings
        self._service: Service = service
        self._limits = limits or Limits()
        self._producer: Any = None  # the client has no types
        self._waiting = 0

    async def start(self) -> None:
        """See `Bus`. Makes missing topics."""
        try:
            await prepare(self._settings)
            producer: Any = AIOKafkaProducer(
                bootstrap_servers=self._settings.kafka_servers,
                acks="all",
                enable_idempotence=True,
                linger_ms=0,
                max_batch_size=_BATCH,
                max_request_size=REQUEST,
                request_timeout_ms=int(LIMIT * 1000),
            )
            self._producer = producer
            await producer.start()
        except (KafkaError, OSError) as error:
            await self.stop()
            raise BusUnavailable(f"Kafka at {self._settings.kafka_servers}: {type(error).__name__}") from error

    async def stop(self) -> None:
        """See `Bus`."""
        producer, self._producer = self._producer, None
        if producer is not None:
            await producer.stop()

    async def publish(self, *events: AnyEvent, topic: str | None = None) -> None:
        """See `Bus`. `topic` is for dead letters, whose type has many."""
        await self._publish([(checked(e, self._service, topic), Record.of(e)) for e in events])

    async def remove(self, topic: Topic, *, project: str, lane: str) -> None:
        """See `Bus`."""
        await self._publish([(topic, Record("", project, lane, b""))])

    async def _publish(self, records: Sequence[tuple[Topic, Record]]) -> None:
        if self._producer is None:
            raise BusUnavailable("the bus is not started")
        if self._waiting + len(records) > _WAITING:
            raise BusUnavailable(f"more than {_WAITING} events wait to be confirmed")
        started = time.perf_counter()
        self._waiting += len(records)
        try:
            async with asyncio.timeout(LIMIT):
                sent = [
                    await self._producer.send(t.name, r.value or None, key=r.key.encode(), partition=partition_of(r.project, r.lane, t))
                    for t, r in records
                ]
                await asyncio.gather(*sent)
        except (MessageSizeTooLargeError, RecordListTooLargeError) as error:  # a topic that takes less than we asked for
            raise EventTooLarge(max(len(r.value) for _, r in records)) from error
        except (KafkaError, TimeoutError, OSError) as error:
            raise BusUnavailable(type(error).__name__) from error
        finally:
            self._waiting -= len(records)
        metrics.bus_publish_seconds.observe(time.perf_counter() - started)
        for topic, _ in records:
            metrics.bus_published.labels(topic.name).inc()

    def subscribe(self, group: str, topics: Sequence[Topic], handler: Handler) -> GroupSubscription:
        """See `Bus`."""
        return GroupSubscription(
            group, self._service, self._member(group, topics), PostgresStore(self._pool, group), handler, self.publish, self._limits
        )

    def subscribe_batches(self, group: str, topics: Sequence[Topic], handler: BatchHandler, batching: Batching) -> GroupSubscription:
        """See `Bus`."""
        single, store = Batcher(handler, batching).handle, PostgresStore(self._pool, group)
        return GroupSubscription(
            group, self._service, self._member(group, topics), store, single, self.publish, batching.limits(), unordered=True
        )

    def _member(self, group: str, topics: Sequence[Topic]) -> KafkaLog:
        return KafkaLog(self._settings.kafka_servers, group, topics, f"{group}.{self._settings.replica}", session=self._settings.bus_lease)

    def table(self, topic: Topic) -> KafkaTable:
        """See `Bus`."""
        return KafkaTable(self._settings.kafka_servers, topic)

    async def tail(self, topic: Topic) -> AsyncIterator[AnyEvent]:
        """See `Bus`."""
        following = Following(self._settings.kafka_servers, topic)
        await following.start(beginning=False)
        try:
            while True:
                for record in await following.next(1.0):
                    if record.value:
                        yield parse(record.value)
        finally:
            await following.stop()

    async def ping(self) -> None:
        """See `Bus`."""
        if self._producer is None:
            raise BusUnavailable("the bus is not started")
        try:
            async with asyncio.timeout(2):
                if not await self._producer.client.force_metadata_update():
                    raise BusUnavailable("Kafka does not answer")
        except (KafkaError, TimeoutError, OSError) as error:
            raise BusUnavailable(type(error).__name__) from error
