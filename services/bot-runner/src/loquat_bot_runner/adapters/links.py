"""Connections of bots to their databases, each with the server's that belongs to it, and how many there may be."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, cast

import asyncpg
from asyncpg import connect_utils
from loquat_common import metrics
from loquat_common.db import CONNECT_LIMIT

from loquat_bot_runner.adapters.pipe import Pipe
from loquat_bot_runner.domain import pgstartup
from loquat_bot_runner.domain.pgstartup import StartupRefused

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_RESTED: Final = 0.05  # seconds after which a resting connection may make room: it is not between two statements of a busy bot
_BREATH: Final = 0.25  # seconds until those who wait for room look for one that has come to rest
_GRACE: Final = 1.0  # seconds that a server gets to end by itself when its client is gone, before and after its statement is cancelled


@dataclass(frozen=True, slots=True)
class Times:
    """Seconds. `idle`: how long a connection that waits for a statement stays open. `silent`: how long any other may be without a byte.

    The cluster's reaper ends sessions long before the latter.
    """

    idle: float = 60.0
    silent: float = 900.0


class Room:
    """The connections of all projects of this runner to their databases: at most `most`, at most `per_project` of one.

    One that rests makes room, the longest-resting first; else a newcomer waits `wait` seconds and is refused.
    """

    def __init__(self, most: int = 200, per_project: int = 6, wait: float = 5.0) -> None:
        self._most, self._per_project, self._wait = most, per_project, wait
        self._links = set[Link]()
        self._taken = 0
        self._of: dict[str, int] = {}
        self._freed = asyncio.Condition()
        self.full_at = float("-inf")
        """When a project that had places left was last refused for the others' sake (monotonic)."""

    @asynccontextmanager
    async def place(self, project: str) -> AsyncGenerator[None]:
        """A place for one connection.

        Raises:
            StartupRefused: there is none.
        """
        try:
            async with asyncio.timeout(self._wait), self._freed:
                while not self._has_place(project):
                    await _within(self._freed, _BREATH)
                self._taken += 1
                self._of[project] = self._of.get(project, 0) + 1
        except TimeoutError:
            raise StartupRefused("53300", "no connection to the database came free in time") from None
        try:
            yield
        finally:
            await asyncio.shield(self._leave(project))

    def _has_place(self, project: str) -> bool:
        if self._of.get(project, 0) >= self._per_project:
            return False
        if self._taken < self._most:
            return True
        if not self._one_gives_way():
            self.full_at = time.monotonic()
        return False

    def _one_gives_way(self) -> bool:
        """Ends the longest-resting link; whether there is one."""
        victim = max(self._links, key=Link.rested, default=None)
        if victim is None or victim.rested() <= _RESTED:
            return False
        victim.end()
        return True

    async def make(self) -> bool:
        """Where the cluster has less room than we: one that rests gives way, and has gone or soon will have. False: none rests."""
        async with self._freed:
            if not self._one_gives_way():
                return False
            await _within(self._freed, _BREATH)
        return True

    async def _leave(self, project: str) -> None:
        async with self._freed:
            self._taken -= 1
            self._of[project] -= 1
            if not self._of[project]:
                del self._of[project]
            self._freed.notify_all()

    @contextmanager
    def holding(self, link: Link) -> Generator[None]:
        """Knows the link while it is open."""
        self._links.add(link)
        metrics.bot_database_links.set(len(self._links))
        try:
            yield
        finally:
            self._links.discard(link)
            metrics.bot_database_links.set(len(self._links))


class Link:
    """One connection of a bot, and the server's that belongs to it."""

    def __init__(self, pipe: Pipe, server: Connection, times: Times) -> None:
        self._pipe, self._server, self._times = pipe, server, times
        self._loop = asyncio.get_running_loop()
        self._protocol: Any = cast("Any", server)._protocol  # noqa: SLF001  (asyncpg has no public name for the key of a cancel)
        self.pid: int = self._protocol.backend_pid
        self.secret = secrets.randbits(32)
        self._timer: asyncio.TimerHandle | None = None

    def rested(self) -> float:
        """Seconds since the server said that it waits for a statement, outside of a transaction; -1: it does not."""
        pipe = self._pipe
        if pipe.inner.over.is_set() or pipe.last is pipe.inner or pipe.tail not in (b"", pgstartup.RESTING):
            return -1.0
        return self._loop.time() - pipe.moved_at

    def end(self) -> None:
        """Closes a link that rests, in the words of a server that does so."""
        self._pipe.inner.transport.write(pgstartup.refusal("57P05", "the connection was closed because it was idle; open another"))
        self._pipe.inner.transport.close()
        self._pipe.inner.over.set()

    async def run(self, early: bytes) -> None:
        """Until one side ends it, or it is silent for too long."""
        self._pipe.open(early)
        self._watch()
        try:
            await self._pipe.one_is_over()
            if self._pipe.outer.over.is_set():
                self._pipe.inner.transport.close()
                return
            await self._end_server()
        finally:
            if self._timer is not None:
                self._timer.cancel()

    def _watch(self) -> None:
        """Looks when something could be due, not each second."""
        if (rested := self.rested()) >= self._times.idle:
            self.end()
            return
        silent = self._loop.time() - self._pipe.moved_at
        if silent >= self._times.silent:
            self._pipe.abort()
            return
        wait = self._times.idle - max(rested, 0.0) if rested >= 0 else min(self._times.idle, self._times.silent - silent)
        self._timer = self._loop.call_later(max(wait, 0.01), self._watch)

    async def _end_server(self) -> None:
        """The client is gone. A server that is at a statement would only notice when it has an answer, so the statement is cancelled."""
        outer = self._pipe.outer
        outer.transport.write(pgstartup.FAREWELL)
        if not await _within(outer.over, _GRACE):
            await self.cancel()
            await _within(outer.over, _GRACE)

    async def cancel(self) -> None:
        """Cancels what the server is at, if anything. The key that the bot knows is ours; the server's own goes out only here."""
        server = cast("Any", self._server)
        try:
            async with asyncio.timeout(CONNECT_LIMIT):
                await connect_utils._cancel(  # noqa: SLF001  # pyright: ignore[reportUnknownMemberType,reportAttributeAccessIssue]  (no public name)
                    loop=self._loop,
                    addr=server._addr,  # noqa: SLF001
                    params=server._params,  # noqa: SLF001
                    backend_pid=self.pid,
                    backend_secret=self._protocol.backend_secret,
                )
        except (OSError, asyncpg.PostgresError):
            return  # a server that is away has no statement to cancel


async def _within(event: asyncio.Event | asyncio.Condition, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
