"""What a table shows, whatever the engine: the last value of each key, who listens, how fresh it is."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

from loquat_events.catalog import parse
from loquat_events.envelope import AnyEvent

from loquat_common.bus.record import Record


class View:
    """The part of a table that is the same on every engine; an engine feeds it with `put` and says when it `looked` and found nothing more."""

    def __init__(self) -> None:
        self._values: dict[str, AnyEvent] = {}
        self._listeners: list[Callable[[str, AnyEvent | None], None]] = []
        self._caught_up = asyncio.Event()
        self._looked = float("-inf")

    def put(self, record: Record) -> None:
        """A record of the topic; an empty one is a tombstone."""
        event = parse(record.value) if record.value else None
        if event is None:
            self._values.pop(record.key, None)
        else:
            self._values[record.key] = event
        for listener in self._listeners:
            listener(record.key, event)

    def looked(self, began: float) -> None:
        """A look that began then (monotonic) found nothing more to read."""
        self._looked = began
        self._caught_up.set()

    async def caught_up(self) -> None:
        """See `Table`."""
        await self._caught_up.wait()

    def get(self, key: str) -> AnyEvent | None:
        """See `Table`."""
        return self._values.get(key)

    def values(self) -> Mapping[str, AnyEvent]:
        """See `Table`."""
        return self._values

    def age(self) -> float:
        """See `Table`."""
        return time.monotonic() - self._looked

    def on_change(self, listener: Callable[[str, AnyEvent | None], None]) -> None:
        """See `Table`."""
        self._listeners.append(listener)
