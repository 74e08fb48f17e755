"""How much of what is forwarded may be under way: nobody who sends or reads slowly keeps others out."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Generator
from contextlib import contextmanager
from typing import Final

import aiohttp
from loquat_common.problems import Problem

PIECE: Final = 64 << 10  # bytes of a stream at a time
SILENCE: Final = 30.0
"""Seconds between two pieces of a body, and for a piece to be taken."""
_OF_A_PROJECT: Final = 20
_STREAMS_OF_A_PROJECT: Final = 4
_STREAMS: Final = 200
"""Of all projects, in one gateway: each holds a connection to the service behind it."""


class Turns:
    """Counts requests under way."""

    def __init__(self) -> None:
        self._projects, self._streams = Counter[str](), Counter[str]()

    @contextmanager
    def taken(self, project: str, *, streams: bool) -> Generator[None]:
        """One of the project's turns.

        Raises:
            Problem: 429 when it has all that it may have; 503 when all of this gateway's streams are taken.
        """
        counters = [(self._projects, _OF_A_PROJECT), *([(self._streams, _STREAMS_OF_A_PROJECT)] if streams else [])]
        for counter, most in counters:
            if counter[project] >= most:
                what = "files" if counter is self._streams else "requests"
                raise Problem(429, "too_many_requests", "Too much of this project is under way", f"{most} {what} at a time are the limit")
        if streams and self._streams.total() >= _STREAMS:
            raise Problem(503, "busy", "Too many files are under way", "Try again in a moment")
        for counter, _ in counters:
            counter[project] += 1
        try:
            yield
        finally:
            for counter, _ in counters:
                counter[project] -= 1
                if not counter[project]:
                    del counter[project]


class Pieces:
    """A body that goes on as it comes. `stalled`: it was given up for its silence."""

    def __init__(self, content: aiohttp.StreamReader) -> None:
        self._content, self.stalled = content, False

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        try:
            async with asyncio.timeout(SILENCE):
                piece = await self._content.read(PIECE)
        except TimeoutError:
            self.stalled = True
            raise
        if not piece:
            raise StopAsyncIteration
        return piece
