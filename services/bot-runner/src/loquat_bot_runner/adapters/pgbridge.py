"""The way from a worker to its project's own database: a listening socket that only this worker can reach.

The bot holds no password: the runner logs in for it. What a bot could steal, print or commit to a repository is then worth nothing, a password
changes without a new worker, and no bot can reach the cluster's authentication. Where others on the machine could reach the socket (isolation
levels 0 and 1), the bot shows a ticket that is good for this socket only.
"""

from __future__ import annotations

import asyncio
import hmac
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
from loquat_common import metrics
from loquat_common.db import GONE

from loquat_bot_runner.adapters.credentials import Login
from loquat_bot_runner.adapters.links import Link, Room, Times
from loquat_bot_runner.adapters.listening import Listening
from loquat_bot_runner.adapters.pipe import Opening, Pipe, farewell
from loquat_bot_runner.domain import pgstartup
from loquat_bot_runner.domain.pace import Pace
from loquat_bot_runner.domain.pgstartup import Cancel, Encryption, Startup, StartupRefused
from loquat_bot_runner.errors import CallFailed, ProjectDatabaseAway

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_SOCKETS: Final = 16  # connections of one worker to the bridge, those that are being opened or cancel something included
_ENCRYPTIONS: Final = 2  # kinds that a client may ask for before it goes on without
_DIAL_LIMIT: Final = 4.0  # seconds: a bot waits five, and is to hear from us
_AWAY: Final = ("08", "57P")  # classes of what a server says that is starting, ending, or is none
_SHARES: Final = ("InitializeSessionUserId", "CheckMyDatabase")
"""Where PostgreSQL's source says that a role or a database has enough connections: the same SQLSTATE as that of a cluster that is full."""
_STARTUP_LIMIT: Final = 5.0  # seconds from the first byte to the start-up packet
_RATE, _BURST = 20_000.0, 5_000.0  # reads a second, both ways: some 5,000 statements; about a third of a core of the runner
_REPORTED: Final = [
    "application_name",
    "client_encoding",
    "DateStyle",
    "default_transaction_read_only",
    "in_hot_standby",
    "integer_datetimes",
    "IntervalStyle",
    "is_superuser",
    "scram_iterations",
    "search_path",
    "server_encoding",
    "server_version",
    "session_authorization",
    "standard_conforming_strings",
    "TimeZone",
]
"""What servers report of themselves, up to PostgreSQL 18 (its manual: "Asynchronous Operations")."""

Logins = Callable[[bool], Awaitable[Login]]
"""The bot's login; `True`: the one that was given was refused, ask anew."""


