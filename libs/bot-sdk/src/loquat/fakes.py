"""What a `BotTester` has in place of the platform: memories in memory, and a network that the test answers for."""

from __future__ import annotations

import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any

from loquat.memory import FULL, LARGEST_NUMBER, MOST_KEYS, NO_NUMBER
from loquat.web import Answer, Request

Clock = Callable[[], datetime]
Network = Callable[[Request], Answer | Awaitable[Answer]]
"""What answers a bot's requests in a test."""


class NoNetwork(AssertionError):
    """The bot sends a request: give BotTester(bot, http=...) a function that takes a `loquat.web.Request` and gives a `loquat.web.Answer`."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"{request!r}: {self.__doc__}")


class Remembered(MutableMapping[str, Any]):
    """What is remembered, as a test looks at it and sets it: `tester.memory["greeted"]`. What has expired by `now` is not there."""

    def __init__(self, clock: Clock, kept: Mapping[str, tuple[str, datetime | None]] = MappingProxyType({})) -> None:
        self._clock = clock
        self._kept = dict(kept)

    def text(self, key: str) -> str | None:
        """The JSON of a value."""
        found = self._kept.get(key)
        return found[0] if found is not None and (found[1] is None or found[1] > self._clock()) else None

    def keep(self, key: str, text: str, ttl: timedelta | None = None) -> None:
        """Keeps the JSON of a value."""
        self._kept[key] = (text, None if ttl is None else self._clock() + ttl)

    def change(self, key: str, text: str) -> None:
        """Keeps another value, as long as the one that is there."""
        self._kept[key] = (text, self._kept[key][1])

    def __getitem__(self, key: str) -> Any:
        if (text := self.text(key)) is None:
            raise KeyError(key)
        return json.loads(text)

    def __setitem__(self, key: str, value: Any) -> None:
        self.keep(key, json.dumps(value))

    def __delitem__(self, key: str) -> None:
        if self.text(key) is None:
            raise KeyError(key)
        del self._kept[key]

    def __iter__(self) -> Iterator[str]:
        return iter([k for k in self._kept if self.text(k) is not None])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def __repr__(self) -> str:
        return repr(dict(self))

    def copied(self) -> Remembered:
        """For a call, which keeps it or does not."""
        return Remembered(self._clock, self._kept)


class MemoryCells:
    """`loquat.memory.Cells` of one call. `bot` and `contact` are what it leaves behind if it ends well."""

    def __init__(self, bot: Remembered, contact: Remembered) -> None:
        self.bot, self.contact = bot.copied(), contact.copied()

    def _of(self, of_contact: bool) -> Remembered:
        return self.contact if of_contact else self.bot

    def _full(self, cells: Remembered, key: str) -> bool:
        return cells.text(key) is None and len(self.bot) + len(self.contact) >= MOST_KEYS

    async def get(self, key: str, *, of_contact: bool) -> str | None:
        """See `Cells`."""
        return self._of(of_contact).text(key)

    async def set(self, key: str, value: str, ttl: timedelta | None, *, of_contact: bool) -> bool:
        """See `Cells`."""
        cells = self._of(of_contact)
        if self._full(cells, key):
            return False
        cells.keep(key, value, ttl)
        return True

    async def increment(self, key: str, by: int, ttl: timedelta | None, *, of_contact: bool) -> int | str:
        """See `Cells`."""
        cells = self._of(of_contact)
        if self._full(cells, key):
            return FULL
        if (text := cells.text(key)) is None:
            cells.keep(key, json.dumps(by), ttl)
            return by
        number = json.loads(text)
        if not isinstance(number, int) or isinstance(number, bool) or abs(number + by) > LARGEST_NUMBER:
            return NO_NUMBER
        cells.change(key, json.dumps(number + by))
        return number + by

    async def delete(self, key: str, *, of_contact: bool) -> bool:
        """See `Cells`."""
        cells = self._of(of_contact)
        if cells.text(key) is None:
            return False
        del cells[key]
        return True


async def answered(network: Network | None, request: Request) -> Answer:
    """What the test answers to a request.

    Raises:
        NoNetwork: it answers none.
    """
    if network is None:
        raise NoNetwork(request)
    answer = network(request)
    return await answer if inspect.isawaitable(answer) else answer
