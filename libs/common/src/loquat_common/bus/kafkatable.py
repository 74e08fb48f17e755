"""Kafka topics read by every replica: compacted ones as a mapping, others from now on. No group, no committed offset."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError
from loquat_events.catalog import Topic

from loquat_common.bus.port import BusUnavailable
from loquat_common.bus.record import Record
from loquat_common.bus.view import View
from loquat_common.logs import get_logger

_WAIT: Final = 1.0  # seconds of one poll; news come at once
_AGAIN: Final = 0.5


class Following:
    """Every record of a topic, from its beginning or from now."""

    def __init__(self, servers: str, topic: Topic) -> None:
        self._partitions = [TopicPartition(topic.name, n) for n in range(topic.partitions)]
        self._client: Any = AIOKafkaConsumer(  # it has no types
            bootstrap_servers=servers, group_id=None, enable_auto_commit=False, max_partition_fetch_bytes=5 << 20, fetch_max_wait_ms=500
        )

    async def start(self, *, beginning: bool) -> None:
        """Stands at the beginning, or at the end."""
        await self._client.start()
        self._client.assign(self._partitions)
        if beginning:
            await self._client.seek_to_beginning(*self._partitions)
        else:
            await self._client.seek_to_end(*self._partitions)

    async def stop(self) -> None:
        """Leaves."""
        await self._client.stop()

    async def next(self, wait: float) -> list[Record]:
        """What came, within `wait` seconds."""
        got: dict[TopicPartition, list[Any]] = await self._client.getmany(timeout_ms=int(wait * 1000))
        return [Record.read((r.key or b"").decode(errors="replace"), r.value) for records in got.values() for r in records]

    async def at_end(self) -> bool:
        """Whether all that the topic holds at this moment was read."""
        ends = await self._client.end_offsets(self._partitions)
        return all([await self._client.position(tp) >= end for tp, end in ends.items()])


class KafkaTable(View):
    """A compacted topic as a mapping."""

    def __init__(self, servers: str, topic: Topic) -> None:
        super().__init__()
        self._servers, self._topic = servers, topic

    async def run(self) -> None:
        """See `Table`."""
        following = Following(self._servers, self._topic)
        try:
            try:
                await following.start(beginning=True)
            except KafkaError as error:
                raise BusUnavailable(f"the table of {self._topic.name}: {type(error).__name__}") from error
            while True:
                await self._round(following)
        finally:
            await following.stop()

    async def _round(self, following: Following) -> None:
        looked = time.monotonic()
        try:
            if await following.at_end():
                self.looked(looked)
            for record in await following.next(_WAIT):
                self.put(record)
        except KafkaError as error:
            get_logger().warning("bus.table_away", topic=self._topic.name, error=type(error).__name__)
            await asyncio.sleep(_AGAIN)