class PostgresBridge:
    """Serves one worker's socket."""

    def __init__(
        self, listener: socket.socket, project: str, logins: Logins, room: Room, *, ticket: str | None = None, times: Times | None = None
    ) -> None:
        self._project, self._logins, self._room, self._ticket = project, logins, room, ticket
        self._times = times or Times()
        self._pace = Pace(_RATE, _BURST)
        self._links: dict[tuple[int, int], Link] = {}
        self._away_at = float("-inf")
        self._listening = Listening(listener, self._serve, most=_SOCKETS, name="bot database")

    async def start(self) -> None:
        """Accepts from now on."""
        self._listening.start()

    def away_since(self, at: float) -> bool:
        """Whether the platform could not give the bot a connection after this time (monotonic): what the bot says of it is then believed."""
        return max(self._away_at, self._room.full_at) >= at

    async def close(self) -> None:
        """Ends all connections. What their servers are at is cancelled."""
        busy = [link for link in self._links.values() if link.rested() < 0]
        await asyncio.gather(*(link.cancel() for link in busy))
        await self._listening.close()

    async def _serve(self, connection: socket.socket) -> None:
        opening = Opening(2 * pgstartup.LARGEST)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: opening, connection)
        try:
            async with asyncio.timeout(_STARTUP_LIMIT):
                packet = await self._packet(opening)
            if isinstance(packet, Cancel):
                await self._cancel(packet)
            elif packet is not None:
                await self._let_in(opening, packet)
        except TimeoutError:
            self._refuse(transport, StartupRefused("08006", f"no start-up packet within {_STARTUP_LIMIT:g} s"))
            await farewell(transport, opening)
        except StartupRefused as refused:
            self._refuse(transport, refused)
            await farewell(transport, opening)
        finally:
            transport.abort() if transport.get_write_buffer_size() == 0 else transport.close()

    def _refuse(self, transport: asyncio.WriteTransport, refused: StartupRefused) -> None:
        metrics.bot_database_refused.labels(refused.code).inc()
        transport.write(pgstartup.refusal(refused.code, refused.message))

    async def _packet(self, opening: Opening) -> Startup | Cancel | None:
        encryptions = 0
        while True:
            packet = pgstartup.read(opening.buffer)
            if isinstance(packet, Encryption):
                if (encryptions := encryptions + 1) > _ENCRYPTIONS:
                    raise StartupRefused("08P01", "encryption was declined already")
                opening.transport.write(b"N")
            elif isinstance(packet, Startup) and self._ticket is not None:
                await self._check_ticket(opening, self._ticket)
                return packet
            elif packet is not None:
                return packet
            elif not await opening.more():
                return None

    async def _check_ticket(self, opening: Opening, ticket: str) -> None:
        opening.transport.write(pgstartup.ASK_PASSWORD)
        while (shown := pgstartup.password(opening.buffer)) is None:
            if not await opening.more():
                raise StartupRefused("28P01", "no password was given")
        if not hmac.compare_digest(shown.encode(), ticket.encode()):
            raise StartupRefused("28P01", "the password is wrong")

    async def _cancel(self, wanted: Cancel) -> None:
        """A server says nothing to it either, whatever becomes of it."""
        if (link := self._links.get((wanted.pid, wanted.secret))) is not None:
            await link.cancel()

    async def _let_in(self, opening: Opening, startup: Startup) -> None:
        async with self._room.place(self._project):
            server = await self._dial(startup)
            try:
                if opening.over:
                    return
                transport: asyncio.Transport = cast("Any", server)._transport  # noqa: SLF001  (taken over: asyncpg has no name for it)
                transport.pause_reading()
                opening.transport.pause_reading()
                link = Link(Pipe(opening.transport, transport, self._pace), server, self._times)
                opening.transport.write(pgstartup.welcome(startup, _reported(server), link.pid, link.secret))
                self._links[link.pid, link.secret] = link
                with self._room.holding(link):
                    try:
                        await link.run(bytes(opening.buffer))
                    finally:
                        del self._links[link.pid, link.secret]
            finally:
                with suppress(RuntimeError):  # uvloop's, of a transport that is closed: asyncpg, from whom it was taken, does not know
                    server.terminate()

    async def _dial(self, startup: Startup) -> Connection:
        try:
            async with asyncio.timeout(_DIAL_LIMIT):
                login = await self._logins(False)
                if (startup.user, startup.database) != (login.user, login.database):
                    raise StartupRefused("28000", "a bot has one database and one user: those of its own address")
                try:
                    return await self._connected(login, startup.settings)
                except asyncpg.InvalidPasswordError:
                    return await self._connected(await self._logins(True), startup.settings)
        except CallFailed as failed:
            self._found(away=isinstance(failed, ProjectDatabaseAway))
            raise StartupRefused("08006", failed.error) from None
        except asyncpg.PostgresError as error:
            code = error.sqlstate or "08006"
            self._found(away=(code.startswith(_AWAY) or _is_full(error)) and not startup.settings)
            raise StartupRefused(code, str(error)) from None
        except GONE:
            self._found(away=not startup.settings)
            raise StartupRefused("08006", "the project's database does not answer") from None

    async def _connected(self, login: Login, settings: Mapping[str, str]) -> Connection:
        """In a cluster that is full, bots' connections that rest make room, as in the runner's own."""
        while True:
            try:
                return await _connected(login, settings)
            except asyncpg.TooManyConnectionsError as error:
                if not _is_full(error) or not await self._room.make():
                    raise

    def _found(self, *, away: bool) -> None:
        """A connection that brings settings of its own proves nothing: some of them make a server that is there slow or silent. The SDK brings none."""
        if away:
            self._away_at = time.monotonic()


def _is_full(error: asyncpg.PostgresError) -> bool:
    """Whether the cluster has no place for anybody; else it is the role, or the database, that has its share."""
    return isinstance(error, asyncpg.TooManyConnectionsError) and error.server_source_function not in _SHARES


async def _connected(login: Login, settings: Mapping[str, str]) -> Connection:
    return await asyncpg.connect(
        host=login.host,
        port=login.port,
        user=login.user,
        password=login.password,
        database=login.database,
        timeout=_DIAL_LIMIT,
        statement_cache_size=0,
        server_settings=dict(settings),
    )


def _reported(server: Connection) -> dict[str, str]:
    settings = server.get_settings()
    return {name: value for name in _REPORTED if isinstance(value := getattr(settings, name, None), str)}
