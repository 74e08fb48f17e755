"""One member of a group on Kafka. Each setting and each dance here answers a trap of the client: docs/adr/0001."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Any, Final

from aiokafka import AIOKafkaConsumer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import CommitFailedError, IllegalStateError, KafkaError, RebalanceInProgressError
from loquat_events.catalog import Topic

from loquat_common.bus.log import EngineAway, Ownership
from loquat_common.bus.record import Record
from loquat_common.logs import get_logger

if TYPE_CHECKING:
    from collections.abc import Iterable

_REVOKE_WAIT: Final = 0.5  # seconds for running handlers: the whole group stands still meanwhile
_MOST: Final = 200  # events per fetch
_PARTITION_BYTES: Final = 5 << 20
_FETCH_BYTES: Final = 16 << 20
_CLAIM_AGAIN: Final = 1.0
_SILENT: Final = 15.0  # seconds without a successful poll after which the member is not healthy


class KafkaLog(ConsumerRebalanceListener):
    """Eager rebalances only; static membership, so that a restart within the session keeps its partitions."""

    def __init__(self, servers: str, group: str, topics: Sequence[Topic], member: str, *, session: float = 10.0) -> None:
        self._topics, self._group = [t.name for t in topics], group
        self._gate = asyncio.Lock()  # callback against records in hand; never held across getmany
        self._turn = 0  # counts assignments: records fetched during one are dropped, and sought again
        self._joining = True
        self._paused: set[TopicPartition] = set()
        self._committed: dict[str, int] = {}
        self._unclaimed: dict[str, float] = {}  # ours by Kafka's word and not by the rows', with the time of the last try
        self._polled = float("-inf")
        self._failure: BaseException | None = None
        self._events = get_logger()
        self._client: Any = AIOKafkaConsumer(  # it has no types
            bootstrap_servers=servers,
            group_id=group,
            group_instance_id=member,
            enable_auto_commit=False,
            auto_offset_reset="earliest",
            session_timeout_ms=int(session * 1000),
            heartbeat_interval_ms=int(session * 300),
            rebalance_timeout_ms=15_000,
            max_poll_interval_ms=300_000,
            max_poll_records=_MOST,
            max_partition_fetch_bytes=_PARTITION_BYTES,
            fetch_max_bytes=_FETCH_BYTES,
            fetch_max_wait_ms=500,
        )

    async def start(self, owner: Ownership) -> None:
        """See `Log`."""
        self._owner = owner
        await self._client.start()
        self._client.subscribe(self._topics, listener=self)

    async def stop(self) -> None:
        """See `Log`."""
        await self._client.stop()

    # -- ownership: exceptions in these callbacks are only logged by the client, so they are kept and raised by the next fetch

    async def on_partitions_revoked(self, revoked: Iterable[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (awaited, says its documentation)
        """The group changes: everything is revoked, whatever comes back."""
        try:
            async with self._gate:
                self._turn += 1
                self._joining = True
                await asyncio.gather(*(self._owner.revoked(_name(tp), _REVOKE_WAIT) for tp in revoked))
        except Exception as error:  # noqa: BLE001  (raised by the next fetch)
            self._failure = error

    async def on_partitions_assigned(self, assigned: Iterable[TopicPartition]) -> None:  # pyright: ignore[reportIncompatibleMethodOverride]  (the same)
        """Ours from now on: rows are claimed before the first event."""
        try:
            async with self._gate:
                self._turn += 1
                self._paused.clear()
                self._unclaimed.clear()
                await self._claim_all(assigned)
                self._joining = False
        except Exception as error:  # noqa: BLE001  (raised by the next fetch)
            self._failure = error

    async def _claim_all(self, places: Iterable[TopicPartition]) -> None:
        """When the rows, or the broker, are away, the rest waits for the next try: nothing of it is handled until then."""
        away = False
        for tp in places:
            away = away or not await self._claim(tp)
            if away:
                self._unclaimed[_name(tp)] = time.monotonic()

    async def _claim(self, tp: TopicPartition) -> bool:
        name = _name(tp)
        try:
            offset = await self._owner.assigned(name, lambda: self._start_of(tp))
        except EngineAway as error:
            self._events.warning("bus.not_claimed", partition=name, error=str(error))
            return False
        self._unclaimed.pop(name, None)
        self._committed[name] = offset
        self._client.seek(tp, offset)
        return True

    async def _start_of(self, tp: TopicPartition) -> int:
        try:
            offset: int | None = await self._client.committed(tp)
            if offset is not None:
                return offset
            beginnings: dict[TopicPartition, int] = await self._client.beginning_offsets([tp])
        except KafkaError as error:
            raise EngineAway(type(error).__name__) from error
        return beginnings[tp]

    # -- work

    async def fetch(self, paused: AbstractSet[str], wait: float) -> Sequence[tuple[str, int, Record]]:
        """See `Log`. A call is always outstanding, also when all is paused: idle time counts between calls only."""
        if self._failure is not None:
            raise self._failure
        owned = self._client.assignment()
        want = {tp for tp in owned if _name(tp) in paused or _name(tp) in self._unclaimed}
        self._client.pause(*(want - self._paused))
        self._client.resume(*((self._paused - want) & owned))
        self._paused = want
        turn = self._turn
        try:
            got: dict[TopicPartition, list[Any]] = await self._client.getmany(timeout_ms=int(wait * 1000))
        except KafkaError as error:
            self._events.warning("bus.fetch_failed", error=type(error).__name__)
            await asyncio.sleep(wait)
            return []
        self._polled = time.monotonic()
        async with self._gate:
            if turn != self._turn:
                self._seek_again()
                return []
            await self._claim_again(got)
            return [
                (_name(tp), r.offset, Record.read((r.key or b"").decode(errors="replace"), r.value))
                for tp, records in got.items()
                for r in records
            ]

    def _seek_again(self) -> None:
        """These records may be of the old assignment, or be fetched AFTER the seek of the new one: then the client's position is past them.

        Dropping alone would lose them without a sign, so the client is sent back to where the loop stands.
        """
        for tp in self._client.assignment():
            if (position := self._owner.position(_name(tp))) is not None:
                self._client.seek(tp, position)

    async def _claim_again(self, got: dict[TopicPartition, list[Any]]) -> None:
        """The rows refused us or were away, and Kafka still gives the partition: a second later it is claimed anew."""
        now = time.monotonic()
        for name in self._owner.refused():
            self._unclaimed.setdefault(name, now)
        waiting = [tp for tp in self._client.assignment() if _name(tp) in self._unclaimed]
        for tp in waiting:
            got.pop(tp, None)
        if not self._joining:
            await self._claim_all([tp for tp in waiting if now - self._unclaimed[_name(tp)] >= _CLAIM_AGAIN])

    async def commit(self, marks: Mapping[str, int]) -> AbstractSet[str]:
        """See `Log`."""
        owned = self._client.assignment()
        offsets = {tp: marks[_name(tp)] for tp in owned if _name(tp) in marks}
        if not offsets:
            return marks.keys()
        try:
            await self._client.commit(offsets)
        except (CommitFailedError, IllegalStateError) as error:
            if isinstance(error.__cause__, RebalanceInProgressError):
                raise EngineAway("a rebalance is under way") from error  # no loss: the callback says what stays ours
            return marks.keys()
        except KafkaError as error:
            raise EngineAway(type(error).__name__) from error
        self._committed |= {_name(tp): offset for tp, offset in offsets.items()}
        return marks.keys() - {_name(tp) for tp in offsets}

    async def lag(self) -> Mapping[str, int]:
        """See `Log`."""
        ends = {tp: self._client.highwater(tp) for tp in self._client.assignment()}
        return {_name(tp): max(0, end - self._committed.get(_name(tp), end)) for tp, end in ends.items() if end is not None}

    def healthy(self) -> bool:
        """See `Log`."""
        return time.monotonic() - self._polled < _SILENT and not self._unclaimed


def _name(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"
