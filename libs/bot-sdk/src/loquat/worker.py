"""The process in which one project's bot runs: `python -m loquat.worker FD`. It knows one socket, and nothing of the platform."""

from __future__ import annotations

import asyncio
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import UUID

import asyncpg

from loquat import protocol
from loquat.context import Contact, Context, Conversation, Log
from loquat.database import Database, DatabaseAway, Superseded, prepare
from loquat.loading import load, own_trace
from loquat.messages import read
from loquat.play import NoHandler, play

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_KINDS: dict[type[BaseException], str] = {
    Superseded: "superseded",
    DatabaseAway: "database",
    MemoryError: "memory",
    asyncio.CancelledError: "cancelled",
}
_MOST_DECLARED, _LONGEST_SHOWN = 1000, 200  # handlers that are listed, and characters of what is said of each: they must fit in a frame
_CONNECTIONS = 4  # of the six that the bot's login may have: two are left for its own tools


class Worker:
    """Serves calls concurrently, each in its own task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._calls: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Until the runner closes the socket."""
        start = await self._read()
        if not isinstance(start, protocol.Start):
            return
        self._folder = Path(start.folder)
        try:
            self._bot = load(self._folder)
        except BaseException as error:  # noqa: BLE001  (a bot may raise SystemExit on import; whatever it is, it does not load)
            self._send(protocol.Refused(_fit(own_trace(error, self._folder))))
            return
        self._pool = await asyncpg.create_pool(
            start.database, min_size=0, max_size=_CONNECTIONS, statement_cache_size=0, init=prepare, timeout=5
        )
        self._send(self._ready())
        while (frame := await self._read()) is not None:
            if isinstance(frame, protocol.Call):
                self._calls[frame.id] = asyncio.create_task(self._call(frame), name=f"call {frame.id}")
            elif isinstance(frame, protocol.Cancel) and (task := self._calls.get(frame.id)) is not None:
                task.cancel()

    async def _read(self) -> protocol.FromRunner | None:
        try:
            (size,) = protocol.HEADER.unpack(await self._reader.readexactly(protocol.HEADER.size))
            return protocol.RUNNER_FRAMES.decode(await self._reader.readexactly(size))
        except asyncio.IncompleteReadError:
            return None

    def _send(self, frame: protocol.FromWorker) -> None:
        self._writer.write(protocol.pack(frame))

    def _ready(self) -> protocol.Ready:
        bot = self._bot
        listed = [(d.when, d.state, d.handler, d.where) for d in bot.declared[:_MOST_DECLARED]]
        declared = [protocol.Declared(*(_fit(text)[:_LONGEST_SHOWN] for text in one)) for one in listed]
        return protocol.Ready(bot.states, declared)

    async def _call(self, call: protocol.Call) -> None:
        opened: list[Database] = []
        try:
            self._send(await self._handle(call, opened))
        except protocol.FrameTooLarge as error:
            self._send(protocol.Failed(call.id, "error", str(error)))
        finally:
            self._calls.pop(call.id, None)
            for database in opened:
                await database.close()

    async def _handle(self, call: protocol.Call, opened: list[Database]) -> protocol.Handled | protocol.Failed:
        def begin() -> Context:
            opened.append(Database(self._pool))
            return self._context(call, opened[-1])

        def report(error: Exception) -> None:
            self._log(call.id, "error", own_trace(error, self._folder))

        try:
            played = await play(self._bot, begin, call.version, report)
            return protocol.Handled(call.id, played.result, played.recorded)
        except (Superseded, DatabaseAway, MemoryError, asyncio.CancelledError) as error:
            return protocol.Failed(
                call.id, next(k for t, k in _KINDS.items() if isinstance(error, t)), _fit(str(error)) or type(error).__name__
            )
        except Exception as error:  # noqa: BLE001  (the bot's error, whatever it is, becomes the call's)
            said = str(error) if isinstance(error, NoHandler) else f"{type(error).__name__}: {error}"
            return protocol.Failed(call.id, "error", _fit(said)[:2000], _fit(own_trace(error, self._folder)))

    def _context(self, call: protocol.Call, database: Database) -> Context:
        contact, conversation = call.contact, call.conversation
        log = Log(lambda level, text: self._log(call.id, level, text))
        who, where = Contact(UUID(contact["id"]), contact.get("name")), Conversation(UUID(conversation["id"]), conversation["number_id"])
        return Context(read(call.event), who, where, call.state, database, log, datetime.now(UTC))

    def _log(self, call: int, level: str, text: str) -> None:
        self._send(protocol.Logged(call, level, _fit(text)[:4000]))


def _fit(text: str) -> str:
    """Half characters cannot be written to a frame, and an error that cannot be told would be none."""
    return text.encode(errors="replace").decode()


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=2 * protocol.LARGEST)
    await Worker(reader, writer).run()
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
