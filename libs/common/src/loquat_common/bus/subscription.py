"""From records to a service's handler and back: parses, times, counts, turns errors into outcomes, tells the dead topic."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime
from typing import Final

import structlog
from loquat_events.catalog import Service, UnknownType, dead_of, parse, topics_by_name
from loquat_events.dead import EventDied
from loquat_events.envelope import AnyEvent, Event
from loquat_events.ids import fact_id
from pydantic import ValidationError

from loquat_common import metrics
from loquat_common.bus.consumer import Consumer
from loquat_common.bus.items import Item
from loquat_common.bus.limits import Limits
from loquat_common.bus.log import DeferredStore, Log
from loquat_common.bus.port import BusUnavailable, Dead, Defer, Done, EventTooLarge, Handler, Outcome, Received
from loquat_common.bus.record import Record
from loquat_common.bus.retry import Backoff
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.logs import get_logger

_AWAY: Final = 5.0  # seconds until the next try when the fault was ours
_TOLD: Final = 1 << 20  # bytes of an event that its dead letter repeats; the row has it whole
_BACKOFF: Final = Backoff()

Publish = Callable[..., Awaitable[None]]


class GroupSubscription:
    """One group's reading in this process, on any engine. `unordered` gives each event a lane of its own: for batches, whose handlers need no order."""

    def __init__(
        self,
        group: str,
        service: Service,
        log: Log,
        store: DeferredStore,
        handler: Handler,
        publish: Publish,
        limits: Limits,
        *,
        unordered: bool = False,
    ) -> None:
        self._group, self._log = group, log
        self._service: Service = service
        self._handler, self._publish = handler, publish
        self._consumer = Consumer(log, store, self._run, limits, unordered=unordered)
        self._events = get_logger()

    async def run(self) -> None:
        """See `Subscription`."""
        await self._consumer.run()

    async def drain(self, limit: float) -> bool:
        """See `Subscription`."""
        return await self._consumer.drain(limit)

    def block(self, project: str, reason: str) -> None:
        """See `Subscription`."""
        self._consumer.lanes.block(project, reason)

    def unblock(self, project: str) -> None:
        """See `Subscription`."""
        self._consumer.lanes.unblock(project)

    async def lag(self) -> Mapping[str, int]:
        """See `Subscription`."""
        lag = await self._log.lag()
        for topic in {p.rpartition("/")[0] for p in lag}:
            metrics.bus_lag.labels(self._group, topic).set(sum(n for p, n in lag.items() if p.rpartition("/")[0] == topic))
        return lag

    async def measure(self) -> None:
        """See `Subscription`."""
        lanes = self._consumer.lanes
        oldest = lanes.oldest()
        metrics.bus_in_flight.labels(self._group).set(lanes.running)
        metrics.bus_oldest.labels(self._group).set(0.0 if oldest is None else time.monotonic() - oldest)
        await self.lag()

    def healthy(self) -> bool:
        """See `Subscription`."""
        return self._log.healthy() and self._consumer.healthy()

    async def _run(self, item: Item[Record]) -> Outcome:
        topic, _, partition = item.partition.rpartition("/")
        try:
            event = parse(item.event.value)
        except (ValidationError, UnknownType) as error:
            return await self._ended(item, topic, int(partition), Dead(f"unreadable: {type(error).__name__}"))
        received = Received(event, topic, int(partition), item.offset, item.attempts, item.redriven)
        with structlog.contextvars.bound_contextvars(project=event.projectid, event=str(event.id)):
            outcome = await self._handled(received)
            return await self._ended(item, topic, int(partition), outcome)

    async def _handled(self, received: Received) -> Outcome:
        try:
            outcome = await self._handler(received)
            if isinstance(outcome, Done) and outcome.publish:
                await self._publish(*outcome.publish)
        except EventTooLarge as error:
            return Dead(f"what follows from it cannot be said: {error}")
        except Exception as error:  # noqa: BLE001  (the loop's edge: logged, counted, tried again, then a dead letter)
            if _ours(error):
                self._events.warning("bus.deferred", reason=type(error).__name__)
                return Defer(_AWAY, type(error).__name__)
            self._events.exception("bus.handler_failed", type=received.event.type, attempts=received.attempts)
            return _BACKOFF.outcome(received.attempts, random.random(), f"the handler failed: {type(error).__name__}")  # noqa: S311  (jitter)
        return outcome

    async def _ended(self, item: Item[Record], topic: str, partition: int, outcome: Outcome) -> Outcome:
        """A dead event is told to the dead topic before its row says so; if that fails, it is tried again."""
        metrics.bus_outcomes.labels(self._group, topic, type(outcome).__name__.lower()).inc()
        if not isinstance(outcome, Dead):
            return outcome
        try:
            await self._publish(self._died(item, topic, partition, outcome.reason), topic=dead_of(topics_by_name()[topic]).name)
        except BusUnavailable:
            return Defer(_AWAY, "the dead topic did not answer")
        return outcome

    def _died(self, item: Item[Record], topic: str, partition: int, reason: str) -> AnyEvent:
        value = item.event.value
        died = EventDied(
            group=self._group,
            topic=topic,
            partition=partition,
            offset=item.offset,
            reason=reason,
            attempts=item.attempts + 1,
            original=base64.b64encode(value).decode() if len(value) <= _TOLD else "",
            size=len(value),
        )
        key = fact_id("died", self._group, topic, str(partition), str(item.offset), str(item.attempts), str(item.redriven))
        event: AnyEvent = Event[EventDied].of(  # pyright: ignore[reportAssignmentType]  (an event of a payload is an event)
            died, id=key, source=f"/{self._service}", time=datetime.now(UTC), project=item.project, lane=item.event.lane
        )
        return event


def _ours(error: Exception) -> bool:
    """Whether a store or the bus was away, and not the event's handling at fault. PermissionError is a bug's: what the catalog forbids."""
    return isinstance(error, BusUnavailable | DatabaseAway) or (is_gone(error) and not isinstance(error, PermissionError))
