"""`ctx.memory` and `ctx.contact.memory`: what the bot remembers by key, in the handler's one transaction."""

from __future__ import annotations

import json
from datetime import timedelta
from typing import Any, Final, Protocol
from uuid import UUID

import asyncpg

from loquat.database import Database, DatabaseAway, Superseded
from loquat.values import as_json

LONGEST_KEY: Final = 200
LARGEST_VALUE: Final = 64 << 10
"""Bytes of a value as JSON."""
MOST_KEYS: Final = 100_000
"""Keys of a bot, those of its contacts included."""
LONGEST_LIFE: Final = timedelta(days=3653)
LARGEST_NUMBER: Final = 2**53 - 1
"""What every reader of JSON keeps."""
FULL, NO_NUMBER = "full", "number"
_NOT_OPEN: Final = "LQ003"


class MemoryRefused(ValueError):
    """This cannot be remembered. The text names what it is and the limit. Nothing has changed, and the handler may go on."""


class Cells(Protocol):
    """Where it is kept: the project's database, or a test's own memory. Values are JSON."""

    async def get(self, key: str, *, of_contact: bool) -> str | None:
        """What is there."""
        ...

    async def set(self, key: str, value: str, ttl: timedelta | None, *, of_contact: bool) -> bool:
        """Keeps it. False: there are too many keys."""
        ...

    async def increment(self, key: str, by: int, ttl: timedelta | None, *, of_contact: bool) -> int | str:
        """The sum; or why there is none: FULL or NO_NUMBER."""
        ...

    async def delete(self, key: str, *, of_contact: bool) -> bool:
        """Whether there was anything."""
        ...


class Memory:
    """Values by key. A key has 1 to 200 characters, a value is anything that JSON has, up to 64 KiB; a bot has 100,000 keys.

    What is written becomes true with the replies, or not at all. With a time to live it is gone afterwards, as if it had never been. Handlers that
    write the same key at the same time come one after the other: until the first has ended the second waits, 5 seconds at most.
    """

    def __init__(self, cells: Cells, *, of_contact: bool) -> None:
        self._cells, self._of_contact = cells, of_contact

    async def get(self, key: str, default: Any = None) -> Any:
        """What is remembered; else the default."""
        found = await self._cells.get(_key(key), of_contact=self._of_contact)
        return default if found is None else json.loads(found)

    async def set(self, key: str, value: Any, ttl: timedelta | None = None) -> None:
        """Remembers a value, for ever or for so long.

        Raises:
            MemoryRefused: it is too large, no JSON, or there are too many keys.
        """
        text = as_json(value, f"the value of {key!r}", LARGEST_VALUE, MemoryRefused)
        if not await self._cells.set(_key(key), text, _life(ttl), of_contact=self._of_contact):
            raise _full()

    async def increment(self, key: str, by: int = 1, ttl: timedelta | None = None) -> int:
        """Adds to a whole number, and gives the sum; what is not there is 0. However many do so at once, all of it counts.

        The time to live runs from the first: `await ctx.contact.memory.increment("asked", ttl=timedelta(hours=1)) > 20` limits a rate.

        Raises:
            MemoryRefused: something else is remembered there, the sum would have more than 53 bits, or there are too many keys.
        """
        if not isinstance(by, int) or isinstance(by, bool) or abs(by) > LARGEST_NUMBER:  # pyright: ignore[reportUnnecessaryIsInstance]
            raise MemoryRefused(f"what is added is a whole number of at most {LARGEST_NUMBER}, not {by!r}"[:200])
        total = await self._cells.increment(_key(key), by, _life(ttl), of_contact=self._of_contact)
        if isinstance(total, int):
            return total
        if total == FULL:
            raise _full()
        raise MemoryRefused(f"{key!r} holds no whole number, or the sum would be beyond {LARGEST_NUMBER}")

    async def delete(self, key: str) -> bool:
        """Forgets; whether there was anything."""
        return await self._cells.delete(_key(key), of_contact=self._of_contact)


class DatabaseCells:
    """The project's database, through the platform's functions: for the event that is open, as the bot."""

    def __init__(self, database: Database, event: UUID) -> None:
        self._database, self._event = database, event

    async def get(self, key: str, *, of_contact: bool) -> str | None:
        """See `Cells`."""
        return await self._ask("SELECT loquat.memory_get($1, $2, $3)::text", of_contact, key)

    async def set(self, key: str, value: str, ttl: timedelta | None, *, of_contact: bool) -> bool:
        """See `Cells`."""
        return await self._ask("SELECT loquat.memory_set($1, $2, $3, $4::text::jsonb, $5)", of_contact, key, value, ttl)

    async def increment(self, key: str, by: int, ttl: timedelta | None, *, of_contact: bool) -> int | str:
        """See `Cells`."""
        total = await self._ask(
            "SELECT coalesce(refused, total::text) FROM loquat.memory_increment($1, $2, $3, $4, $5)", of_contact, key, by, ttl
        )
        return total if total in {FULL, NO_NUMBER} else int(total)

    async def delete(self, key: str, *, of_contact: bool) -> bool:
        """See `Cells`."""
        return await self._ask("SELECT loquat.memory_delete($1, $2, $3)", of_contact, key)

    async def _ask(self, query: str, *arguments: Any) -> Any:
        try:
            return await self._database.fetchval(query, self._event, *arguments)
        except asyncpg.UndefinedFunctionError as error:
            raise DatabaseAway("the project's database is being brought forward") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == _NOT_OPEN:
                raise Superseded from error
            raise


def _full() -> MemoryRefused:
    return MemoryRefused(f"the bot remembers {MOST_KEYS:,} keys, which is the limit: delete some, or give them a ttl")


def _key(key: str) -> str:
    if isinstance(key, str) and 1 <= len(key) <= LONGEST_KEY:  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
        as_json(key, "a key", LARGEST_VALUE, MemoryRefused)
        return key
    raise MemoryRefused(f"a key is a text of 1 to {LONGEST_KEY} characters, not {key!r}"[:200])


def _life(ttl: timedelta | None) -> timedelta | None:
    if ttl is None or (isinstance(ttl, timedelta) and timedelta(0) < ttl <= LONGEST_LIFE):  # pyright: ignore[reportUnnecessaryIsInstance]
        return ttl
    raise MemoryRefused(f"ttl is a timedelta of more than nothing and at most ten years, such as timedelta(hours=1), not {ttl!r}"[:200])
