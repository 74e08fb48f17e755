"""A bot: what is to be done with which message, in which state."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Sequence
from itertools import count
from typing import Any, Concatenate, Final, Protocol, TypeVar, overload

from loquat.config import MISSING, MOST_SETTINGS, Setting, setting
from loquat.context import LONGEST_STATE, Context
from loquat.handlers import Function, Once, check, checked_name, where
from loquat.handlers import name as named
from loquat.messages import ButtonReply, Choice, FlowReply, ListReply, Message, Text
from loquat.replies import LONGEST_FLOW
from loquat.rules import LONGEST_WORDS, Chosen, ChosenFrom, Command, Declared, Filled, Heard, Kind, Pattern, Rule, Trigger, Words, plain
from loquat.schedules import MOST_SCHEDULES, CatchUp, Schedule, ScheduleHandler, schedule
from loquat.timers import HANDBACK, RESERVED
from loquat.timers import LONGEST_NAME as LONGEST_TIMER
from loquat.tools import MOST_TOOLS, Tool, tool

Handler = Callable[[Context], Awaitable[None]]
ErrorHandler = Callable[[Context, Exception], Awaitable[None]]
Next = Callable[[], Awaitable[None]]
"""What a middleware awaits to go on."""
Middleware = Callable[[Context, Next], Awaitable[None]]
INITIAL: Final = "unstructured"
"""The state in which every conversation opens."""
States = str | Sequence[str] | None
_COMMAND: Final = re.compile(r"[\w-]{1,60}")
_LONGEST_ID: Final = 256
SHORTEST_BURST: Final = 0.2
LONGEST_BURST: Final = 10.0
"""Seconds. What people order for the conversation meanwhile waits behind a burst."""
LONGEST_NAME: Final = 63
"""Bytes of a table's name, or a column's: PostgreSQL's own limit."""
_MOST_NEEDED: Final = 500  # names that a bot needs: they must fit in a frame

H = TypeVar("H", bound=Handler)
E = TypeVar("E", bound=ErrorHandler)
W = TypeVar("W", bound=Middleware)
S = TypeVar("S", bound=ScheduleHandler)
L = TypeVar("L", bound=Callable[..., Awaitable[Any]])
P = TypeVar("P", bound=Callable[Concatenate[Context, ...], Awaitable[None]])
M = TypeVar("M", bound=Message)
T = TypeVar("T")


class Finding(Protocol[T]):
    """A decorator for `async def handler(ctx)` or `async def handler(ctx, found)`."""

    @overload
    def __call__(self, handler: Handler, /) -> Handler: ...
    @overload
    def __call__(self, handler: Callable[[Context, T], Awaitable[None]], /) -> Callable[[Context, T], Awaitable[None]]: ...


