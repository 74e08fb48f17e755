"""One worker process: one version of one project's bot."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import msgspec
from loquat import protocol

from loquat_bot_runner.adapters.confine import Limits, before_exec, user_of
from loquat_bot_runner.errors import (
    BotError,
    CallFailed,
    DoesNotStart,
    OutOfMemory,
    ProjectDatabaseAway,
    ProtocolViolated,
    Superseded,
    TimedOut,
)

START_LIMIT: Final = 10.0
"""Seconds from the start of the process to a loaded bot; 0.2 s is usual."""
_GRACE: Final = 0.25  # seconds between a cancel and the end of the process
_OUTPUT: Final = 64 << 10  # bytes of stdout and stderr kept; then the pipe is closed and costs nothing more
_KINDS: Final[dict[str, type[CallFailed]]] = {
    "error": BotError,
    "superseded": Superseded,
    "database": ProjectDatabaseAway,
    "memory": OutOfMemory,
    "cancelled": TimedOut,
}

Write = Callable[[int | None, str, str], None]
"""A line for the project's log: call, level, text."""


class Worker:
    """Serves calls of one project, several at once. It is dead after the first thing that is not as it should be."""

    def __init__(self, project: str, limits: Limits, write: Write) -> None:
        self._project, self._limits, self._write = project, limits, write
        self._process: asyncio.subprocess.Process | None = None
        self._calls: dict[int, asyncio.Future[dict[str, Any]]] = {}
        self._tasks: list[asyncio.Task[None]] = []
        self._ready: asyncio.Future[list[str]] | None = None
        self._writer: asyncio.StreamWriter | None = None
        self._last = 0
        self.dead = False
        self.used_at = time.monotonic()

    @property
    def busy(self) -> bool:
        """Whether a call is under way."""
        return bool(self._calls)

    async def start(self, folder: Path, database: str) -> list[str]:
        """Starts the process and loads the bot; the states it declares.

        Raises:
            DoesNotStart: it does not load in time, or at all.
        """
        ours, theirs = socket.socketpair()
        self._ready = asyncio.get_running_loop().create_future()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "loquat.worker",
                str(theirs.fileno()),
                pass_fds=[theirs.fileno()],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                env={"LANG": "C.UTF-8", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1", "HOME": "/nonexistent"},
                cwd="/",
                preexec_fn=before_exec(self._limits, user_of(self._project)),
            )
            reader, self._writer = await asyncio.open_connection(sock=ours, limit=2 * protocol.LARGEST)
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._tasks = [asyncio.create_task(self._reading(reader), name="frames"), asyncio.create_task(self._listening(), name="output")]
        self._writer.write(protocol.pack(protocol.Start(str(folder), database)))
        try:
            async with asyncio.timeout(START_LIMIT):
                return await self._ready
        except TimeoutError:
            await self.kill()
            raise DoesNotStart(f"the bot did not load within {START_LIMIT:g} s") from None

    async def call(self, limit: float, **fields: Any) -> dict[str, Any]:
        """The handler's result, unchecked.

        Raises:
            CallFailed: one of `errors`.
        """
        if self.dead or self._writer is None:
            raise BotError("the bot's process has ended")
        self._last += 1
        number = self._last
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._calls[number] = future
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
            self.used_at = time.monotonic()

    async def kill(self) -> None:
        """Ends the process at once; its other calls fail."""
        self.dead = True
        self._kill()
        if self._process is not None:
            await self._process.wait()
        self._fail(BotError("the bot's process was ended"))
        current = asyncio.current_task()
        rest = [t for t in self._tasks if t is not current]
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)
        if self._writer is not None:
            self._writer.close()
            with suppress(OSError):  # the other end is gone already: that was the purpose
                await self._writer.wait_closed()

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):  # it has ended, and asyncio has not looked yet
                os.killpg(self._process.pid, signal.SIGKILL)

    def _fail(self, error: CallFailed) -> None:
        self.dead = True
        if self._ready is not None and not self._ready.done():
            self._ready.set_exception(DoesNotStart(error.error))
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
            self._fail(await self._ended())
        except (ProtocolViolated, msgspec.MsgspecError) as error:
            self._fail(ProtocolViolated(str(error)))
            self._kill()

    async def _ended(self) -> CallFailed:
        code = await self._process.wait() if self._process is not None else None
        return BotError(f"the bot's process ended ({'exit ' + str(code) if code is None or code >= 0 else signal.Signals(-code).name})")

    def _heard(self, frame: protocol.FromWorker) -> None:
        match frame:
            case protocol.Ready(states=states) if self._ready is not None and not self._ready.done():
                self._ready.set_result(states)
            case protocol.Refused(error=error) if self._ready is not None and not self._ready.done():
                self._ready.set_exception(DoesNotStart("the bot does not load", error))
            case protocol.Logged() if frame.id in self._calls:
                self._write(frame.id, frame.level if frame.level in {"info", "warning", "error"} else "info", frame.text[:4000])
            case protocol.Handled() | protocol.Failed() if (future := self._calls.get(frame.id)) is not None:
                if future.done():
                    return
                if isinstance(frame, protocol.Handled):
                    future.set_result(frame.result)
                else:
                    future.set_exception(_KINDS.get(frame.kind, ProtocolViolated)(frame.error[:2000], frame.trace[:8000]))
            case protocol.Logged() | protocol.Handled() | protocol.Failed():
                return  # of a call that is over
            case _:
                raise ProtocolViolated(f"a {type(frame).__name__} frame at the wrong time")

    async def _listening(self) -> None:
        """Keeps the head of what the bot prints."""
        stream = self._process.stdout if self._process is not None else None
        kept = 0
        while stream is not None and (text := await stream.read(4096)):
            kept += len(text)
            self._write(None, "print", text.decode(errors="replace"))
            if kept > _OUTPUT:
                self._write(None, "warning", f"the bot printed more than {_OUTPUT} bytes; the rest is not kept")
                while await stream.read(1 << 16):  # the pipe must not fill up: the bot would stand still
                    continue
                return
