"""A bot: handlers by state."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Final

from loquat.context import Context

Handler = Callable[[Context], Awaitable[None]]
INITIAL: Final = "unstructured"
"""The state in which every conversation opens."""


class Bot:
    """Declares what is to be done in which state.

    ```python
    from loquat import Bot

    bot = Bot()


    @bot.state("unstructured")
    async def hello(ctx):
        ctx.reply_text("Hello!")
    ```
    """

    def __init__(self) -> None:
        self._states: dict[str, Handler] = {}
        self._fallback: Handler | None = None

    def state(self, name: str) -> Callable[[Handler], Handler]:
        """The handler of messages that come in this state."""

        def add(handler: Handler) -> Handler:
            if name in self._states:
                raise ValueError(f"the state {name!r} has a handler already")
            self._states[name] = _checked(handler)
            return handler

        return add

    def fallback(self, handler: Handler) -> Handler:
        """The handler of states that have none: also of states that an older version left behind."""
        if self._fallback is not None:
            raise ValueError("there is a fallback already")
        self._fallback = _checked(handler)
        return handler

    @property
    def states(self) -> list[str]:
        """The states that have handlers."""
        return sorted(self._states)

    def handler(self, state: str) -> Handler | None:
        """Who handles this state: its own handler, the fallback, or that of the initial state. None: the bot has no handler at all."""
        return self._states.get(state) or self._fallback or self._states.get(INITIAL)


def _checked(handler: Handler) -> Handler:
    if not inspect.iscoroutinefunction(handler):
        raise TypeError(f"a handler is `async def {getattr(handler, '__name__', 'handler')}(ctx)`")
    return handler
