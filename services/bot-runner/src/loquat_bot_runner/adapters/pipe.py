"""Bytes between two transports, both ways: as fast as the slower side takes them, never faster than the project may."""

from __future__ import annotations

import asyncio
from typing import Final, cast

from loquat_bot_runner.domain.pace import Pace

_HIGH: Final = 128 << 10  # bytes that may wait for the slower side; one read of asyncio (256 KiB at most) comes on top
UNIT: Final = 16 << 10
"""Bytes that cost as much as one read."""
_TAIL: Final = 6


class Opening(asyncio.Protocol):
    """The first bytes of a connection, at most `most` and what came with them, until somebody makes a pipe of it."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._news = asyncio.Event()
        self.buffer = bytearray()
        self.over = False
        self.transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        self.transport = cast("asyncio.Transport", transport)  # uvloop's are none by their class

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.buffer += data
        if len(self.buffer) >= self._most:
            self.transport.pause_reading()
        self._news.set()

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: our side stays open, for an answer."""
        self.over = True
        self._news.set()
        return True

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the protocol's signature)
        """See `asyncio.Protocol`."""
        self.over = True
        self._news.set()

    async def more(self) -> bool:
        """Whether anything came; False: nothing will. The time-out is the caller's."""
        if self.over:
            return False
        await self._news.wait()
        self._news.clear()
        return not self.over


class End(asyncio.Protocol):
    """One side of a pipe."""

    def __init__(self, pipe: Pipe, transport: asyncio.Transport) -> None:
        self._pipe, self._held = pipe, set[str]()
        self.transport, self.peer = transport, self
        self.passed = 0
        self.over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        self.passed += len(data)
        self._pipe.passing(self, data)
        self.peer.transport.write(data)

    def eof_received(self) -> bool:
        """See `asyncio.Protocol`: the other direction may go on, where there can be one direction alone. TLS knows none."""
        self.over.set()
        return self.transport.can_write_eof()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  (the protocol's signature)
        """See `asyncio.Protocol`."""
        self.over.set()
        self.peer.release("slow")

    def pause_writing(self) -> None:
        """See `asyncio.Protocol`: what is read on the other side would wait here."""
        self.peer.hold("slow")

    def resume_writing(self) -> None:
        """See `asyncio.Protocol`."""
        self.peer.release("slow")

    def hold(self, reason: str) -> None:
        """Reads no more until every reason is gone."""
        if not self._held and not self.transport.is_closing():
            self.transport.pause_reading()
        self._held.add(reason)

    def release(self, reason: str) -> None:
        """See `hold`."""
        self._held.discard(reason)
        if not self._held and not self.transport.is_closing():
            self.transport.resume_reading()

    def finish(self) -> None:
        """Nothing more will be written; what was is sent first."""
        if self.transport.is_closing():
            return
        if self.transport.can_write_eof():
            self.transport.write_eof()
        else:
            self.transport.close()


class Pipe:
    """Owns both transports from now on. `most` bytes pass, both ways together; then it is `broken`."""

    def __init__(self, inner: asyncio.Transport, outer: asyncio.Transport, pace: Pace, most: int | None = None) -> None:
        self._pace, self._most = pace, most
        self._loop = asyncio.get_running_loop()
        self.inner, self.outer = End(self, inner), End(self, outer)
        self.inner.peer, self.outer.peer = self.outer, self.inner
        self.last: End | None = None
        self.moved_at = self._loop.time()
        self.tail = b""
        self.spent = False

    def open(self, early: bytes) -> None:
        """Begins; `early` is what the inner side has said already."""
        for end in (self.inner, self.outer):
            end.transport.set_write_buffer_limits(_HIGH)
            end.transport.set_protocol(end)
            if end.transport.is_closing():  # its end went to the protocol before us
                end.over.set()
        if early:
            self.inner.data_received(early)
        for end in (self.inner, self.outer):
            end.release("opening")

    def passing(self, end: End, data: bytes) -> None:
        """Counts what passes."""
        self.last, self.moved_at = end, self._loop.time()
        if end is self.outer:
            self.tail = (self.tail + data[-_TAIL:])[-_TAIL:]
        if (wait := self._pace.spend(1 + len(data) / UNIT, self.moved_at)) > 0:
            for side in (self.inner, self.outer):
                side.hold("pace")
            self._loop.call_later(wait, self._go_on)
        if self._most is not None and self.inner.passed + self.outer.passed > self._most:
            self.spent = True
            self.abort()

    def _go_on(self) -> None:
        for side in (self.inner, self.outer):
            side.release("pace")

    async def one_is_over(self) -> None:
        """Returns when one side has said its last byte."""
        await _first(self.inner.over, self.outer.over)

    async def both_are_over(self) -> None:
        """Returns when both have. A side that has ended is told to the other, which may still speak."""
        await self.one_is_over()
        for end in (self.inner, self.outer):
            if end.over.is_set():
                end.peer.finish()
        await self.inner.over.wait()
        await self.outer.over.wait()

    def abort(self) -> None:
        """Ends both at once."""
        for end in (self.inner, self.outer):
            end.transport.abort()
            end.over.set()


async def _first(*events: asyncio.Event) -> None:
    waiting = [asyncio.create_task(e.wait(), name="side") for e in events]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in waiting:
            task.cancel()


async def farewell(transport: asyncio.Transport, opening: Opening, seconds: float = 2.0) -> None:
    """Closes after what was written has gone out, or the time is over. What is still unread would make the kernel drop our last words."""
    if transport.is_closing():
        return
    transport.write_eof()
    opening.buffer.clear()
    transport.resume_reading()
    try:
        async with asyncio.timeout(seconds):
            while await opening.more():
                opening.buffer.clear()
    except TimeoutError:
        pass
    finally:
        transport.abort() if transport.get_write_buffer_size() else transport.close()
