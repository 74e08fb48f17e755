"""One call of a bot, the same in a worker and in a test: find the handler, call it, enter states, commit; or apologise."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any, Final

from loquat.asking import NoAnswer, Waiting
from loquat.bot import Bot, Middleware, Next
from loquat.bursts import NotYet, gathered
from loquat.context import Context, Manner
from loquat.database import DatabaseAway, Superseded
from loquat.handlers import name
from loquat.messages import Message
from loquat.schedules import ScheduleContext
from loquat.timers import ASKED, RESERVED, Timer

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
    asks: bool = False
    """It ended at a question: what else the handler did is not there."""


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
    burst, context = context, begin()
    if burst.joins:
        context.event, context.joins = burst.event, burst.joins
    context.manner = Manner(join_texts=context.manner.join_texts, voice=context.manner.voice)
    context.manner.voice.apologise()
    played = await _committed(context, version, bot.error_handler(context, failed))
    report(failed)
    return played


async def play_schedule(bot: Bot, context: ScheduleContext) -> Played:
    """Calls the handler of a schedule; one that the code does not have any more does nothing. Raises as `play` does."""
    schedule = bot.schedules.get(context.event.name)
    if schedule is None:
        context.log.warning(f"the schedule {context.event.name!r} is not in this code any more")  # noqa: G004  (not logging's)
        return Played(context.result(), recorded=False)
    return await _committed(context, 0, schedule.handler(context))


async def _committed(context: Context | ScheduleContext, version: int, act: Awaitable[None]) -> Played:
    """What is done and its result become true together, or neither does. Of a call that ends at a question nothing is there but the question."""
    this = context.event.id
    try:
        await act
    except NotYet as more:
        return Played({"replies": [], "later": more.seconds}, recorded=False, asks=True)
    except Waiting:
        return Played(context.question() if isinstance(context, Context) else context.result(), recorded=False, asks=True)
    except NoAnswer as ended:
        if not isinstance(context, Context):
            raise
        if ended.text is not None:
            context.reply_text(ended.text)
        return Played(context.question(), recorded=False, asks=True)
    if context.db.used:
        await context.db.commit(this, version, context.result())
        return Played(context.result(), recorded=True)
    return Played(context.result(), recorded=False)


async def _handle(bot: Bot, context: Context) -> None:
    if context.manner.observing:
        if bot.observer is not None:
            await bot.observer(context)
        return
    if isinstance(context.event, Timer) and context.event.name == ASKED:
        context.time_out(str(context.event.data["text"]))
        raise Waiting
    _resume(context)
    if context.manner.asks is None or context.manner.asks.arrived is None:
        state = context.state
        context.event, context.joins = gathered(lambda message: bot.rule(message, state), context.event, context.manner.following)

    async def handler() -> None:
        await _called(bot, context)
        await _enter(bot, context)

    await _around(bot.middlewares, context, handler)
    await _enter(bot, context)  # where a middleware has gone after the handler


def _resume(context: Context) -> None:
    """The message that answers a question goes to the handler that asked, as the one that this began with."""
    if (asks := context.manner.asks) is None:
        return
    if (original := asks.original) is not None and context.state == asks.state:
        context.event = original
    else:
        asks.forget(gone=asks.gone)  # something else has moved the conversation meanwhile
    asks.state = context.state


def _asker(bot: Bot, context: Context, event: Message) -> str | None:
    if isinstance(event, Timer):
        return name(bot.timers[event.name]) if event.name in bot.timers else None
    found = bot.find(event, context.state)
    return name(found[0]) if found is not None else None


async def _called(bot: Bot, context: Context) -> None:
    if (asks := context.manner.asks) is not None:
        asker = _asker(bot, context, context.event)
        if asks.arrived is not None and asker != asks.handler:  # not in this code any more: a message like any other
            context.log.warning(f"the handler {asks.handler!r} that asked is not there any more")  # noqa: G004  (not logging's)
            context.event = asks.arrived
            asks.forget(gone=True)
            asker = _asker(bot, context, context.event)
        if asks.gone and bot.unknown is not None:
            await bot.unknown(context)
            return
        asks.begin(asker or "", context.event)
    if isinstance(context.event, Timer):
        if (timer := bot.timers.get(context.event.name)) is not None:
            await timer(context)
        elif not context.event.name.startswith(RESERVED):
            context.log.warning(f"nobody takes the timer {context.event.name!r}: add @bot.on_timer({context.event.name!r})")  # noqa: G004
        return
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
