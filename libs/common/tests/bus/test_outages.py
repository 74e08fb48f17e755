"""What is away comes back: a consumer waits for it, says that it is not ready, and loses nothing. It never ends the process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import SimpleNamespace
from typing import Any, cast

import pytest
from aiokafka import TopicPartition
from loquat_common.bus import consumer, kafkamember
from loquat_common.bus.items import Batch
from loquat_common.bus.kafkamember import KafkaLog
from loquat_common.bus.log import EngineAway, Ownership
from loquat_common.bus.memory import MemoryBus, MemoryStore
from loquat_common.bus.port import Dead, Outcome, Received
from loquat_common.bus.record import Record
from loquat_events.catalog import INBOX

from libs.common.tests.bus.engines import Member, event, until

PLACES = [TopicPartition(INBOX.name, n) for n in range(3)]
NAMES = {f"{INBOX.name}/{n}" for n in range(3)}


class FailingStore(MemoryStore):
    """Takes no rows as long as it is away."""

    away, tries = True, 0

    async def settle(self, batch: Batch[Record]) -> Any:
        self.tries += 1
        if self.away:
            raise EngineAway("the platform's database")
        return await super().settle(batch)


@pytest.mark.promise("P3")
async def test_rows_that_cannot_be_written_are_tried_without_end_and_readiness_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consumer, "_LONGEST_PAUSE", 0.001)
    monkeypatch.setattr(consumer, "_FIRST_PAUSE", 0.001)

    async def handle(_received: Received) -> Outcome:
        return Dead("poison")

    bus = MemoryBus("gateway")
    bus.broker.stores["group"] = store = FailingStore()
    await bus.publish(event("p", "lane", 0))
    member = Member(bus, bus.subscribe("group", [INBOX], handle))
    await until(lambda: store.tries > 30, "it goes on trying")
    assert (member.task.done(), member.subscription.healthy()) == (False, False)
    store.away = False
    await until(store.dead, "it is written")
    await until(member.subscription.healthy, "it is ready again")
    assert await member.drain()


class Owner:
    """Rows that cannot be claimed as long as they are away."""

    def __init__(self) -> None:
        self.away, self.tries, self.claimed = True, 0, set[str]()

    async def assigned(self, partition: str, committed: Callable[[], Awaitable[int]]) -> int:
        self.tries += 1
        if self.away:
            raise EngineAway("the platform's database")
        self.claimed.add(partition)
        return await committed()

    def refused(self) -> set[str]:
        return set()


class Client:
    """Gives one record of each partition that is not paused, each time."""

    def __init__(self) -> None:
        self.paused, self.sought = set[TopicPartition](), dict[TopicPartition, int]()

    def assignment(self) -> set[TopicPartition]:
        return set(PLACES)

    def pause(self, *places: TopicPartition) -> None:
        self.paused |= set(places)

    def resume(self, *places: TopicPartition) -> None:
        self.paused -= set(places)

    def seek(self, place: TopicPartition, offset: int) -> None:
        self.sought[place] = offset

    async def committed(self, _place: TopicPartition) -> int:
        return 7

    async def getmany(self, *, timeout_ms: int) -> dict[TopicPartition, list[Any]]:
        del timeout_ms
        await asyncio.sleep(0)
        return {p: [SimpleNamespace(offset=self.sought.get(p, 0), key=b"p:lane", value=b"{}")] for p in PLACES if p not in self.paused}


@pytest.fixture
async def member(monkeypatch: pytest.MonkeyPatch) -> tuple[KafkaLog, Owner, Client]:
    monkeypatch.setattr(kafkamember, "_CLAIM_AGAIN", 0.0)
    log, owner, client = KafkaLog("127.0.0.1:1", "group", [INBOX], "one"), Owner(), Client()
    await log.stop()
    log._client = client  # pyright: ignore[reportPrivateUsage]  (a broker that rebalances at a word does not exist)
    log._owner = cast("Ownership", owner)  # pyright: ignore[reportPrivateUsage]
    return log, owner, client


@pytest.mark.promise("P3")
async def test_a_rebalance_while_the_rows_are_away_is_made_good_when_they_are_back(member: tuple[KafkaLog, Owner, Client]) -> None:
    log, owner, client = member
    await log.on_partitions_revoked([])
    await log.on_partitions_assigned(PLACES)
    assert owner.tries == 1, "the rest is not asked one time-out after the other"
    for _ in range(5):
        assert await log.fetch(set(), 0.01) == []
        assert not log.healthy()
    assert client.paused == set(PLACES)
    owner.away = False
    await log.fetch(set(), 0.01)
    assert owner.claimed == NAMES
    assert log.healthy()
    assert {(p, o) for p, o, _ in await log.fetch(set(), 0.01)} == {(name, 7) for name in NAMES}
