"""Sessions as a project's own editor: whatever touches a tenant's tables, triggers, casts or expressions runs as the tenant, never as us.

A connection is logged in as the editor (architecture, "Databases"): a `SET ROLE` from a service's login could be undone by a tenant's trigger.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from itertools import count
from typing import TYPE_CHECKING, Final
from weakref import WeakKeyDictionary

import asyncpg
from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.db import CONNECT_LIMIT, GONE, DatabaseAway, Dial, Place, ProjectPools, is_gone
from loquat_common.directory import Directory
from loquat_common.problems import Problem, not_found

from loquat_schema_manager.adapters.refusals import lives, over_size
from loquat_schema_manager.adapters.sizes import Size
from loquat_schema_manager.domain.fragments import Text

if TYPE_CHECKING:
    from asyncpg.prepared_stmt import PreparedStatement

    Connection = asyncpg.Connection[asyncpg.Record]

_COMMAND_LIMIT: Final = 90.0
"""Seconds for one command of any kind; the server's own limits, which each session sets, come first."""
_CLEANING: Final = 2.0  # seconds
_SOON: Final = 0.05
"""Seconds that a request waits for a connection that is being cleaned (1 ms) before it opens another one (5 ms)."""


_BUT_STATEMENTS: Final = "CLOSE ALL; SET SESSION AUTHORIZATION DEFAULT; RESET ALL; UNLISTEN *; DISCARD SEQUENCES; DISCARD TEMP; "
"""DISCARD ALL without prepared statements and their plans, and without advisory locks, which no tenant may take."""
# purpose: whether the one that was prepared is still there, and nothing else: by SQL nobody makes one that says false
_STATEMENTS: Final = "SELECT name, from_sql FROM pg_catalog.pg_prepared_statements"
_NUMBERS: Final = count()


@dataclass(frozen=True, slots=True)
class Session:
    """How long one request may hold things up, in milliseconds, and what it does.

    `frees`: what it writes makes room, so it may write over the project's size, too.
    """

    statement_ms: int = 10_000
    lock_ms: int = 2_000
    read_only: bool = False
    frees: bool = False


@dataclass(slots=True)
class _State:
    """What is known of a connection: the settings with which it rests, and the last statement that was `fetch`ed on it."""

    settings: str | None = None
    sql: str = ""
    again: bool = False
    kept: PreparedStatement[asyncpg.Record] | None = None


class _OverSize(Exception):
    """The project's editor reads only."""


def as_editor(provisioner: InternalClient) -> Dial:
    """Connections logged in as the project's editor, with the password that the provisioner keeps."""

    async def dial(place: Place) -> Connection:
        path = f"/internal/projects/{place.project}/credentials/editor"
        try:
            given = await provisioner.call("GET", path, actor=provisioner.itself("credentials:read"))
        except ServiceUnavailable as error:
            raise DatabaseAway("the provisioner does not answer") from error
        if given["database"] != place.database:
            raise DatabaseAway("the directory is out of date")
        try:
            return await asyncpg.connect(
                host=given["host"],
                port=given["port"],
                database=given["database"],
                user=given["user"],
                password=given["password"],
                timeout=CONNECT_LIMIT,
                command_timeout=_COMMAND_LIMIT,
                statement_cache_size=0,  # DISCARD ALL takes prepared statements away
                server_settings={"application_name": "loquat_schema_manager"},
            )
        except GONE as error:
            raise DatabaseAway(type(error).__name__) from error

    return dial


