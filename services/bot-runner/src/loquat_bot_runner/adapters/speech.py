"""What one call of a bot says before it ends: each frame is checked, and the worker is told what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final
from uuid import UUID

from loquat import protocol
from loquat_common.logs import get_logger

from loquat_bot_runner.domain.replies import MOST_NOW, checked_now
from loquat_bot_runner.errors import ProtocolViolated, Superseded, Unsaid
from loquat_bot_runner.ports import Voice

_LIMIT: Final = 10.0  # seconds for one: the bus may take 5 of them
_MOST_TYPING: Final = 100  # the SDK sends one in 5 s, or after each thing said
_NOBODY: Final = "nobody is there to whom something could be said now"
_AWAY: Final = "the platform cannot say it now"

Tell = Callable[[protocol.Said], None]


class Speech:
    """One call's. Without a voice nothing is said and the bot is told so."""

    def __init__(self, call: int, voice: Voice | None, most: int, tell: Tell) -> None:
        """`most`: messages that the project's bot may say in one call."""
        self._call, self._voice, self._most, self._tell = call, voice, most, tell
        self._places, self._turn = set[int](), asyncio.Lock()  # in turn: in the order in which it was said, and on one connection
        self._typings = 0
        self.failed = False
        """Whether the platform could not say something."""
        self._saying, self._showing = set[asyncio.Task[None]](), set[asyncio.Task[None]]()

    def heard(self, frame: protocol.Say | protocol.Typing) -> None:
        """A frame of the call.

        Raises:
            ProtocolViolated: the SDK would not have sent it.
        """
        if isinstance(frame, protocol.Typing):
            self._type()
            return
        if frame.place in self._places or not 1 <= frame.place <= 2 * MOST_NOW or len(self._places) >= MOST_NOW:
            raise ProtocolViolated(f"more than {MOST_NOW} replies at once, or two at one place")
        answered, reply = checked_now(frame.answered, frame.reply)
        self._places.add(frame.place)
        if self._voice is None:
            self._answer(frame.place, "refused", _NOBODY)
        elif len(self._places) > self._most:
            self._answer(frame.place, "refused", f"one call of this project's bot says at most {self._most} messages")
        else:
            self._begin(self._saying, self._say(self._voice, answered, frame.place, reply))

    async def over(self) -> None:
        """The handler has ended: what it says is said before what follows; that it writes is no matter any more."""
        for task in self._showing:
            task.cancel()
        if self._saying:
            await asyncio.wait(self._saying)

    def cancel(self) -> None:
        """Nobody waits for the call any more. What was on its way is found with the event's next run."""
        for task in (*self._saying, *self._showing):
            task.cancel()

    def _type(self) -> None:
        self._typings += 1
        if self._typings > _MOST_TYPING:
            raise ProtocolViolated(f"more than {_MOST_TYPING} times that the bot is writing, in one call")
        if self._voice is not None:
            self._begin(self._showing, self._show(self._voice))

    def _begin(self, tasks: set[asyncio.Task[None]], work: Coroutine[None, None, None]) -> None:
        task = asyncio.create_task(work, name=f"speech of call {self._call}")
        tasks.add(task)
        task.add_done_callback(tasks.discard)

    def _answer(self, place: int, kind: str, error: str = "") -> None:
        self._tell(protocol.Said(self._call, place, kind, error))

    async def _say(self, voice: Voice, answered: UUID, place: int, reply: dict[str, Any]) -> None:
        try:
            async with asyncio.timeout(_LIMIT), self._turn:
                await voice.say(answered, place, reply)
        except Superseded:
            self._answer(place, "superseded")
        except (Unsaid, ProtocolViolated) as refused:
            self._answer(place, "refused", str(refused))
        except Exception:  # noqa: BLE001  (the task's edge: whatever it was, the run is repeated and says it once)
            get_logger().warning("bot.not_said", exc_info=True)
            self.failed = True
            self._answer(place, "database", _AWAY)
        else:
            self._answer(place, "said")

    async def _show(self, voice: Voice) -> None:
        try:
            async with asyncio.timeout(_LIMIT):
                await voice.typing()
        except Exception as error:  # noqa: BLE001  (the task's edge: nobody waits for it, and nobody misses it)
            get_logger().info("bot.typing_not_shown", error=type(error).__name__)
