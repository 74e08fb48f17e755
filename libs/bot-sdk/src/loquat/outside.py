"""`ctx.pool`: the project's database outside of the handler's transaction."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, Final

import asyncpg

from loquat.database import Connections, StatementGone, answering

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_ACQUIRE_LIMIT: Final = 5.0  # seconds
_HANDED_OVER: Final = "SELECT pg_catalog.pg_stat_force_next_flush()"
"""The next handler's transaction on this connection begins to count its rows at zero."""


class Outside:
    """Statements that are true at once, whatever becomes of the handler, and again when the event is tried again. They see nothing of `ctx.db`.

    At most 5 seconds for a connection. What `ctx.db` has locked is not to be touched here: one of the two would wait for the other.
    """

    def __init__(self, connections: Connections) -> None:
        self._connections = connections

    @asynccontextmanager
    async def acquire(self) -> AsyncGenerator[Connection]:
        """A connection for several statements: `async with ctx.pool.acquire() as connection, connection.transaction(): ...`."""
        with answering():
            connection: Connection = await self._connections.acquire(timeout=_ACQUIRE_LIMIT)
        try:
            yield connection
        except (StatementGone, asyncpg.InvalidSQLStatementNameError):
            connection.terminate()
            raise
        finally:
            await self._given_back(connection)

    async def _given_back(self, connection: Connection) -> None:
        try:
            if not connection.is_closed():
                await connection.execute(f"ROLLBACK; {_HANDED_OVER}" if connection.is_in_transaction() else _HANDED_OVER, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
        finally:
            await self._connections.release(connection, timeout=2)

    async def execute(self, query: str, *arguments: Any) -> str:
        """Runs a statement; the command's tag."""
        async with self.acquire() as connection:
            with answering():
                return await connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows."""
        async with self.acquire() as connection:
            with answering():
                return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row."""
        async with self.acquire() as connection:
            with answering():
                return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        async with self.acquire() as connection:
            with answering():
                return await connection.fetchval(query, *arguments)

    async def executemany(self, query: str, arguments: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each set of arguments, all in one transaction."""
        async with self.acquire() as connection:
            with answering():
                await connection.executemany(query, arguments)


class AllButOne:
    """The connections of handlers' transactions: one of the pool's is left, or handlers that all wait for `ctx.pool` would wait for each other."""

    def __init__(self, connections: Connections, size: int) -> None:
        self._connections = connections
        self._free = asyncio.Semaphore(size - 1)

    async def acquire(self, *, timeout: float) -> Any:  # noqa: ASYNC109  (as a pool has it)
        """See `Connections`."""
        async with asyncio.timeout(timeout):
            await self._free.acquire()
        try:
            return await self._connections.acquire(timeout=timeout)
        except BaseException:
            self._free.release()
            raise

    async def release(self, connection: Any, *, timeout: float) -> None:  # noqa: ASYNC109
        """See `Connections`."""
        try:
            await self._connections.release(connection, timeout=timeout)
        finally:
            self._free.release()
