"""The process in which one project's bot runs: `python -m loquat.worker FD`. It knows one socket, and nothing of the platform."""

from __future__ import annotations

import asyncio
import json
import socket
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit
from uuid import UUID

import asyncpg

from loquat import protocol
from loquat.asking import Asks
from loquat.bursts import Following
from loquat.config import MISSING, Config, Secrets
from loquat.contact import Contact
from loquat.context import Context, Conversation, Log, Manner, Means
from loquat.database import Database, DatabaseAway, Superseded, prepare
from loquat.handlers import name
from loquat.loading import load, own_trace
from loquat.media import AtWhatsApp, Files
from loquat.memory import DatabaseCells, Memory
from loquat.outside import AllButOne, Outside
from loquat.play import NoHandler, play, play_schedule
from loquat.schedules import ScheduleContext, due
from loquat.timers import HANDBACK, Timers, happened
from loquat.voice import Voice, Wire
from loquat.web import Client, Http

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_KINDS: dict[type[BaseException], str] = {
    Superseded: "superseded",
    DatabaseAway: "database",
    MemoryError: "memory",
    asyncio.CancelledError: "cancelled",
}
_MOST_DECLARED, _LONGEST_SHOWN = 1000, 200  # handlers that are listed, and characters of what is said of each: they must fit in a frame
_RESTING = 45.0  # seconds after which the pool closes a connection that rests: the runner would after 60
_CONNECTIONS = 5  # of the six that the bot's login may have: one is left for its own tools; four are for handlers' transactions


