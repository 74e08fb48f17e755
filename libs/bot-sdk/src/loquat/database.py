"""`ctx.db`: the handler's one transaction on the project's own database, committed together with its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = PoolConnectionProxy[asyncpg.Record]

_ACQUIRE_LIMIT = 5.0  # seconds for a connection of the project's few


class Superseded(Exception):
    """Another run of this event, or another event of this conversation, was first. The platform begins again."""


class DatabaseAway(Exception):
    """The project's database does not answer. The platform tries again."""


@contextmanager
def _answering() -> Generator[None]:
    """Names a database that is away. A statement that took too long, or one that is wrong, is the bot's own affair."""
    try:
        yield
    except asyncpg.QueryCanceledError:
        raise
    except (
        OSError,
        TimeoutError,
        asyncpg.PostgresConnectionError,
        asyncpg.OperatorInterventionError,
        asyncpg.TooManyConnectionsError,
    ) as error:
        raise DatabaseAway(type(error).__name__) from error
    except asyncpg.InterfaceError as error:
        if isinstance(error, ValueError):  # an argument that is none of its type
            raise
        raise DatabaseAway(type(error).__name__) from error


class Database:
    """Opened on first use. What is written here becomes true together with the replies, or not at all: do not COMMIT yourself.

    Effects outside of this transaction (an HTTP call, say) may happen more than once: `ctx.event.id` is their idempotency key.
    """

    def __init__(self, pool: Pool) -> None:
        self._pool = pool
        self._connection: Connection | None = None
        self._gate = asyncio.Lock()

    @property
    def used(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None

    async def execute(self, query: str, *arguments: Any) -> str:
        """Runs a statement with `$1`-style arguments; the command's tag."""
        connection = await self._opened()
        with _answering():
            return await connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows."""
        connection = await self._opened()
        with _answering():
            return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row."""
        connection = await self._opened()
        with _answering():
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        connection = await self._opened()
        with _answering():
            return await connection.fetchval(query, *arguments)

    async def executemany(self, query: str, arguments: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each set of arguments."""
        connection = await self._opened()
        with _answering():
            await connection.executemany(query, arguments)

    async def _opened(self) -> Connection:
        async with self._gate:
            if self._connection is None:
                with _answering():
                    connection = await self._pool.acquire(timeout=_ACQUIRE_LIMIT)
                    await connection.execute("BEGIN")
                self._connection = connection
            return self._connection

    async def commit(self, event: UUID, version: int, result: dict[str, Any]) -> None:
        """Ends the transaction with the result: both are there, or neither.

        Raises:
            Superseded: somebody was first; nothing of this run is there.
            DatabaseAway: nobody knows. The platform looks.
        """
        connection = await self._opened()
        try:
            await connection.execute("SELECT loquat.record_result($1, $2, $3::text::jsonb)", event, version, json.dumps(result))
            await connection.execute("COMMIT")
        except asyncpg.UniqueViolationError as error:
            raise Superseded from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == "LQ003":  # the event is not open at this version
                raise Superseded from error
            if isinstance(error, asyncpg.PostgresConnectionError | asyncpg.OperatorInterventionError):
                raise DatabaseAway(type(error).__name__) from error
            raise
        except (OSError, asyncpg.InterfaceError) as error:
            raise DatabaseAway(type(error).__name__) from error

    async def close(self) -> None:
        """Gives the connection back; what was not committed is rolled back."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        try:
            if not connection.is_closed() and connection.is_in_transaction():
                await connection.execute("ROLLBACK", timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
        finally:
            await self._pool.release(connection, timeout=2)