class Bot:
    """Declares what is to be done with which message, in which state.

    ```python
    from loquat import Bot, Context

    bot = Bot()


    @bot.state("unstructured")
    async def hello(ctx: Context) -> None:
        ctx.reply_text("Hello!")
    ```

    One handler is called for a message, the first that fits in this order: command, button, row or flow by id, by the beginning of its id, words,
    pattern, kind of message, the state's handler, `unknown_state` if the state is declared nowhere, `fallback`, the handler of the initial state.
    Of two rules of one sort that fit, one with `state=` comes before one for all states, then the longer beginning and the narrower kind, then what
    stands first in the code. A mistake in a declaration is refused when the bot loads, with file and line.
    """

    def __init__(self) -> None:
        self._rules: list[Rule] = []
        self._states: dict[str, Handler] = {}
        self._entering: dict[str, Handler] = {}
        self._fallback: Handler | None = None
        self.unknown: Handler | None = None
        self.observer: Handler | None = None
        self.error_handler: ErrorHandler | None = None
        self.middlewares: list[Middleware] = []
        self.needed: dict[str, tuple[str, ...]] = {}
        self.settings: dict[str, Setting] = {}
        self.timers: dict[str, Handler] = {}
        self.schedules: dict[str, Schedule] = {}
        self.tools: dict[str, Tool] = {}
        self._once, self._order = Once(), count()

    def state(self, name: str) -> Callable[[H], H]:
        """The handler of messages that come in this state and that no rule takes."""
        state = _state(name)

        def add(handler: H) -> H:
            check(handler, "ctx")
            self._once.take(("state", state), f"the state {state!r} has a handler", handler)
            self._states[state] = handler
            return handler

        return add

    def on_enter(self, state: str) -> Callable[[H], H]:
        """What follows when a handler has gone to this state, also when it was there before: asking the question, say. It may go on to another."""
        entered = checked_name("a state", state, LONGEST_STATE, "@bot.on_enter('name of the state')")

        def add(handler: H) -> H:
            check(handler, "ctx")
            self._once.take(("on_enter", entered), f"entering {entered!r} has a handler", handler)
            self._entering[entered] = handler
            return handler

        return add

    def on(self, kind: type[M], *, state: States = None) -> Finding[M]:
        """Messages of a kind, such as `Image`, or `Media` for all files; the handler may take the message as its second parameter."""
        if not (isinstance(kind, type) and issubclass(kind, Message)):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise TypeError(f"@bot.on takes a kind of message, such as loquat.Image, not {kind!r}")
        return self._finding([Kind(kind)], state, f"ctx, {kind.__name__.lower()}")

    def on_text(self, *, burst: float = 0.0, state: States = None) -> Finding[Text]:
        """Texts, as `@bot.on(Text)`. With `burst`, texts that follow each other are one call, when so many seconds have passed without another.

        People write in several messages what is one. `ctx.event.texts` has them in order, `ctx.event.text` all of them, a line each. What a
        narrower rule takes, and what is no text, ends a burst; so does ten times the window.
        """
        if not (isinstance(burst, int | float) and (burst == 0 or SHORTEST_BURST <= burst <= LONGEST_BURST)):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise ValueError(f"burst is {SHORTEST_BURST} to {LONGEST_BURST} seconds, not {burst!r}")
        return self._finding([Kind(Text)], state, "ctx, text", burst=float(burst))

    def button(self, *ids: str, prefix: str | None = None, state: States = None) -> Finding[str]:
        """Taps on buttons with these ids; or with ids that begin with `prefix`: the handler may take the rest of the id, else the id itself."""
        return self._finding(_chosen(ButtonReply, ids, prefix), state, "ctx, rest" if prefix else "ctx, id")

    def row(self, *ids: str, prefix: str | None = None, state: States = None) -> Finding[str]:
        """Rows picked from lists, as with `button`."""
        return self._finding(_chosen(ListReply, ids, prefix), state, "ctx, rest" if prefix else "ctx, id")

    def on_flow(self, *names: str, state: States = None) -> Finding[FlowReply]:
        """Forms of WhatsApp Flows that were filled in; the handler may take the `FlowReply`, whose `data` is what the form sent.

        A name is what stands before the first colon of the `flow_token` with which the form was sent, for WhatsApp says nothing else of which one it
        was. Without a name: any of them, also those whose token did not come back.
        """
        if not all(isinstance(n, str) and n and ":" not in n and len(n) <= LONGEST_FLOW for n in names):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(
                f"@bot.on_flow takes names of 1 to {LONGEST_FLOW} characters without a colon, or nothing: (), not {names!r}"[:300]
            )
        return self._finding([Filled(n) for n in names] or [Kind(FlowReply)], state, "ctx, answer")

    def text(self, *words: str, state: States = None) -> Callable[[H], H]:
        """Texts that are one of these words or phrases; upper and lower case, blanks and marks around them are no matter."""
        if not words or not all(isinstance(w, str) and plain(w) and len(w) <= LONGEST_WORDS for w in words):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"@bot.text takes words, such as @bot.text('yes', 'ok'), not {words!r}")
        return self._adding([Words(plain(w)) for w in words], state, "ctx")

    def pattern(self, expression: str | re.Pattern[str], *, state: States = None) -> Callable[[P], P]:
        """Texts in which a regular expression is found, upper or lower case unless it is compiled. The handler takes its named groups by name."""
        try:
            compiled = re.compile(expression, re.IGNORECASE) if isinstance(expression, str) else expression
        except re.error as error:
            raise ValueError(f"{expression!r} is no regular expression: {error}") from None

        def add(handler: P) -> P:
            named = list(compiled.groupindex)
            check(handler, ", ".join(["ctx", *named]), named=named)
            self._add([Pattern(compiled)], state, handler, takes=False)
            return handler

        return add

    def command(self, *names: str, state: States = None) -> Finding[str]:
        """Texts that begin with `/name`; the handler may take what follows it as its second parameter."""
        bare = [n.removeprefix("/").casefold() for n in names]
        if not bare or not all(_COMMAND.fullmatch(n) for n in bare):
            raise TypeError(f"@bot.command takes words of letters, digits and hyphens, such as @bot.command('help'), not {names!r}")
        return self._finding([Command(n) for n in bare], state, "ctx, rest")

    def fallback(self, handler: H) -> H:
        """The handler of everything that no other takes."""
        check(handler, "ctx")
        self._once.take("fallback", "there is a fallback", handler)
        self._fallback = handler
        return handler

    def unknown_state(self, handler: H) -> H:
        """The handler of states that this code declares nowhere, such as those that an older version left conversations in."""
        check(handler, "ctx")
        self._once.take("unknown_state", "there is a handler of unknown states", handler)
        self.unknown = handler
        return handler

    def observe(self, handler: H) -> H:
        """What follows a message in a conversation that a person holds: it may look and note (`ctx.db`, `ctx.memory`, `ctx.contact`), and cannot speak."""
        check(handler, "ctx")
        self._once.take("observe", "there is an observer", handler)
        self.observer = handler
        return handler

    def error(self, handler: E) -> E:
        """The handler of errors, called with the exception that ended another, when all that one did is undone.

        What it does itself (replies, state, `ctx.db`) is committed in its own right, and the event is over: it is not tried again. If it raises,
        nothing of it is there, and the platform tries the event again as it does without an error handler. So it raises what may pass by
        itself. A time-out, too much memory and an unreachable database do not come here.
        """
        check(handler, "ctx, error")
        self._once.take("error", "there is an error handler", handler)
        self.error_handler = handler
        return handler

    def middleware(self, handler: W) -> W:
        """Around every handler, the first declared outermost: `await call_next()` goes on, not awaiting it ends the call there.

        Going to another state before `call_next` leads the message to that state's handler.
        """
        check(handler, "ctx, call_next")
        self.middlewares.append(handler)
        return handler

    def on_timer(self, name: str) -> Callable[[H], H]:
        """What follows when a timer that was set with `ctx.timers.set(name, ...)` is due; `ctx.event` is a `loquat.Timer`."""
        timer = checked_name("a timer's name", name, LONGEST_TIMER, "@bot.on_timer('name of the timer')")
        if timer.startswith(RESERVED):
            raise TypeError(f"names of timers that begin with {RESERVED!r} are the platform's own, not {timer!r}")

        def add(handler: H) -> H:
            check(handler, "ctx")
            self._once.take(("on_timer", timer), f"the timer {timer!r} has a handler", handler)
            self.timers[timer] = handler
            return handler

        return add

    def on_handback(self, handler: H) -> H:
        """What follows when a conversation that people held is the bot's again: somebody has handed it back, or its time is over.

        `ctx.event` is a `loquat.HandedBack`. It is called in turn with the contact's messages, a second or so later; a message that comes sooner is handled
        before. What was said meanwhile it does not get: `ctx.db` may read it in the table `messages`.
        """
        check(handler, "ctx")
        self._once.take("on_handback", "there is a handler of conversations that are handed back", handler)
        self.timers[HANDBACK] = handler
        return handler

    def schedule(self, when: str, *, tz: str = "UTC", name: str | None = None, catch_up: CatchUp = "once") -> Callable[[S], S]:
        """What is to be done at set times: `@bot.schedule("0 9 * * 1-5", tz="Europe/Berlin")`, as cron has it. Its name is the handler's, unless given.

        A time that the clock skips in spring comes right after the gap, one that it repeats in autumn comes once. Times that were missed while the
        platform stood still follow by `catch_up`: "skip", "once", or "all" (the last 24). `ctx` is a `loquat.ScheduleContext`.
        """

        def add(handler: S) -> S:
            check(handler, "ctx")
            called = name or named(handler)
            self._once.take(("schedule", called), f"the schedule {called!r} has a handler", handler)
            if len(self.schedules) >= MOST_SCHEDULES:
                raise ValueError(f"{where(handler)}: a bot has at most {MOST_SCHEDULES} schedules")
            try:
                self.schedules[called] = schedule(called, when, tz, catch_up, handler)
            except ValueError as error:
                raise ValueError(f"{where(handler)}: {error}") from None
            return handler

        return add

    def tool(self, function: L) -> L:
        """A function that a language model, or a person, may call by name: `async def free_tables(ctx: Context, day: date, people: int = 2) -> list[str]`.

        Its parameters' types become a JSON schema, its docstring what it is for (`Args:` describes parameters). Types are those that JSON can give:
        str, int, float, bool, date, datetime, UUID, Decimal, Literal, enums, lists, dicts, dataclasses, and any of them or None. `ctx.tools` calls it.
        """
        if len(self.tools) >= MOST_TOOLS:
            raise ValueError(f"{where(function)}: a bot has at most {MOST_TOOLS} tools")
        made = tool(function)
        self._once.take(("tool", made.name), f"the tool {made.name!r} is there", function)
        self.tools[made.name] = made
        return function

    def needs(self, table: str, columns: Sequence[str] = ()) -> None:
        """A table that the bot cannot do without, and columns of it: a deployment is refused while they are not there.

        `bot.needs("bookings", ["guest", "starts_at"])`; asked twice for one table, it needs the columns of both.
        """
        names = [table, *([columns] if isinstance(columns, str) else columns)]
        if not all(isinstance(n, str) and 1 <= len(n.encode()) <= LONGEST_NAME for n in names):  # pyright: ignore[reportUnnecessaryIsInstance]
            raise TypeError(f"bot.needs takes a table and columns by name, such as bot.needs('bookings', ['guest']), not {names!r}")
        self.needed[table] = tuple(dict.fromkeys((*self.needed.get(table, ()), *names[1:])))
        if sum(1 + len(found) for found in self.needed.values()) > _MOST_NEEDED:
            raise ValueError(f"bot.needs was given more than {_MOST_NEEDED} tables and columns")

    def config(self, key: str, *, default: Any = MISSING, type: type | None = None, help: str = "") -> None:
        """A key that `ctx.config` has: its type (of `default`, unless it says otherwise) and what it is while nobody has set it.

        `bot.config("greeting", default="Hello")`, `bot.config("limit", type=int, help="orders a day")`. A bot that declares one declares all: keys that
        it does not name, and values of another type, are refused when they are set and when it is deployed.
        """
        if key in self.settings:
            raise ValueError(f"bot.config({key!r}) is declared twice")
        if len(self.settings) >= MOST_SETTINGS:
            raise ValueError(f"a bot has at most {MOST_SETTINGS} keys of configuration")
        self.settings[key] = setting(key, default, type, help)

    @property
    def states(self) -> list[str]:
        """The states that are declared: with a handler, a rule, or something to do on entering."""
        return sorted({*self._states, *self._entering, *(r.state for r in self._rules if r.state is not None)})

    @property
    def declared(self) -> list[Declared]:
        """All handlers, in the order in which they are tried."""
        single = (
            ("unknown state", self.unknown),
            ("fallback", self._fallback),
            ("on error", self.error_handler),
            ("while held", self.observer),
        )
        return [
            *(Declared.of("middleware", None, m) for m in self.middlewares),
            *(Declared.of(str(r.trigger), r.state, r.handler) for r in self._rules),
            *(Declared.of("anything else", s, h) for s, h in self._states.items()),
            *(Declared.of("on entering", s, h) for s, h in self._entering.items()),
            *(Declared.of("handed back" if n == HANDBACK else f'timer "{n}"', None, h) for n, h in self.timers.items()),
            *(Declared.of(str(s), None, s.handler) for s in self.schedules.values()),
            *(Declared.of("tool", None, t.function) for t in self.tools.values()),
            *(Declared.of(when, None, h) for when, h in single if h is not None),
        ]

    def handler(self, state: str) -> Handler | None:
        """Who handles what no rule takes in this state: its own handler, that of unknown states, the fallback, that of the initial state."""
        if (own := self._states.get(state)) is not None:
            return own
        if self.unknown is not None and state != INITIAL and state not in self.states:
            return self.unknown
        return self._fallback or self._states.get(INITIAL)

    def entering(self, state: str) -> Handler | None:
        """What is to be done on entering a state."""
        return self._entering.get(state)

    @property
    def gathers(self) -> bool:
        """Whether there are bursts to be gathered."""
        return any(rule.burst for rule in self._rules)

    def rule(self, message: Message, state: str) -> Rule | None:
        """The rule that takes a message."""
        heard = Heard.of(message)
        return next((rule for rule in self._rules if rule.fits(heard, state) is not None), None)

    def find(self, message: Message, state: str) -> tuple[Function, tuple[Any, ...], dict[str, Any]] | None:
        """The handler of a message in a state, and what it is called with besides the context."""
        heard = Heard.of(message)
        for rule in self._rules:
            if (match := rule.fits(heard, state)) is not None:
                return rule.handler, (match.found,) if rule.takes else (), match.named
        handler = self.handler(state)
        return None if handler is None else (handler, (), {})

    def _finding(self, triggers: Sequence[Trigger], state: States, shape: str, *, burst: float = 0.0) -> Any:
        def add(handler: Function) -> Function:
            takes = check(handler, shape, "ctx") == 0
            self._add(triggers, state, handler, takes=takes, burst=burst)
            return handler

        return add

    def _adding(self, triggers: Sequence[Trigger], state: States, shape: str) -> Callable[[H], H]:
        def add(handler: H) -> H:
            check(handler, shape)
            self._add(triggers, state, handler, takes=False)
            return handler

        return add

    def _add(self, triggers: Sequence[Trigger], state: States, handler: Function, *, takes: bool, burst: float = 0.0) -> None:
        states = [None] if state is None else [_state(s) for s in ([state] if isinstance(state, str) else state)]
        for trigger in triggers:
            for each in states:
                inside = f" in the state {each!r}" if each is not None else ""
                self._once.take((trigger, each), f"{trigger}{inside} has a handler", handler)
                self._rules.append(Rule(trigger, each, next(self._order), handler, takes, burst))
        self._rules.sort(key=lambda rule: rule.precedence)


def _state(name: Any) -> str:
    return checked_name("a state", name, LONGEST_STATE, "@bot.state('name of the state')")


def _chosen(kind: type[Choice], ids: Sequence[str], prefix: str | None) -> list[Chosen | ChosenFrom]:
    given: list[Any] = [*ids, *([prefix] if prefix else [])]
    if bool(ids) == bool(prefix) or not all(isinstance(i, str) and 1 <= len(i) <= _LONGEST_ID for i in given):
        raise TypeError(f"give ids of 1 to {_LONGEST_ID} characters, or prefix='...', one of both, not {given!r}")
    return [ChosenFrom(kind, prefix)] if prefix else [Chosen(kind, i) for i in ids]
