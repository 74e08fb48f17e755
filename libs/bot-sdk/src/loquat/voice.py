"""What a handler says before it ends, and that it is writing: `ctx.reply_now` and `ctx.typing`."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final, Protocol
from uuid import UUID

from loquat import protocol
from loquat.database import DatabaseAway, Superseded
from loquat.replies import Reply, ReplyRefused

MOST_NOW: Final = 10
"""Replies that one call says at once."""
_SHOWN: Final = 5.0  # seconds for which a phone that shows it need not be told again; it shows it for 25


class NotSaid(RuntimeError):
    """What `reply_now` was given was not said, and the text says why: people hold the conversation, say, or it is too much for this project."""


class Line(Protocol):
    """The way to the contact."""

    async def say(self, answered: UUID, place: int, reply: Reply) -> None:
        """Returns when it is durable; what was said at this place in answer to this event before is said already.

        Raises:
            NotSaid: it will not be. Superseded, DatabaseAway: the platform begins again.
        """
        ...

    def typing(self) -> None:
        """Tells, and waits for nothing."""
        ...


class Voice:
    """Of one call. Places count from 1, so a repeated run says the same at the same place; an error handler has places of its own."""

    def __init__(self, line: Line | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._line, self._clock = line, clock
        self._said = self._place = 0
        self._shown_at: float | None = None

    async def say(self, answered: UUID, reply: Reply) -> None:
        """Says it, in answer to an event. Raises as `Line.say` does, and ReplyRefused: too many in one call."""
        if self._line is None:
            raise NotSaid("nobody is there to whom something could be said now")
        if self._said >= MOST_NOW:
            raise ReplyRefused(f"one call says at most {MOST_NOW} replies at once")
        self._said += 1
        self._place += 1
        self._shown_at = None  # a message takes it from the phone
        await self._line.say(answered, self._place, reply)

    def typing(self) -> None:
        """Shows it, unless it was shown just now."""
        now = self._clock()
        if self._line is not None and (self._shown_at is None or now - self._shown_at >= _SHOWN):
            self._shown_at = now
            self._line.typing()

    def apologise(self) -> None:
        """What follows is the error handler's: how far the handler came is another matter each time."""
        self._place = MOST_NOW


class Wire:
    """The line of a worker's call: frames to the runner, and an answer to each thing said. The call's own time bounds the wait."""

    def __init__(self, call: int, send: Callable[[protocol.FromWorker], None]) -> None:
        self._call, self._send = call, send
        self._asked: dict[int, asyncio.Future[protocol.Said]] = {}

    async def say(self, answered: UUID, place: int, reply: Reply) -> None:
        """See `Line`."""
        future = self._asked[place] = asyncio.get_running_loop().create_future()
        try:
            self._send(protocol.Say(self._call, place, str(answered), reply.wire()))
            said = await future
        finally:
            del self._asked[place]
        match said.kind:
            case "said":
                return
            case "superseded":
                raise Superseded
            case "database":
                raise DatabaseAway(said.error)
            case _:
                raise NotSaid(said.error)

    def typing(self) -> None:
        """See `Line`."""
        self._send(protocol.Typing(self._call))

    def heard(self, said: protocol.Said) -> None:
        """The runner's answer; nobody may wait for it any more."""
        future = self._asked.get(said.place)
        if future is not None and not future.done():
            future.set_result(said)
