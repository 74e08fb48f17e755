"""One worker process: one version of one project's bot."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any, Final

import msgspec
from loquat import protocol
from loquat_common.logs import get_logger
from loquat_sandbox import WITH_ITS_ZYGOTE, Process

from loquat_bot_runner.adapters.output import Output
from loquat_bot_runner.adapters.speech import Speech
from loquat_bot_runner.domain.limits import BotLimits
from loquat_bot_runner.domain.printed import Printed
from loquat_bot_runner.domain.wear import Wear, processor, worn
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DatabaseLost,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    SlowStart,
    Superseded,
    TimedOut,
)
from loquat_bot_runner.ports import Task, Voice

START_LIMIT: Final = 10.0
"""Seconds from the start of the process to a loaded bot; 0.02 s is usual."""
_GRACE: Final = 0.25  # seconds between a cancel and the end of the process
_LINES: Final = 1_000  # of `ctx.log` in one call; each costs the runner as much as a call does
_FLOODED: Final = "the bot printed more than {} bytes in one call; its output was closed"
_SILENT: Final = 1.0  # seconds until a line that a bot has begun to print is kept as it is
_FILTERED: Final = "SIGSYS"
_KINDS: Final[dict[str, type[CallFailed]]] = {
    "error": BotError,
    "superseded": Superseded,
    "database": DatabaseLost,
    "memory": OutOfMemory,
    "cancelled": TimedOut,
}

Write = Callable[[str | None, str, str], None]
"""A line for the project's log: the event that was handled, level, text."""
Close = Callable[[], Awaitable[None]]
AwaySince = Callable[[float], bool]
"""Whether the platform could not give the bot a connection to its database after this time (monotonic)."""


