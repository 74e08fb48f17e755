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

from loquat_bot_runner.domain.wear import Wear, processor, worn
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    SlowStart,
    Superseded,
    TimedOut,
)

START_LIMIT: Final = 10.0
"""Seconds from the start of the process to a loaded bot; 0.02 s is usual."""
_GRACE: Final = 0.25  # seconds between a cancel and the end of the process
_OUTPUT: Final = 64 << 10  # bytes of stdout and stderr that a call may print; then the pipe is closed and costs nothing more
_LINES: Final = 1_000  # of `ctx.log` in one call; each costs the runner as much as a call does
_FLOODED: Final = f"the bot printed more than {_OUTPUT} bytes in one call; its output was closed"
_FILTERED: Final = "SIGSYS"
_KINDS: Final[dict[str, type[CallFailed]]] = {
    "error": BotError,
    "superseded": Superseded,
    "database": ProjectDatabaseAway,
    "memory": OutOfMemory,
    "cancelled": TimedOut,
}

Write = Callable[[str | None, str, str], None]
"""A line for the project's log: the event that was handled, level, text."""
Close = Callable[[], Awaitable[None]]


class Worker:
    """Serves calls of one project, several at once. It is dead after the first thing that is not as it should be.

    `memory`: bytes that the process may have. `doors` close what is served at its doors.
    """

    def __init__(self, process: Process, project: str, memory: int, write: Write, doors: Sequence[Close] = ()) -> None:
        self._process, self._project, self._memory, self._write, self._doors = process, project, memory, write, doors
        self._calls: dict[int, asyncio.Future[protocol.Handled]] = {}
        self._events: dict[int, str] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[protocol.Ready] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.StreamWriter | None = None
        self._lines: Counter[int] = Counter()
        self._last, self._late, self._calls_of_this_burst = 0, 0, 0
        self._processor, self._resident = 0.0, 0
        self._printable = _OUTPUT
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
        return worn(Wear(time.monotonic() - self._began, self._last, self._resident), self._memory)

    async def start(self, database: str) -> protocol.Ready:
        """Loads the bot; what it declares.

        Raises:
            DoesNotStart: it does not load; SlowStart: not in time.
        """
        reader, self._writer = await asyncio.open_connection(sock=self._process.control, limit=2 * protocol.LARGEST)
        printed = asyncio.StreamReader()
        pipe, _ = await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(printed), self._process.output)
        self._tasks = [
            asyncio.create_task(self._reading(reader), name="frames"),
            asyncio.create_task(self._listening(printed, pipe), name="output"),
        ]
        self._writer.write(protocol.pack(protocol.Start(self._process.folder, database)))
        try:
            async with asyncio.timeout(START_LIMIT):
                return await self._ready
        except TimeoutError:
            await self.kill()
            raise SlowStart(f"the bot did not load within {START_LIMIT:g} s") from None

    async def call(self, limit: float, **fields: Any) -> dict[str, Any]:
        """The handler's result, unchecked. See `handled`."""
        return (await self.handled(limit, **fields)).result

    async def handled(self, limit: float, **fields: Any) -> protocol.Handled:
        """What the worker said when the handler ended, unchecked.

        Raises:
            CallFailed: one of `errors`.
        """
        if self.dead or self._writer is None:
            raise BotError("the bot's process has ended")
        self._begin_burst()
        self._last += 1
        number = self._last
        future: asyncio.Future[protocol.Handled] = asyncio.get_running_loop().create_future()
        self._calls[number], self._events[number] = future, fields["event"]["id"]
        try:
            self._writer.write(protocol.pack(protocol.Call(id=number, **fields)))
            done, _ = await asyncio.wait({future}, timeout=limit)
            if not done:
                self._writer.write(protocol.pack(protocol.Cancel(number)))
                done, _ = await asyncio.wait({future}, timeout=_GRACE)
            if not done:
                await self.kill()
                raise TimedOut(f"the handler took longer than {limit:g} s and did not end when asked to")
            return future.result()
        finally:
            if not future.done():  # nobody waits for it any more: it may not go on without a limit
                self._writer.write(protocol.pack(protocol.Cancel(number)))
            self._calls.pop(number, None)
            self._events.pop(number, None)
            self._lines.pop(number, None)
            self.used_at = time.monotonic()

    def _begin_burst(self) -> None:
        self._printable, self._late = max(self._printable, _OUTPUT), 0
        if not self.busy:
            self._processor, self._calls_of_this_burst = self._process.cpu(), 0
        self._calls_of_this_burst += 1

    def watch(self, limit: float) -> None:
        """Looks at a busy worker's memory and processor time; `limit` is that of one call, in seconds."""
        if self.dead or not self.busy:
            return
        self._resident = self._process.memory()
        match processor(self._process.cpu() - self._processor, self._calls_of_this_burst, limit):
            case "yield" if not self._yielded:
                self._yielded = True
                self._process.yield_processor()
            case "end":
                self._fail(TimedOut(f"the bot used more than {limit:g} s of processor time for one call"))
                self._process.kill()
            case _:
                return

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
            return OutOfMemory(f"the bot's process used more memory than it may ({self._memory >> 20} MiB) and was ended")
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
            case protocol.Handled() | protocol.Failed() if (future := self._calls.get(frame.id)) is not None:
                if future.done():
                    return
                if isinstance(frame, protocol.Handled):
                    future.set_result(frame)
                else:
                    flood = f" ({_FLOODED})" if self._printed_too_much else ""
                    future.set_exception(_KINDS.get(frame.kind, ProtocolViolated)(f"{frame.error[:2000]}{flood}", frame.trace[:8000]))
            case protocol.Logged() | protocol.Handled() | protocol.Failed():  # of a call that is over
                self._late += 1
                if self._late > _LINES:
                    raise ProtocolViolated(f"more than {_LINES} frames of calls that are over")
            case _:
                raise ProtocolViolated(f"a {type(frame).__name__} frame at the wrong time")

    def _logged(self, frame: protocol.Logged) -> None:
        self._lines[frame.id] += 1
        if self._lines[frame.id] > _LINES:
            raise BotError(f"the bot wrote more than {_LINES} lines to its log in one call")
        level = frame.level if frame.level in {"info", "warning", "error"} else "info"
        self._write(self._events.get(frame.id), level, frame.text[:4000])

    async def _listening(self, printed: asyncio.StreamReader, pipe: asyncio.ReadTransport) -> None:
        """Keeps the head of what the bot prints. Then our end of the pipe is closed: more costs nobody anything."""
        try:
            while text := await printed.read(4096):
                self._printable -= len(text)
                self._write(None, "print", text.decode(errors="replace"))
                if self._printable < 0:
                    self._printed_too_much = True
                    self._write(None, "warning", _FLOODED)
                    return
        finally:
            pipe.close()
