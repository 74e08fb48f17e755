"""What a bot's process prints, as the runner's loop reads it."""

from __future__ import annotations

import asyncio
import io
from typing import Final

_FULL: Final = (
    64 << 10
)  # bytes that a pipe holds: all of it is taken at once, so that what a call printed is its own and not the next one's


class Output:
    """The reading end of a pipe that does not block; it stays its owner's to close.

    Watched, not given to a transport: uvloop's closes a pipe's descriptor twice, and by the second time a thread may have opened another file under
    the same number. What is closed in its place is anybody's; a runner ended by SIGABRT was among what came of it.
    """

    def __init__(self, pipe: io.FileIO) -> None:
        self._pipe, self._taken = pipe, b""

    async def read(self, most: int) -> bytes:
        """At most so many bytes as soon as there are any; none at its end."""
        while not self._taken:
            await self._ready()
            if (taken := self._pipe.read(_FULL)) == b"":
                return b""
            self._taken = taken or b""  # None: somebody was wrong, there is nothing yet
        text, self._taken = self._taken[:most], self._taken[most:]
        return text

    async def _ready(self) -> None:
        loop, descriptor, ready = asyncio.get_running_loop(), self._pipe.fileno(), asyncio.Event()
        loop.add_reader(descriptor, ready.set)
        try:
            await ready.wait()
        finally:
            loop.remove_reader(descriptor)
