"""Connections that a bot makes to one of the sockets we serve for it: a few at a time, and no faster than they are worth."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable
from typing import Final

from loquat_common.logs import get_logger

from loquat_bot_runner.domain.pace import Pace

_RATE, _BURST = 50.0, 50.0  # connections a second: a pool opens a handful, a loop of connects costs the runner 1 % of a core
_BREATH: Final = 1.0  # seconds until the next try when we are out of descriptors

Serve = Callable[[socket.socket], Awaitable[None]]
"""Serves one connection to its end and closes it; raises OSError only."""


class Listening:
    """At most `most` connections at once; others wait in the kernel's queue, or are refused by it."""

    def __init__(self, listening: socket.socket, serve: Serve, *, most: int, name: str) -> None:
        self._listening, self._serve, self._name = listening, serve, name
        self._room, self._pace = asyncio.Semaphore(most), Pace(_RATE, _BURST)
        self._tasks = set[asyncio.Task[None]]()
        self._accepting: asyncio.Task[None] | None = None
        self._log = get_logger()

    def start(self) -> None:
        """Accepts from now on."""
        self._listening.setblocking(False)
        self._accepting = asyncio.create_task(self._accept(), name=f"{self._name} door")

    async def close(self) -> None:
        """Ends all connections. The socket stays open: it is its owner's."""
        tasks = [t for t in (self._accepting, *self._tasks) if t is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _accept(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._room.acquire()
            try:
                connection, _ = await loop.sock_accept(self._listening)
            except OSError as error:
                self._room.release()
                if self._listening.fileno() < 0:
                    return
                self._log.warning("bot.accept_failed", door=self._name, error=error.strerror)
                await asyncio.sleep(_BREATH)
                continue
            except BaseException:
                self._room.release()
                raise
            task = asyncio.create_task(self._one(connection), name=self._name)
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
            if (wait := self._pace.spend(1, loop.time())) > 0:
                await asyncio.sleep(wait)

    async def _one(self, connection: socket.socket) -> None:
        try:
            await self._serve(connection)
        except OSError:
            pass  # the bot's end is gone: its own affair
        except Exception:  # noqa: BLE001  (one connection's fault must not close the door)
            self._log.exception("bot.connection_failed", door=self._name)
        finally:
            connection.close()
            self._room.release()
