"""What a `BotTester` has in place of the platform: memories in memory, a network that the test answers for, the contact's ear."""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Awaitable, Callable, Iterator, Mapping, MutableMapping
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import Any
from uuid import UUID

from loquat.media import File, MediaGone, MediaTooLarge, Uploaded
from loquat.memory import FULL, LARGEST_NUMBER, MOST_KEYS, NO_NUMBER
from loquat.replies import Reply
from loquat.voice import Voice
from loquat.web import Answer, Request

Clock = Callable[[], datetime]
Network = Callable[[Request], Answer | Awaitable[Answer]]
"""What answers a bot's requests in a test."""


class NoNetwork(AssertionError):
    """The bot sends a request: give BotTester(bot, http=...) a function that takes a `loquat.web.Request` and gives a `loquat.web.Answer`."""

    def __init__(self, request: Request) -> None:
        super().__init__(f"{request!r}: {self.__doc__}")


class KeptFiles:
    """Files of a test: what contacts send, by id, and what the bot uploads."""

    def __init__(self) -> None:
        self.files: dict[str, File] = {}
        self.uploads: list[tuple[Uploaded, File, str]] = []

    def keep(self, data: bytes, mime_type: str) -> str:
        """The id of a file that is there from now on."""
        media_id = str(1_000 + len(self.files))
        self.files[media_id] = File(data, mime_type, hashlib.sha256(data).hexdigest())
        return media_id

    async def fetch(self, media_id: str, most: int) -> File:
        """See `loquat.media.Store`."""
        file = self.files.get(media_id)
        if file is None:
            raise MediaGone(f"no file {media_id}: give tester.send_image or tester.send_media its data")
        if file.size > most:
            raise MediaTooLarge(f"the file has more than {most} bytes")
        return file

    async def store(self, data: bytes, mime_type: str, name: str) -> str:
        """See `loquat.media.Store`."""
        media_id = self.keep(data, mime_type)
        self.uploads.append((Uploaded(media_id, mime_type), self.files[media_id], name))
        return media_id


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


class Ear:
    """The contact's, for what a call says at once: `tell` is given each thing, the first time. `typings`: how often the last call showed that it writes."""

    def __init__(self, tell: Callable[[Reply], None]) -> None:
        self._tell = tell
        self._heard: set[tuple[UUID, int]] = set()
        self.typings = 0

    async def say(self, answered: UUID, place: int, reply: Reply) -> None:
        """See `loquat.voice.Line`."""
        if (answered, place) not in self._heard:
            self._heard.add((answered, place))
            self._tell(reply)

    def typing(self) -> None:
        """See `loquat.voice.Line`."""
        self.typings += 1

    def begin(self, clock: Clock) -> Voice:
        """Of the next call."""
        self.typings = 0
        return Voice(self, lambda: clock().timestamp())


async def answered(network: Network | None, request: Request) -> Answer:
    """What the test answers to a request.

    Raises:
        NoNetwork: it answers none.
    """
    if network is None:
        raise NoNetwork(request)
    answer = network(request)
    return await answer if inspect.isawaitable(answer) else answer