class Worker:
    """Serves calls concurrently, each in its own task."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader, self._writer = reader, writer
        self._calls: dict[int, asyncio.Task[None]] = {}
        self._wires: dict[int, Wire] = {}

    async def run(self) -> None:
        """Until the runner closes the socket."""
        start = await self._read()
        if not isinstance(start, protocol.Start):
            return
        self._folder = Path(start.folder)
        try:
            self._bot = load(self._folder, start.packages)
        except BaseException as error:  # noqa: BLE001  (a bot may raise SystemExit on import; whatever it is, it does not load)
            self._send(protocol.Refused(_fit(own_trace(error, self._folder))))
            return
        self._pool = await asyncpg.create_pool(
            start.database,
            min_size=0,
            max_size=_CONNECTIONS,
            max_inactive_connection_lifetime=_RESTING,
            statement_cache_size=start.statements,
            init=prepare,
            timeout=5,
        )
        self._shares = AllButOne(self._pool, _CONNECTIONS)
        self._client, self._ticket = Client(), urlsplit(start.database).password
        self._send(self._ready())
        while (frame := await self._read()) is not None:
            if isinstance(frame, protocol.Call):
                self._calls[frame.id] = asyncio.create_task(self._call(frame), name=f"call {frame.id}")
            elif isinstance(frame, protocol.Cancel) and (task := self._calls.get(frame.id)) is not None:
                task.cancel()
            elif isinstance(frame, protocol.Said) and (wire := self._wires.get(frame.id)) is not None:
                wire.heard(frame)
        await self._client.close()

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
        needs = [protocol.Need(table, list(columns)) for table, columns in bot.needed.items()]
        settings = [
            protocol.Setting(s.key, s.kind, s.default is None, _fit(s.help)[:_LONGEST_SHOWN], _shown(s.default))
            for s in bot.settings.values()
        ]
        schedules = [
            protocol.Scheduled(_fit(s.name), s.expression, s.tz, s.catch_up, _fit(name(s.handler))[:_LONGEST_SHOWN])
            for s in bot.schedules.values()
        ]
        tools = [protocol.Tool(t.name, t.description, t.parameters) for t in bot.tools.values()]
        return protocol.Ready(
            bot.states, declared, needs, settings, schedules, bot.observer is not None, tools, bot.gathers, HANDBACK in bot.timers
        )

    async def _call(self, call: protocol.Call) -> None:
        opened: list[Database] = []
        try:
            self._send(await self._handle(call, opened))
        except protocol.FrameTooLarge as error:
            self._send(protocol.Failed(call.id, "error", str(error)))
        finally:
            self._calls.pop(call.id, None)
            self._wires.pop(call.id, None)
            for database in opened:
                await database.close()

    async def _handle(self, call: protocol.Call, opened: list[Database]) -> protocol.Handled | protocol.Failed:
        wire = self._wires[call.id] = Wire(call.id, self._send)
        voice = Voice(wire)

        def begin() -> Context:
            opened.append(Database(self._shares))
            return self._context(call, opened[-1], voice)

        def report(error: Exception) -> None:
            self._log(call.id, "error", own_trace(error, self._folder))

        try:
            if "schedule" in call.event:
                opened.append(Database(self._shares))
                played = await play_schedule(self._bot, self._of_schedule(call, opened[-1]))
            else:
                played = await play(self._bot, begin, call.version, report)
            return protocol.Handled(call.id, played.result, played.recorded, sum(database.queries for database in opened))
        except (Superseded, DatabaseAway, MemoryError, asyncio.CancelledError) as error:
            return protocol.Failed(
                call.id, next(k for t, k in _KINDS.items() if isinstance(error, t)), _fit(str(error)) or type(error).__name__
            )
        except Exception as error:  # noqa: BLE001  (the bot's error, whatever it is, becomes the call's)
            said = str(error) if isinstance(error, NoHandler) else f"{type(error).__name__}: {error}"
            return protocol.Failed(call.id, "error", protocol.shortened(_fit(said), 2000), _fit(own_trace(error, self._folder)))

    def _context(self, call: protocol.Call, database: Database, voice: Voice) -> Context:
        event, contact, conversation = happened(call.event), call.contact, call.conversation
        cells, now = DatabaseCells(database, event.id), datetime.now(UTC)
        who = Contact(
            UUID(contact["id"]),
            contact.get("name"),
            language=contact.get("language"),
            phone_number=contact.get("phone_number"),
            attributes=contact.get("attributes"),
            memory=Memory(cells, of_contact=True),
        )
        where = Conversation(UUID(conversation["id"]), conversation["number_id"])
        log, means, timers = self._log_of(call), self._means(call, cells), Timers(now, conversation.get("timers"))
        manner = Manner(call.observing, call.join_texts, Asks.of(call.ask, event), Following.of(call.following), voice)
        return Context(event, who, where, call.state, database, log, now, means, timers, manner)

    def _of_schedule(self, call: protocol.Call, database: Database) -> ScheduleContext:
        event = due(call.event)
        means = self._means(call, DatabaseCells(database, event.id))
        return ScheduleContext(event, database, self._log_of(call), datetime.now(UTC), means)

    def _means(self, call: protocol.Call, cells: DatabaseCells) -> Means:
        return Means(
            Memory(cells, of_contact=False),
            Outside(self._pool),
            Http(self._client.send),
            Files(AtWhatsApp(self._client.send, call.conversation.get("number_id", ""), self._ticket)),
            Config(self._bot.settings, call.config),
            Secrets(call.secrets),
            self._bot.tools,
        )

    def _log_of(self, call: protocol.Call) -> Log:
        return Log(lambda level, text: self._log(call.id, level, text))

    def _log(self, call: int, level: str, text: str) -> None:
        self._send(protocol.Logged(call, level, protocol.shortened(_fit(text), 4000)))


def _shown(default: Any) -> str | None:
    """As people see it, also if the bot has changed it since it was checked."""
    if default is MISSING:
        return None
    return protocol.shortened(_fit(json.dumps(default, ensure_ascii=False, default=str)), _LONGEST_SHOWN)


def _fit(text: str) -> str:
    """Half characters cannot be written to a frame, and an error that cannot be told would be none."""
    return text.encode(errors="replace").decode()


async def _main(descriptor: int) -> None:
    reader, writer = await asyncio.open_connection(sock=socket.socket(fileno=descriptor), limit=2 * protocol.LARGEST)
    await Worker(reader, writer).run()
    await writer.drain()
    writer.close()


def serve(descriptor: int) -> None:
    """Serves the runner at the other end of a socket, to its end."""
    asyncio.run(_main(descriptor))


if __name__ == "__main__":
    serve(int(sys.argv[1]))
