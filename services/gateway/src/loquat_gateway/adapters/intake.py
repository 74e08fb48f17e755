"""Bodies on their way to the bus: what came about the same time is checked, split and published together.

Together, because most of the cost of one body alone is that nothing it needs is in the processor's caches (docs/benchmarks.md).
No timer: a body that comes alone goes alone.
"""

from __future__ import annotations

import asyncio
import hmac
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from loquat_common import metrics
from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.catalog import topic_of
from loquat_events.envelope import AnyEvent

from loquat_gateway.adapters.routing import Routing
from loquat_gateway.domain import webhook

_MOST: Final = 64  # bodies worked on without letting anything else run: some milliseconds
_BYTES: Final = 1 << 20  # the same, for large ones
_STOP: Final = 8.0  # seconds for what is under way at the end: longer than a publish may take


class WrongSignature(Exception):
    """The signature is not that of the app's secret over this body."""


@dataclass(slots=True, eq=False)
class _Body:
    keyed: hmac.HMAC
    signature: str
    raw: bytes
    kept: asyncio.Future[int]


class Intake:
    """Takes bodies of webhooks. Bounded by its caller, who lets only so many bytes in at a time."""

    def __init__(self, routing: Routing, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]) -> None:
        self._routing, self._bus, self._failpoints, self._clock = routing, bus, failpoints, clock
        self._waiting: deque[_Body] = deque()
        self._news = asyncio.Event()
        self._publishing: set[asyncio.Task[None]] = set()
        self._working: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins."""
        self._working = asyncio.create_task(self._work(), name="intake")

    async def stop(self) -> None:
        """Ends. Who still waits for the bus gets its answer, within its limit."""
        if self._publishing:
            await asyncio.wait(self._publishing, timeout=_STOP)
        for task in (*self._publishing, *([self._working] if self._working is not None else [])):
            task.cancel()

    async def keep(self, keyed: hmac.HMAC, signature: str, raw: bytes) -> int:
        """Returns the number of the body's updates when all are durable. `keyed` is HMAC-SHA256 with the app's secret, fed nothing yet.

        Raises:
            WrongSignature, BodyRefused: nothing of it was kept.
            BusUnavailable, Stale: it may have been kept or not; Meta delivers it again.
            EventTooLarge: the engine takes less than it should; every other update of the body was kept.
        """
        body = _Body(keyed, signature, raw, asyncio.get_running_loop().create_future())
        self._waiting.append(body)
        self._news.set()
        return await body.kept

    async def _work(self) -> None:
        while True:
            await self._news.wait()
            bodies = self._take()
            if not self._waiting:
                self._news.clear()
            split = [(body, events) for body in bodies if (events := self._split(body)) is not None]
            task = asyncio.create_task(self._publish(split), name="intake publish")
            self._publishing.add(task)
            task.add_done_callback(self._publishing.discard)
            await asyncio.sleep(0)

    def _take(self) -> list[_Body]:
        taken, size = list[_Body](), 0
        while self._waiting and len(taken) < _MOST and size < _BYTES:
            taken.append(self._waiting.popleft())
            size += len(taken[-1].raw)
        return taken

    def _split(self, body: _Body) -> list[AnyEvent] | None:
        """None: it was refused, and its sender told."""
        try:
            if not signed(body.keyed, body.raw, body.signature):
                raise WrongSignature
            parsed = webhook.parse(body.raw)
            self._routing.check()
            return webhook.events(parsed, self._routing.project, self._clock())
        except Exception as error:  # noqa: BLE001  (its sender gets it; the others' bodies go on)
            if not body.kept.done():
                body.kept.set_exception(error)
            return None

    async def _publish(self, split: list[tuple[_Body, list[AnyEvent]]]) -> None:
        failure = await self._failure([event for _, found in split for event in found])
        for body, found in split:
            if failure is not None and not isinstance(failure, BusUnavailable):  # one event's fault, perhaps
                _answer(body, found, await self._one_by_one(found))
            else:
                _answer(body, found, failure)

    async def _failure(self, events: list[AnyEvent]) -> Exception | None:
        """What kept the events from being published; None: they are durable."""
        try:
            self._failpoints.hit("gateway.before_publish")
            await self._bus.publish(*events)
            self._failpoints.hit("gateway.after_publish")
        except Exception as error:  # noqa: BLE001  (each sender gets it)
            if not isinstance(error, BusUnavailable):
                get_logger().error("webhook.publish_failed", exc_info=error)
            return error
        _count(events)
        return None

    async def _one_by_one(self, events: list[AnyEvent]) -> Exception | None:
        """One event that the bus takes never keeps no other out, of its own body or of its neighbours'."""
        failures = [await self._failure([event]) for event in events]
        return next((failure for failure in failures if failure is not None), None)


def _answer(body: _Body, found: list[AnyEvent], failure: Exception | None) -> None:
    if body.kept.done():  # its sender hung up
        return
    if failure is None:
        body.kept.set_result(len(found))
    else:
        body.kept.set_exception(failure)


def _count(events: list[AnyEvent]) -> None:
    counts: dict[str, int] = {}
    for event in events:
        name = topic_of(type(event.data)).name
        counts[name] = counts.get(name, 0) + 1
    for name, count in counts.items():
        metrics.webhook_updates.labels(name).inc(count)


def signed(keyed: hmac.HMAC, raw: bytes, header: str) -> bool:
    """Whether the header signs these very bytes."""
    mac = keyed.copy()  # the key's own two rounds are not done again
    mac.update(raw)
    return hmac.compare_digest(f"sha256={mac.hexdigest()}".encode(), header.encode(errors="surrogatepass"))
