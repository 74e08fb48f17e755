"""The senders: heads of lanes, as many at once as allowed, each attempt committed before it is made."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final
from uuid import UUID

from loquat_common import metrics
from loquat_common.crypto import SealBroken
from loquat_common.db import is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.conversations import Outgoing

from loquat_connector.adapters.graph import Graph
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.queue import SHARE, Send, SendQueue
from loquat_connector.domain.graph import Unsendable, request
from loquat_connector.domain.pacing import Pacing
from loquat_connector.domain.verdict import Verdict

_AT_ONCE: Final = 2 * SHARE
"""Attempts at the same time: two numbers that are slow leave room for a third as soon as one of theirs ends."""
_FIRST_PAUSE: Final = 0.1  # seconds until a verdict that could not be stored is tried again, then twice as long
_LONGEST_PAUSE: Final = 1.0
_REST: Final = 5.0  # seconds between looks when nothing is due: another connector may have died


@dataclass(frozen=True, slots=True)
class _Ready:
    """What goes to the socket."""

    token: str = field(repr=False)
    body: dict[str, Any]


class Sender:
    """Works until cancelled; `wake` says that something is new. `told` is called when there is something to publish."""

    def __init__(
        self, queue: SendQueue, numbers: Numbers, graph: Graph, pacing: Pacing, failpoints: Failpoints, told: Callable[[], None]
    ) -> None:
        self._queue, self._numbers, self._graph, self._pacing = queue, numbers, graph, pacing
        self._failpoints, self._told = failpoints, told
        self._news = asyncio.Event()
        self._busy: dict[str, asyncio.Task[None]] = {}  # by lane
        self._resting: dict[str, float] = {}  # numbers that their pace keeps from sending, until when
        self._swept = 0.0
        self._draining = False
        self._log = get_logger()

    def wake(self) -> None:
        """Something may be due."""
        self._news.set()

    async def run(self) -> None:
        """For ever; a control database that is away is waited for."""
        try:
            while True:
                self._news.clear()
                try:
                    pause = await self._round()
                except Exception as error:
                    if not is_gone(error):
                        raise
                    self._log.warning("sender.database_away", error=type(error).__name__)
                    pause = 1.0
                try:
                    async with asyncio.timeout(pause):
                        await self._news.wait()
                except TimeoutError:
                    continue
        finally:
            await self.drain(0)

    async def drain(self, limit: float) -> bool:
        """Begins no more attempts, waits for those under way."""
        self._draining = True
        if not self._busy:
            return True
        _, pending = await asyncio.wait(list(self._busy.values()), timeout=limit)
        for task in pending:
            task.cancel()
        return not pending

    async def _round(self) -> float:
        """One look; seconds until the next."""
        now = time.monotonic()
        if now - self._swept >= 1.0:
            self._swept = now
            if await self._queue.sweep():
                self._told()
        if self._draining or len(self._busy) >= _AT_ONCE:
            return _REST  # the end of an attempt wakes us
        self._resting = {number: until for number, until in self._resting.items() if until > now}
        waits = dict[UUID, float]()
        for send in await self._queue.candidates(_AT_ONCE - len(self._busy), list(self._busy), list(self._resting)):
            if (wait := self._begin(send)) > 0:
                waits[send.message_id] = wait
        if waits:
            await self._queue.postpone(waits)
        metrics.send_queue.set(len(self._busy))
        if len(self._busy) >= _AT_ONCE:
            return _REST
        due = await self._queue.next_due(list(self._busy), list(self._resting))
        rested = min(self._resting.values(), default=now + _REST) - time.monotonic()
        return max(0.02, min(_REST, rested if due is None else min(due, rested)))

    def _begin(self, send: Send) -> float:
        """Seconds that this recipient must wait; 0: the attempt is under way, or its number or lane has to rest first."""
        lane, now = f"{send.number_id} {send.recipient}", time.monotonic()
        if lane in self._busy or send.number_id in self._resting:
            return 0.0
        if (rest := self._pacing.rest(send.number_id, now)) > 0:
            self._resting[send.number_id] = now + rest
            return 0.0
        if (wait := self._pacing.take(send.number_id, send.recipient, now)) > 0:
            return wait
        task = asyncio.create_task(self._attempt(send), name=f"send {send.message_id}")
        self._busy[lane] = task
        task.add_done_callback(lambda task: self._ended(lane, task))
        return 0.0

    def _ended(self, lane: str, task: asyncio.Task[None]) -> None:
        self._busy.pop(lane, None)
        self._news.set()
        if not task.cancelled() and (error := task.exception()) is not None:
            self._log.error("sender.attempt_failed", exc_info=error)  # its lease lapses; nobody knows

    async def _attempt(self, send: Send) -> None:
        ready = await self._ready(send)
        if not await self._queue.claim(send):
            return
        lease = time.monotonic() + self._queue.lease
        self._failpoints.hit("connector.after_sending")
        verdict = ready if isinstance(ready, Verdict) else await self._graph.send(send.number_id, ready.token, ready.body, send.attempt)
        self._failpoints.hit("connector.after_accept")
        await asyncio.shield(self._end(send, verdict, lease))
        metrics.send_attempts.labels(verdict.state).inc()
        if verdict.reconnect:
            self._log.warning("number.needs_reconnect", number=send.number_id, project=send.project_id, code=verdict.code)
        if verdict.park:
            self._log.warning("number.parked", number=send.number_id, project=send.project_id, code=verdict.code, seconds=verdict.park)
        self._failpoints.hit("connector.after_store")
        self._told()

    async def _end(self, send: Send, verdict: Verdict, lease: float) -> None:
        """Writes down what is known, again and again until the lease is over: after that the row says that nobody knows."""
        pause = _FIRST_PAUSE
        while True:
            try:
                return await self._queue.end(send, verdict)
            except Exception as error:
                if not is_gone(error) or time.monotonic() + pause > lease:
                    raise
                self._log.warning("sender.database_away", error=type(error).__name__)
            await asyncio.sleep(pause)
            pause = min(2 * pause, _LONGEST_PAUSE)

    async def _ready(self, send: Send) -> _Ready | Verdict:
        """All that can go wrong before the attempt is committed: after that, nothing stands between it and the socket."""
        try:
            token = await self._numbers.token(send.project_id, send.number_id)
        except SealBroken:
            return Verdict("queued", wait=5, title="the number's token cannot be opened: connect it again", reconnect=True)
        if token is None:
            return Verdict("failed", title="the number is no longer this project's")
        try:
            body = request(Outgoing.model_validate(send.message), send.recipient, is_user_id=send.is_user_id, message_id=send.message_id)
        except Unsendable as error:
            return Verdict("failed", title=str(error))
        return _Ready(token, body)
