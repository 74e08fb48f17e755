"""`ctx.db`: the handler's one transaction on the project's own database, committed together with its result."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Generator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol
from uuid import UUID

import asyncpg

if TYPE_CHECKING:
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]

_ROLLBACK = "ROLLBACK; SELECT pg_catalog.pg_stat_force_next_flush()"
"""The session's row counters are handed over, or the next transaction's result would count rows that were rolled back."""
_NOT_OPEN = "LQ003"  # the event is not open at this version
_TAKEN = asyncpg.UniqueViolationError.sqlstate
_ACQUIRE_LIMIT = 5.0  # seconds for a connection of the project's few


class Connections(Protocol):
    """Where connections come from: the worker's pool, or a test's throw-away database."""

    def acquire(self, *, timeout: float) -> Awaitable[Any]:
        """One."""
        ...

    def release(self, connection: Any, *, timeout: float) -> Awaitable[None]:
        """Takes it back."""
        ...


class Superseded(Exception):
    """Another run of this event, or another event of this conversation, was first. The platform begins again."""


class StatementGone(Superseded):
    """A statement that was prepared is not so any more: its table has another shape now, or the bot let go of it itself. The platform begins again."""


class DatabaseAway(Exception):
    """The project's database does not answer. The platform tries again."""


@contextmanager
def answering() -> Generator[None]:
    """Names a database that is away. A statement that took too long, or one that is wrong, is the bot's own affair."""
    try:
        yield
    except asyncpg.QueryCanceledError:
        raise
    except (asyncpg.InvalidCachedStatementError, asyncpg.InvalidSQLStatementNameError) as error:
        raise StatementGone(type(error).__name__) from error
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

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._connection: Connection | None = None
        self._gate = asyncio.Lock()
        self.queries = 0

    @property
    def used(self) -> bool:
        """Whether a transaction is open."""
        return self._connection is not None

    async def execute(self, query: str, *arguments: Any) -> str:
        """Runs a statement with `$1`-style arguments; the command's tag."""
        connection = await self._asked()
        with self._answering():
            return await connection.execute(query, *arguments)

    async def fetch(self, query: str, *arguments: Any) -> list[asyncpg.Record]:
        """All rows."""
        connection = await self._asked()
        with self._answering():
            return await connection.fetch(query, *arguments)

    async def fetchrow(self, query: str, *arguments: Any) -> asyncpg.Record | None:
        """The first row."""
        connection = await self._asked()
        with self._answering():
            return await connection.fetchrow(query, *arguments)

    async def fetchval(self, query: str, *arguments: Any) -> Any:
        """The first column of the first row."""
        connection = await self._asked()
        with self._answering():
            return await connection.fetchval(query, *arguments)

    async def executemany(self, query: str, arguments: Sequence[Sequence[Any]]) -> None:
        """Runs a statement for each set of arguments."""
        connection = await self._asked()
        with self._answering():
            await connection.executemany(query, arguments)

    @contextmanager
    def _answering(self) -> Generator[None]:
        try:
            with answering():
                yield
        except StatementGone:
            if self._connection is not None:
                self._connection.terminate()  # whatever else it takes for prepared may be gone, too
            raise

    async def _asked(self) -> Connection:
        """For one more statement of the handler's."""
        self.queries += 1
        return await self._opened()

    async def _opened(self) -> Connection:
        async with self._gate:
            if self._connection is None:
                with answering():
                    self._connection = await self._begun()
            return self._connection

    async def _begun(self) -> Connection:
        connection: Connection = await self._connections.acquire(timeout=_ACQUIRE_LIMIT)
        try:
            await connection.execute("BEGIN")
        except BaseException:
            await self._connections.release(connection, timeout=2)
            raise
        return connection

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
        except asyncpg.PostgresError as error:
            if error.sqlstate == _NOT_OPEN or (
                error.sqlstate == _TAKEN and error.schema_name == "loquat" and error.table_name == "results"
            ):
                raise Superseded from error  # a unique key of the bot's own, deferred to the commit, is the bot's error
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
                await connection.execute(_ROLLBACK, timeout=2)
        except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError):
            connection.terminate()
        finally:
            await self._connections.release(connection, timeout=2)


async def prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    """The type jsonb becomes Python's own objects."""

    def decode(text: str) -> Any:
        return json.loads(text)

    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=decode, schema="pg_catalog")
