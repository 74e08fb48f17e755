"""How slowly a caller may take a dump or send one: turns are few, and whoever holds one may not do so for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Pace:
    """Seconds, and bytes a second.

    `silence`: without a byte of an upload. `rate`: what an upload must come to on the whole, after `grace` seconds. `patience`: how long an upload
    that has come waits for its turn. `taken`: without a byte of a dump being taken. `longest`: of an upload's coming or a dump's going in all.
    """

    silence: float = 15.0
    grace: float = 15.0
    rate: int = 64 << 10
    patience: float = 60.0
    taken: float = 30.0
    longest: float = 1_800.0


async def paced(pieces: AsyncIterable[bytes], pace: Pace) -> AsyncGenerator[bytes]:
    """The pieces of an upload.

    Raises:
        TimeoutError: they come too slowly.
    """
    clock, source = asyncio.get_running_loop().time, aiter(pieces)
    began, size = clock(), 0
    while True:
        last = min(began + pace.longest, began + pace.grace + size / pace.rate, clock() + pace.silence)
        async with asyncio.timeout_at(last):
            piece = await anext(source, b"")
        if not piece:
            return
        size += len(piece)
        yield piece
