"""The process in which one project's bot runs: `python -m loquat.worker FD`. It knows one socket, and nothing of the platform."""

from __future__ import annotations

import asyncio
import importlib
import json
import socket
import sys
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg

from loquat import protocol
from loquat.bot import Bot
from loquat.context import Contact, Context, Conversation, Log, Message
from loquat.database import Database, DatabaseAway, Superseded

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_KINDS: dict[type[BaseException], str] = {
    Superseded: "superseded",
    DatabaseAway: "database",
    MemoryError: "memory",
    asyncio.CancelledError: "cancelled",
}
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
            self._send(protocol.Refused(own_trace(error, self._folder)))
            return
        self._pool = await asyncpg.create_pool(
            start.database, min_size=0, max_size=_CONNECTIONS, statement_cache_size=0, init=_prepare, timeout=5
        )
        self._send(protocol.Ready(self._bot.states))
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

    async def _call(self, call: protocol.Call) -> None:
        database = Database(self._pool)
        try:
            self._send(await self._handle(call, database))
        except protocol.FrameTooLarge as error:
            self._send(protocol.Failed(call.id, "error", str(error)))
        finally:
            self._calls.pop(call.id, None)
            await database.close()

    async def _handle(self, call: protocol.Call, database: Database) -> protocol.Handled | protocol.Failed:
        context = self._context(call, database)
        handler = self._bot.handler(call.state)
        if handler is None:
            return protocol.Failed(call.id, "error", "the bot has no handler: add one with @bot.state('unstructured') or @bot.fallback")
        try:
            await handler(context)
            if database.used:
                await database.commit(context.event.id, call.version, context.result())
            return protocol.Handled(call.id, context.result(), database.used)
        except (Superseded, DatabaseAway, MemoryError, asyncio.CancelledError) as error:
            return protocol.Failed(call.id, _KINDS[type(error)], str(error) or type(error).__name__)
        except Exception as error:  # noqa: BLE001  (the bot's error, whatever it is, becomes the call's)
            return protocol.Failed(call.id, "error", f"{type(error).__name__}: {error}"[:2000], own_trace(error, self._folder))

    def _context(self, call: protocol.Call, database: Database) -> Context:
        event, contact, conversation = call.event, call.contact, call.conversation
        message = Message(
            UUID(event["id"]), event["type"], event.get("text"), event.get("content") or {}, event.get("wamid"), event.get("reply_to")
        )
        log = Log(lambda level, text: self._send(protocol.Logged(call.id, level, text[:4000])))
        who, where = Contact(UUID(contact["id"]), contact.get("name")), Conversation(UUID(conversation["id"]), conversation["number_id"])
        return Context(message, who, where, call.state, database, log)


def load(folder: Path) -> Bot:
    """The bot of a bundle: the one `Bot` that `bot.py` makes.

    Raises:
        Exception: whatever importing it raises, or that there is not exactly one.
    """
    sys.path.insert(0, str(folder))
    module = importlib.import_module("bot")
    found = list({id(v): v for v in vars(module).values() if isinstance(v, Bot)}.values())
    if len(found) != 1:
        raise TypeError(f"bot.py must make exactly one Bot; it makes {len(found)}")
    return found[0]


def own_trace(error: BaseException, folder: Path) -> str:
    """The traceback with the bot's own frames only, files relative to its folder."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    lines = [f'  File "{Path(f.filename).relative_to(folder)}", line {f.lineno}, in {f.name}\n    {f.line}\n' for f in frames]
    return ("".join(lines) + "".join(traceback.format_exception_only(type(error), error)))[:8000]


async def _prepare(connection: asyncpg.Connection[asyncpg.Record]) -> None:
    def decode(text: str) -> Any:
        return json.loads(text)

    await connection.set_type_codec("jsonb", encoder=json.dumps, decoder=decode, schema="pg_catalog")


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=2 * protocol.LARGEST)
    await Worker(reader, writer).run()
    await writer.drain()
    writer.close()


if __name__ == "__main__":
    asyncio.run(_main(int(sys.argv[1])))
