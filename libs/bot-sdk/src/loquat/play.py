"""One call of a bot, the same in a worker and in a test: find the handler, call it, enter states, commit; or apologise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from loquat.bot import Bot, Middleware, Next
from loquat.context import Context
from loquat.database import DatabaseAway, Superseded

_MOST_ENTERED: Final = 20  # states in a row within one call: more is two states that send each other back and forth


class NoHandler(Exception):
    """The bot has no handler: add one with @bot.state('unstructured') or @bot.fallback."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


@dataclass(frozen=True, slots=True)
class Played:
    """What a call came to. `recorded`: it is committed in the project's database together with what the handler wrote."""

    result: dict[str, Any]
    recorded: bool


async def play(bot: Bot, begin: Callable[[], Context], version: int, report: Callable[[Exception], None]) -> Played:
    """Calls the bot with a fresh context; after an error that has a handler, that handler with another. `report` takes an error that is over.

    The contexts' databases are the caller's to close, after it has told what came of it: a connection that hangs must not keep the answer.

    Raises:
        Superseded, DatabaseAway, MemoryError: the platform's affair.
        Exception: the bot's own; nothing of the call will be there.
    """
    context = begin()
    try:
        return await _committed(context, version, _handle(bot, context))
    except (Superseded, DatabaseAway, MemoryError):
        raise
    except Exception as error:
        if bot.error_handler is None or isinstance(error, NoHandler):
            raise
        failed = error
    await context.db.close()  # what the handler wrote is gone before its apology begins
    context = begin()
    played = await _committed(context, version, bot.error_handler(context, failed))
    report(failed)
    return played


async def _committed(context: Context, version: int, act: Awaitable[None]) -> Played:
    """What is done and its result become true together, or neither does."""
    await act
    if context.db.used:
        await context.db.commit(context.event.id, version, context.result())
        return Played(context.result(), recorded=True)
    return Played(context.result(), recorded=False)


async def _handle(bot: Bot, context: Context) -> None:
    async def handler() -> None:
        await _called(bot, context)
        await _enter(bot, context)

    await _around(bot.middlewares, context, handler)
    await _enter(bot, context)  # where a middleware has gone after the handler


async def _called(bot: Bot, context: Context) -> None:
    found = bot.find(context.event, context.state)
    if found is not None:
        handler, arguments, named = found
        await handler(context, *arguments, **named)
    elif bot.declared:
        kind = type(context.event).__name__
        context.log.warning(f"nobody takes this {kind} in the state {context.state!r}: add @bot.fallback")  # noqa: G004  (not logging's)
    else:
        raise NoHandler


async def _enter(bot: Bot, context: Context) -> None:
    entered: list[str] = []
    while (state := context.entering()) is not None:
        entered.append(state)
        if len(entered) > _MOST_ENTERED:
            raise RuntimeError(f"on_enter goes from state to state without end: {', '.join(entered[-4:])}, ...")
        if (handler := bot.entering(state)) is not None:
            await handler(context)


async def _around(middlewares: list[Middleware], context: Context, handler: Next) -> None:
    """The first middleware around the second, and so on, the handler innermost."""

    def step(index: int) -> Next:
        called = False

        async def call_next() -> None:
            nonlocal called
            if called:
                raise RuntimeError("a middleware awaited call_next twice")
            called = True
            if index == len(middlewares):
                await handler()
            else:
                await middlewares[index](context, step(index + 1))

        return call_next

    await step(0)()