class Editors:
    """Sessions of requests on projects' databases. `pools` dials with `as_editor`; `size` is asked when a project is over its own.

    A session is cleaned while its answer is on the way already: a connection comes back to its pool when it is clean, or not at all.
    """

    def __init__(self, directory: Directory, pools: ProjectPools, size: Callable[[str], Awaitable[Size | None]]) -> None:
        self._directory, self._pools, self._size = directory, pools, size
        self._states: WeakKeyDictionary[Connection, _State] = WeakKeyDictionary()
        self._cleaning: dict[asyncio.Task[None], Place] = {}  # no more than the pools have connections

    def place(self, project: str) -> Place:
        """Where its database is.

        Raises:
            Problem: 404 when there is none, 409 when it is not ready.
        """
        listed = self._directory.get(project)
        if listed is None or listed.state in {"deleting", "deleted"}:
            raise not_found("project")
        if listed.state != "ready" or listed.cluster is None or listed.database is None:
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {listed.state}")
        return Place(project, listed.cluster, listed.database, listed.epoch)

    @asynccontextmanager
    async def session(self, project: str, limits: Session | None = None, actor: str = "") -> AsyncGenerator[Connection]:
        """A connection of the project's editor, with no transaction open, fresh: whatever a trigger set in it before is gone.

        `actor` stands in the setting `loquat.actor`, for the history of rows; the tenant may set it to anything.

        Raises:
            Problem: 404, 409 as `place`; 503 when the cluster does not answer; 507 `over_limit` for what writes and does not make room.
        """
        place, limits = self.place(project), limits or Session()
        try:
            async with AsyncExitStack() as stack:
                connection = await self._begun(stack, place, limits, actor)
                try:
                    yield connection
                except BaseException:
                    await self._clean(connection)
                    raise
                self._clean_later(place, connection, stack.pop_all(), _settings(limits, actor) if limits.read_only else "")
        except _OverSize:
            raise over_size(await self._size(project)) from None
        except DatabaseAway:
            raise Problem(503, "database_away", "The project's database does not answer", "Try again") from None

    async def fetch(self, connection: Connection, sql: str, *values: object) -> list[asyncpg.Record]:
        """Rows, on the connection of a session. A statement that a connection is asked again and again stays prepared on it, with its plan."""
        state = self._states.setdefault(connection, _State())
        if state.kept is not None and state.sql == sql:
            return await state.kept.fetch(*values)
        state.sql, state.again, state.kept = sql, state.sql == sql, None
        return await connection.fetch(sql, *values)

    async def close(self) -> None:
        """Waits until what is being cleaned is back in its pool."""
        if self._cleaning:
            await asyncio.wait(self._cleaning)

    async def _begun(self, stack: AsyncExitStack, place: Place, limits: Session, actor: str) -> Connection:
        """A connection with the settings.

        One that rested may have been ended meanwhile, and of whether its project is over its size it knows what was so when it was opened. Then the
        next is tried, at the end a new one, whose word counts.
        """
        while True:
            if nearly := [task for task, of in self._cleaning.items() if of == place]:
                await asyncio.wait(nearly, timeout=_SOON, return_when=asyncio.FIRST_COMPLETED)
            connection = await stack.enter_async_context(
                self._pools.acquire(place.cluster, place.database, project=place.project, epoch=place.epoch)
            )
            state = self._states.get(connection) or self._met(connection)
            rested, state.settings = state.settings, None
            try:
                if rested != (settings := _settings(limits, actor)):
                    await connection.execute(settings)
                if limits.read_only or not _reads_only(connection):
                    return connection
                if rested is None:
                    raise _OverSize
            except BaseException as error:
                if rested is None or not is_gone(error):
                    await self._clean(connection)
                    raise
            connection.terminate()
            await stack.aclose()

    def _met(self, connection: Connection) -> _State:
        """A statement that is kept refers to its connection: with the end of that it is let go."""

        def forget(_gone: object) -> None:
            state.kept = None

        state = self._states.setdefault(connection, _State())
        connection.add_termination_listener(forget)
        return state

    def _clean_later(self, place: Place, connection: Connection, held: AsyncExitStack, settings: str) -> None:
        task = asyncio.create_task(self._clean_and_give_back(connection, held, settings))
        self._cleaning[task] = place
        task.add_done_callback(self._cleaning.pop)

    async def _clean_and_give_back(self, connection: Connection, held: AsyncExitStack, settings: str) -> None:
        async with held:
            await self._clean(connection, settings)

    async def _clean(self, connection: Connection, settings: str = "") -> None:
        """Leaves nothing of this request to the next one; a connection that cannot be cleaned is not used again.

        `settings`: what the next one will most likely ask for; set now, they cost it nothing.
        """
        if connection.is_closed():
            return
        if connection.is_in_transaction():
            connection.terminate()
            return
        try:
            async with asyncio.timeout(_CLEANING):
                await _emptied(connection, self._states.setdefault(connection, _State()), settings)
        except BaseException as error:
            connection.terminate()
            if not is_gone(error) and not isinstance(error, asyncpg.PostgresError):
                raise


@asynccontextmanager
async def committed(connection: Connection) -> AsyncGenerator[None]:
    """A transaction. Whoever hears that the database is away tries again, so that is said only while nothing can have been changed.

    Raises:
        Problem: 503 `outcome_unknown`: the commit was sent and no answer came.
    """
    transaction = connection.transaction()
    await transaction.start()
    try:
        yield
    except BaseException:
        await transaction.rollback()
        raise
    try:
        await transaction.commit()
    except GONE as error:
        if isinstance(error, asyncpg.PostgresError) and lives(error):
            raise  # the server's own no: nothing was changed
        connection.terminate()
        raise Problem(503, "outcome_unknown", "The change may have taken effect", "Look whether it did before it is tried again") from None


async def _emptied(connection: Connection, state: _State, settings: str) -> None:
    """As it was opened, with these settings, and at most the one statement prepared that was asked for twice in a row."""
    if state.kept is not None and settings:
        await connection.execute(_BUT_STATEMENTS + settings)
        found = await connection.fetch(_STATEMENTS)
        if [tuple(r) for r in found] == [(state.kept.get_name(), False)]:
            state.settings = settings
            return
    state.kept = None
    await connection.execute("DISCARD ALL")
    if settings:
        await connection.execute(settings)
        if state.again:
            state.kept = await connection.prepare(
                state.sql, name=f"kept_{next(_NUMBERS)}"
            )  # no name twice: asyncpg closes late what it lets go
    state.settings = settings


def _settings(limits: Session, actor: str) -> str:
    """As one simple query: with parameters it would be two round trips for each request."""
    reads = "SET default_transaction_read_only = on" if limits.read_only else "SET default_transaction_read_only = off"
    if not limits.read_only and not limits.frees:
        reads = "RESET default_transaction_read_only"  # the reaper sets the role's own to `on` when the project is over its size
    return (
        f"SET statement_timeout = {limits.statement_ms:d}; SET lock_timeout = {limits.lock_ms:d}; {reads};"
        f" SET search_path = pg_catalog, public, pg_temp; SET loquat.actor = {Text(actor)}"
    )


def _reads_only(connection: Connection) -> bool:
    """As the server itself reported with its last answer: it does so of this setting."""
    return getattr(connection.get_settings(), "default_transaction_read_only", "off") == "on"
