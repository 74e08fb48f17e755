"""Wake-ups from Postgres: one listening connection for a process. Losing it costs time, never an event: polling decides."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from loquat_common.db import is_gone

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

CHANNEL: Final = "loquat_bus"
_AGAIN: Final = 2.0  # seconds between tries to listen again


class Wakes:
    """An event per topic, set when somebody published there. A notification's payload is the topics, separated by commas."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._events: dict[str, set[asyncio.Event]] = {}
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen."""
        self._task = asyncio.create_task(self._listen(), name="bus wakes")

    async def stop(self) -> None:
        """Stops listening."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def of(self, *topics: str) -> asyncio.Event:
        """A new event that is set by news of any of these topics."""
        event = asyncio.Event()
        for topic in topics:
            self._events.setdefault(topic, set()).add(event)
        return event

    def forget(self, event: asyncio.Event) -> None:
        """The event is used no more."""
        for waiting in self._events.values():
            waiting.discard(event)

    async def wait(self, event: asyncio.Event, limit: float) -> None:
        """Until the event is set, at most `limit` seconds."""
        try:
            async with asyncio.timeout(limit):
                await event.wait()
        except TimeoutError:
            return

    def notified(self, payload: str) -> None:
        """Sets the events of the topics named."""
        for topic in payload.split(","):
            for event in self._events.get(topic, ()):
                event.set()

    async def _listen(self) -> None:
        while True:
            connection: Connection | None = None
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                ended = asyncio.Event()
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                await connection.add_listener(CHANNEL, self._heard)
                self.notified(",".join(self._events))  # whatever came while nobody listened
                await ended.wait()
            except Exception as error:
                if not is_gone(error):
                    raise
            finally:
                if connection is not None and not connection.is_closed():
                    connection.terminate()
            await asyncio.sleep(_AGAIN)

    def _heard(self, _connection: object, _pid: int, _channel: str, payload: Any) -> None:
        self.notified(str(payload))
