"""Connections. One pool on the control database; pools of project databases are opened on first use, few, and closed when idle."""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson

from loquat_common import metrics
from loquat_common.settings import ClusterAddress

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]
    Pool = asyncpg.Pool[asyncpg.Record]

CONNECT_LIMIT: Final = 5.0
"""Seconds to open a connection. Connecting takes 5 ms (measured); a cluster that needs more is away."""
STATEMENTS: Final = 100
"""Statements a connection keeps prepared. Without, each call is parsed and planned anew, over one more round trip. PgBouncer can since 1.21."""
COMMAND_LIMIT: Final = 15.0
"""Seconds for one command. Above the services' statement_timeout of 10 s, so that the server's own error comes first."""
DEEPEST: Final = 100
"""Levels of lists and objects that are read where there are more than 1,024, which is orjson's limit. What is read is also to be written: it writes 254."""
_BRACKET_OR_STRING: Final = re.compile(r'[\[\]{}]|"[^"\\]*(?:\\.[^"\\]*)*"')


class DatabaseAway(Exception):
    """The cluster, or this database, cannot be reached now. Nothing was done, or nothing that can be known."""


class WrongDatabase(Exception):
    """The database is not the one that was asked for: another project's, or of another epoch."""


GONE: Final = (
    OSError,
    TimeoutError,
    asyncpg.PostgresConnectionError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,  # the server's farewell has come and the end of the connection has not
    asyncpg.OperatorInterventionError,
    asyncpg.TooManyConnectionsError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.ObjectNotInPrerequisiteStateError,
)
"""What asyncpg raises when the server is away, starting, stopping, or does not let us in. See `is_gone`."""


def is_gone(error: BaseException) -> bool:
    """Whether the server, not the statement, is what failed. asyncpg's complaint about an argument is an InterfaceError too."""
    return isinstance(error, GONE) and not isinstance(error, ValueError)


async def prepare(connection: Connection) -> None:
    """Gives jsonb as Python values. A json column stays text: it keeps what jsonb refuses."""
    await connection.set_type_codec("jsonb", encoder=_encode, decoder=decode, schema="pg_catalog")


def decode(text: str) -> Any:
    """What a jsonb holds. Of what is nested so deep that no reader takes it, null stands for what is below `DEEPEST` levels.

    PostgreSQL keeps some thousand levels, so a project's own code can put them into its own rows. Reading them must not fail: whoever reads is
    the platform, and comes again for ever.
    """
    try:
        return orjson.loads(text)
    except orjson.JSONDecodeError:
        return orjson.loads(_pruned(text))


def _pruned(text: str) -> str:
    kept, level, begin = list[str](), 0, 0
    for token in _BRACKET_OR_STRING.finditer(text):
        match token[0]:
            case "[" | "{":
                level += 1
                if level == DEEPEST + 1:
                    kept += [text[begin : token.start()], "null"]
            case "]" | "}":
                level -= 1
                if level == DEEPEST:
                    begin = token.end()
            case _:
                pass
    return "".join([*kept, text[begin:]])


def _encode(value: object) -> str:
    return orjson.dumps(value, option=orjson.OPT_NON_STR_KEYS).decode()


async def open_pool(
    dsn: str,
    *,
    search_path: str,
    min_size: int = 1,
    max_size: int = 8,
    application: str = "loquat",
    statements: int = STATEMENTS,
) -> Pool:
    """A pool on the control database. `statements`: how many each connection keeps prepared.

    Raises:
        DatabaseAway: it cannot be reached.
    """
    try:
        return await asyncpg.create_pool(
            dsn,
            min_size=min_size,
            max_size=max_size,
            timeout=CONNECT_LIMIT,
            command_timeout=COMMAND_LIMIT,
            init=prepare,
            statement_cache_size=statements,
            reset=_as_it_is,
            max_inactive_connection_lifetime=300,
            server_settings={"search_path": search_path, "application_name": application},
        )
    except GONE as error:
        raise DatabaseAway(type(error).__name__) from error


async def _as_it_is(_connection: object) -> None:
    """No session state is ever set on these connections; an open transaction was rolled back before this. Saves a round trip each time."""


@dataclass(slots=True, eq=False)
class _Entry:
    """One project database: how many connections are out, and those that rest."""

    key: tuple[str, str, int]
    resting: list[Connection] = field(default_factory=list["Connection"])
    used_at: float = 0.0


@dataclass(frozen=True, slots=True)
class Place:
    """A project's database, as the directory says."""

    project: str
    cluster: str
    database: str
    epoch: int


Dial = Callable[[Place], Awaitable["asyncpg.Connection[asyncpg.Record]"]]
"""Opens a connection to a project's database; raises DatabaseAway or WrongDatabase."""