class Worker:
    """Serves calls of one project, several at once. It is dead after the first thing that is not as it should be.

    `doors` close what is served at its doors; `away` is the door's word on a database that the bot did not reach: the bot's own is worth little.
    """

    def __init__(
        self,
        process: Process,
        project: str,
        limits: BotLimits,
        write: Write,
        doors: Sequence[Close] = (),
        away: AwaySince = lambda _: False,
        statements: int = 0,
    ) -> None:
        self._process, self._project, self.limits, self._write = process, project, limits, write
        self._doors, self._away, self._since, self._statements = doors, away, dict[int, float](), statements
        self._calls: dict[int, asyncio.Future[protocol.Handled]] = {}
        self._events: dict[int, str] = {}
        self._speeches: dict[int, Speech] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[protocol.Ready] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None
        self._lines: Counter[int] = Counter()
        self._last, self._late, self._calls_of_this_burst = 0, 0, 0
        self._processor, self._resident = 0.0, 0
        self._printable = limits.output_bytes
        self._printed_too_much = self._yielded = False
        self._began = time.monotonic()
        self.dead = False
        self.used_at = time.monotonic()

    @property
    def pid(self) -> int:
        """The number of its process."""
        return self._process.pid

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._calls)

    @property
    def worn(self) -> bool:
        """Whether the next call should find a fresh one."""
        if self._printed_too_much or (self._yielded and not self.busy):
            return True
        return worn(Wear(time.monotonic() - self._began, self._last, self._resident), self.limits.memory_bytes)

    async def start(self, database: str) -> protocol.Ready:
        """Loads the bot; what it declares.

        Raises:
            DoesNotStart: it does not load; SlowStart: not in time.
        """
        reader, self._writer = await asyncio.open_connection(sock=self._process.control, limit=2 * protocol.LARGEST)
        self._tasks = [
            asyncio.create_task(self._reading(reader), name="frames"),
            asyncio.create_task(self._listening(Output(self._process.output)), name="output"),
        ]
        self._writer.write(protocol.pack(protocol.Start(self._process.folder, database, self._process.layer or "", self._statements)))
        try:
            async with asyncio.timeout(START_LIMIT):
                return await self._ready
        except TimeoutError:
            await self.kill()
            raise SlowStart(f"the bot did not load within {START_LIMIT:g} s") from None

    async def call(self, limit: float, **fields: Any) -> dict[str, Any]:
        """The handler's result, unchecked. See `handled`."""
        return (await self.handled(limit, **fields)).result

    async def run(self, task: Task, voice: Voice | None = None) -> protocol.Handled:
        """See `handled`: a task, within the limits that the process was started with."""
        return await self.handled(
            self.limits.call_seconds,
            voice,
            event=task.event,
            contact=task.contact,
            conversation=task.conversation,
            state=task.state,
            version=task.state_version,
            config=dict(task.config),
            secrets=dict(task.secrets),
            observing=task.observing,
            join_texts=task.join_texts,
            ask=task.ask,
            following=task.following,
        )

    async def handled(self, limit: float, voice: Voice | None = None, **fields: Any) -> protocol.Handled:
        """What the worker said when the handler ended, unchecked; `voice` says what it says before.

        Raises:
            CallFailed: one of `errors`.
        """
        if self.dead or self._writer is None:
            raise BotError("the bot's process has ended")
        self._begin_burst()
        self._last += 1
        number = self._last
        future: asyncio.Future[protocol.Handled] = asyncio.get_running_loop().create_future()
        self._calls[number], self._events[number], self._since[number] = future, fields["event"]["id"], time.monotonic()
        speech = self._speeches[number] = Speech(number, voice, self.limits.messages, self._tell)
        try:
            self._tell(protocol.Call(id=number, **fields))
            done, _ = await asyncio.wait({future}, timeout=limit)
            if not done:
                self._tell(protocol.Cancel(number))
                done, _ = await asyncio.wait({future}, timeout=_GRACE)
                if not done:
                    await self.kill()
                    raise TimedOut(f"the handler took longer than {limit:g} s and did not end when asked to")
            if future.exception() is None:
                await speech.over()
            return future.result()
        except (TimedOut, OutOfMemory) as failure:
            raise self._in_words(failure, limit) from None
        finally:
            if not future.done():  # nobody waits for it any more: it may not go on without a limit
                self._tell(protocol.Cancel(number))
            self._calls.pop(number, None)
            self._events.pop(number, None)
            self._since.pop(number, None)
            self._speeches.pop(number).cancel()
            self._lines.pop(number, None)
            self.used_at = time.monotonic()

    def _in_words(self, failure: CallFailed, limit: float) -> CallFailed:
        """What an owner understands; the worker's own words are Python's."""
        match failure.error:
            case "CancelledError":
                return TimedOut(f"the handler took longer than {limit:g} s", failure.trace)
            case "MemoryError":
                return OutOfMemory(f"the bot used more memory than it may ({self.limits.memory_bytes >> 20} MiB)", failure.trace)
            case _:
                return failure

    def _tell(self, frame: protocol.FromRunner) -> None:
        """A process that has ended is told nothing: whoever reads from it finds that out, and fails its calls."""
        if not self.dead and self._writer is not None and not self._writer.is_closing():
            self._writer.write(protocol.pack(frame))

    def _begin_burst(self) -> None:
        self._printable, self._late = max(self._printable, self.limits.output_bytes), 0
        if not self.busy:
            self._processor, self._calls_of_this_burst = self._process.cpu(), 0
        self._calls_of_this_burst += 1

    def watch(self) -> None:
        """Looks at a busy worker's memory and processor time."""
        if self.dead or not self.busy:
            return
        self._resident, limit = self._process.memory(), self.limits.processor_seconds
        match processor(self._process.cpu() - self._processor, self._calls_of_this_burst, limit):
            case "yield" if not self._yielded:
                self._yielded = True
                self._process.yield_processor()
            case "end":
                self._fail(TimedOut(f"the bot used more than {limit:g} s of processor time for one call"))
                self._process.kill()
            case _:
                return

    @property
    def _flooded(self) -> str:
        return _FLOODED.format(self.limits.output_bytes)

    def at_end(self, close: Close) -> None:
        """Something else that ends with its process."""
        self._doors = (*self._doors, close)

    async def kill(self) -> None:
        """Ends the process at once; its other calls fail."""
        self.dead = True
        self._process.kill()
        self._fail(BotError("the bot's process was ended"))
        current = asyncio.current_task()
        rest = [t for t in self._tasks if t is not current]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        for close in self._doors:
            await close()
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):  # the other end is gone already: that was the purpose
                await self._writer.wait_closed()
        await self._process.close()

    def _fail(self, error: CallFailed) -> None:
        self.dead = True
        if not self._ready.done():
            self._ready.set_exception(error if isinstance(error, ProjectDatabaseAway) else DoesNotStart(error.error))
            self._ready.exception()  # nobody may wait for it any more
        for future in self._calls.values():
            if not future.done():
                future.set_exception(error)
                future.exception()  # the same: whoever ends it for its time has gone on

    async def _reading(self, reader: asyncio.StreamReader) -> None:
        try:
            while True:
                (size,) = protocol.HEADER.unpack(await reader.readexactly(protocol.HEADER.size))
                if size > protocol.LARGEST:
                    raise ProtocolViolated(f"a frame of {size} bytes")
                self._heard(protocol.WORKER_FRAMES.decode(await reader.readexactly(size)))
        except (asyncio.IncompleteReadError, OSError):
            self._process.kill()  # a worker without its socket is of no use
            self._fail(await self._ended())
        except CallFailed as error:
            self._fail(error)
        except (msgspec.MsgspecError, RecursionError) as error:  # the second: maps in maps in maps
            self._fail(ProtocolViolated(f"a frame that cannot be read: {error}"))
        finally:  # whatever it was, nobody reads any more
            self.dead = True
            self._process.kill()

    async def _ended(self) -> CallFailed:
        how = await self._process.ended()
        if how == WITH_ITS_ZYGOTE:
            return ProjectDatabaseAway("the platform's own process ended, and the bot's with it")
        if self._process.ran_out_of_memory():
            return OutOfMemory(f"the bot's process used more memory than it may ({self.limits.memory_bytes >> 20} MiB) and was ended")
        if how == _FILTERED:
            get_logger().warning("bot.forbidden_call", project=self._project)
        return BotError(f"the bot's process ended ({how})")

    def _heard(self, frame: protocol.FromWorker) -> None:
        match frame:
            case protocol.Ready() if not self._ready.done():
                self._ready.set_result(frame)
            case protocol.Refused(error=error) if not self._ready.done():
                self._ready.set_exception(DoesNotStart("the bot does not load", error))
            case protocol.Logged() if frame.id in self._calls:
                self._logged(frame)
            case protocol.Say() | protocol.Typing() if (future := self._calls.get(frame.id)) is not None and not future.done():
                self._speeches[frame.id].heard(frame)
            case protocol.Handled() | protocol.Failed() if (future := self._calls.get(frame.id)) is not None:
                if future.done():
                    return
                if isinstance(frame, protocol.Handled):
                    future.set_result(frame)
                else:
                    future.set_exception(self._failure(frame))
            case protocol.Logged() | protocol.Say() | protocol.Typing() | protocol.Handled() | protocol.Failed():  # of a call that is over
                self._late += 1
                if self._late > _LINES:
                    raise ProtocolViolated(f"more than {_LINES} frames of calls that are over")
            case _:
                raise ProtocolViolated(f"a {type(frame).__name__} frame at the wrong time")

    def _failure(self, frame: protocol.Failed) -> CallFailed:
        """Its own word, but for whose fault it is that it could not reach its database."""
        kind = _KINDS.get(frame.kind, ProtocolViolated)
        if kind is DatabaseLost and (self._speeches[frame.id].failed or self._away(self._since[frame.id])):
            kind = ProjectDatabaseAway
        flood = f" ({self._flooded})" if self._printed_too_much else ""
        return kind(f"{protocol.shortened(frame.error, 2000)}{flood}", protocol.shortened(frame.trace, 8000))

    def _logged(self, frame: protocol.Logged) -> None:
        self._lines[frame.id] += 1
        if self._lines[frame.id] > _LINES:
            raise BotError(f"the bot wrote more than {_LINES} lines to its log in one call")
        level = frame.level if frame.level in {"info", "warning", "error"} else "info"
        self._write(self._events.get(frame.id), level, protocol.shortened(frame.text, 4000))

    async def _listening(self, printed: Output) -> None:
        """Keeps the head of what the bot prints. Then our end of the pipe is closed: more costs nobody anything."""
        lines = Printed()
        try:
            while text := await self._more(printed, lines):
                self._printable -= len(text)
                self._print(lines.add(text))
                if self._printable < 0:
                    self._printed_too_much = True
                    self._print(f"{rest}{protocol.CUT}" if (rest := lines.rest()) else "")
                    self._write(None, "warning", self._flooded)
                    return
        finally:
            self._print(lines.rest())
            self._process.output.close()

    async def _more(self, printed: Output, lines: Printed) -> bytes:
        """More of it. A line that was begun and has no end for a while is kept as it is."""
        try:
            async with asyncio.timeout(_SILENT if lines.waits else None):
                return await printed.read(4096)
        except TimeoutError:
            self._print(lines.rest())
            return await printed.read(4096)

    def _print(self, text: str) -> None:
        if text:
            self._write(None, "print", text)
