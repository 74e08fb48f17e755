"""`ctx.db` in unit tests: a schema of its own in a throw-away database, or a clear word that there is none."""

from __future__ import annotations

import asyncio
import threading
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from loquat.database import Database, prepare

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LIMIT = 10.0  # seconds to connect


class NoScratchDatabase(Exception):
    """The bot uses ctx.db: give BotTester(bot, database="postgresql://...") a throw-away database."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class Scratch:
    """Opens connections, each for one call, and makes the schema at the first. So nothing hangs on an event loop."""

    def __init__(self, dsn: str | None) -> None:
        self._dsn = dsn
        self._schema = f"bot_test_{uuid4().hex[:12]}"
        self._made = False

    async def acquire(self, *, timeout: float = _LIMIT) -> Connection:  # noqa: ASYNC109  (as a pool has it)
        """A connection in the schema.

        Raises:
            NoScratchDatabase: none was given.
        """
        if self._dsn is None:
            raise NoScratchDatabase
        connection: Connection = await asyncpg.connect(self._dsn, timeout=timeout)
        await prepare(connection)
        if not self._made:
            await connection.execute(f"CREATE SCHEMA {self._schema}")
            self._made = True
        await connection.execute(f"SET search_path = {self._schema}, public")
        return connection

    async def release(self, connection: Connection, *, timeout: float = _LIMIT) -> None:  # noqa: ASYNC109
        """Closes it."""
        await connection.close(timeout=timeout)

    def drop(self) -> None:
        """Removes the schema. Waits for it, in a thread of its own: it is called from tests that have a running loop and from those that have none."""
        if self._made:
            thread = threading.Thread(target=lambda: asyncio.run(self._drop()), name="drop the schema")
            thread.start()
            thread.join()

    async def _drop(self) -> None:
        connection = await self.acquire()
        await connection.execute(f"SET client_min_messages = error; DROP SCHEMA {self._schema} CASCADE")
        self._made = False
        await self.release(connection)


class ScratchDatabase(Database):
    """`ctx.db` of one call. The result is the tester's to keep: committing here is only COMMIT."""

    async def commit(self, event: UUID, version: int, result: dict[str, Any]) -> None:
        """Ends the transaction."""
        del event, version, result
        connection = await self._opened()
        await connection.execute("COMMIT")