def as_service(clusters: Mapping[str, ClusterAddress], user: str, *, statements: int = STATEMENTS) -> Dial:
    """Connections as one service's role. The database's own word about project and epoch is checked."""

    async def dial(place: Place) -> Connection:
        address = clusters.get(place.cluster)
        if address is None:
            raise DatabaseAway(f"the cluster {place.cluster} is not in this service's settings")
        try:
            connection = await asyncpg.connect(
                host=address.host,
                port=address.port,
                user=user,
                password=address.password.get_secret_value(),
                database=place.database,
                timeout=CONNECT_LIMIT,
                command_timeout=COMMAND_LIMIT,
                statement_cache_size=statements,
                server_settings={"search_path": "pg_catalog, pg_temp", "application_name": user, "jit": "off"},
            )
        except GONE as error:
            raise DatabaseAway(type(error).__name__) from error
        try:
            await prepare(connection)
            found = await connection.fetchrow("SELECT project, epoch FROM loquat.whoami()")
        except BaseException:
            connection.terminate()
            raise
        if found is None or (found["project"], found["epoch"]) != (place.project, place.epoch):
            connection.terminate()
            raise WrongDatabase(place.database)
        return connection

    return dial


class ProjectPools:
    """Connections to many project databases.

    At most `cap` connections over all, at most `per_project` to one; beyond that callers wait `wait` seconds. A connection that rested
    longer than `idle` seconds is closed, and the longest-resting one makes room when the cap is reached.
    """

    def __init__(
        self,
        dial: Dial,
        *,
        cap: int = 60,
        per_project: int = 4,
        idle: float = 60.0,
        wait: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._dial = dial
        self._idle, self._wait, self._clock = idle, wait, clock
        self._room = asyncio.Semaphore(cap)
        self._per_project = per_project
        self._gates: dict[tuple[str, str, int], tuple[asyncio.Semaphore, int]] = {}
        self._entries: OrderedDict[tuple[str, str, int], _Entry] = OrderedDict()  # least recently used first
        self._cap, self._open = cap, 0
        self._closed = False

    @asynccontextmanager
    async def acquire(self, cluster: str, database: str, *, project: str, epoch: int) -> AsyncGenerator[Connection]:
        """A connection for a moment. Never hold it while bot code runs.

        Raises:
            DatabaseAway: the cluster does not answer, or no connection came free in time.
            WrongDatabase: the directory is out of date.
        """
        key = (cluster, database, epoch)
        async with self._turn(key):
            connection = await self._take(key, project)
            try:
                yield connection
            except BaseException as error:
                if is_gone(error):
                    connection.terminate()
                    raise DatabaseAway(type(error).__name__) from error
                if not connection.is_closed() and connection.is_in_transaction():
                    connection.terminate()  # whoever was interrupted inside a transaction leaves nothing behind
                raise
            finally:
                self._give_back(key, connection)

    @asynccontextmanager
    async def _turn(self, key: tuple[str, str, int]) -> AsyncGenerator[None]:
        gate, users = self._gates.get(key, (asyncio.Semaphore(self._per_project), 0))
        self._gates[key] = (gate, users + 1)
        held = [False, False]
        try:
            try:
                async with asyncio.timeout(self._wait):
                    held[0] = await gate.acquire()
                    held[1] = await self._room.acquire()
            except TimeoutError:
                raise DatabaseAway("no connection came free in time") from None
            yield
        finally:
            if held[1]:
                self._room.release()
            if held[0]:
                gate.release()
            gate, users = self._gates[key]
            self._gates[key] = (gate, users - 1)
            if users == 1:
                del self._gates[key]

    async def _take(self, key: tuple[str, str, int], project: str) -> Connection:
        entry = self._entries.get(key)
        while entry is not None and entry.resting:
            connection = entry.resting.pop()
            if not connection.is_closed():
                return connection
            self._count(-1)
        await self._make_room()
        return await self._connect(key, project)

    async def _connect(self, key: tuple[str, str, int], project: str) -> Connection:
        cluster, database, epoch = key
        self._count(1)
        try:
            return await self._dial(Place(project, cluster, database, epoch))
        except BaseException:
            self._count(-1)
            raise

    def _give_back(self, key: tuple[str, str, int], connection: Connection) -> None:
        if connection.is_closed() or self._closed:
            connection.terminate()
            self._count(-1)
            return
        entry = self._entries.setdefault(key, _Entry(key))
        entry.resting.append(connection)
        entry.used_at = self._clock()
        self._entries.move_to_end(key)

    async def _make_room(self) -> None:
        """Resting connections count against the cap; the longest-resting project gives one up."""
        while self._open >= self._cap:
            victim = next((e for e in self._entries.values() if e.resting), None)
            if victim is None:
                return
            await self._close(victim.resting.pop(0))

    async def close_idle(self) -> None:
        """Closes what rested too long. Called now and then by the owner's loop."""
        now = self._clock()
        for key, entry in list(self._entries.items()):
            if now - entry.used_at < self._idle:
                return  # least recently used first: the others are younger
            resting, entry.resting = entry.resting, []
            del self._entries[key]
            for connection in resting:
                await self._close(connection)

    async def run(self) -> None:
        """Closes idle connections, for ever; wakes only while there are any."""
        while True:
            await asyncio.sleep(max(1.0, self._idle / 2))
            await self.close_idle()

    async def close(self) -> None:
        """Closes all that rest; those in use close when they come back."""
        self._closed = True
        for entry in self._entries.values():
            for connection in entry.resting:
                await self._close(connection)
        self._entries.clear()

    async def _close(self, connection: asyncpg.Connection[Any]) -> None:
        self._count(-1)
        try:
            await connection.close(timeout=2)
        except GONE:
            connection.terminate()

    def _count(self, change: int) -> None:
        self._open += change
        metrics.pool_connections.set(self._open)
