"""`ctx.timers`: what is to happen later in this conversation. Set with the handler's result: with its replies, or not at all."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from loquat.database import DatabaseAway
from loquat.messages import Json, Message, read
from loquat.values import DEEPEST, NO_TEXT, as_json

LONGEST_NAME: Final = 60
RESERVED: Final = "loquat:"
"""How the names of the platform's own timers begin."""
ASKED: Final = "loquat:asked"
"""The time of a question is over, for which something is to be said."""
HANDBACK: Final = "loquat:handback"
"""A conversation that people held is the bot's again."""
LARGEST_DATA: Final = 16 << 10
"""Bytes of a timer's data as JSON."""
MOST_TIMERS: Final = 50
"""Timers of one conversation at once."""
MOST_CHANGED: Final = 20
"""Timers that one call sets or cancels."""
SOONEST: Final = timedelta(seconds=1)
LATEST: Final = timedelta(days=366)


class TimerRefused(ValueError):
    """This timer cannot be set. The text names what it is and the limit. Nothing has changed, and the handler may go on."""


@dataclass(frozen=True, slots=True)
class Timer(Message):
    """A timer of this conversation is due: what `@bot.on_timer(name)` gets as `ctx.event`. `data` is what it was set with, `due_at` its time (UTC)."""

    name: str
    data: Any
    due_at: datetime


@dataclass(frozen=True, slots=True)
class HandedBack(Timer):
    """The conversation is the bot's again: what `@bot.on_handback` gets as `ctx.event`. `due_at` is since when."""

    @property
    def held_by(self) -> Literal["person", "people", "phone"]:
        """Who held it last: a person, people (nobody yet), or the phone app."""
        return self.data["held_by"]

    @property
    def lapsed(self) -> bool:
        """Whether the time of the hold was over; otherwise somebody has handed it back."""
        return bool(self.data["lapsed"])


def happened(event: Mapping[str, Any]) -> Message:
    """What a call's `event` is: a timer, or what a contact sent."""
    if (timer := event.get("timer")) is None:
        return read(event)
    kind = HandedBack if timer["name"] == HANDBACK else Timer
    return kind(UUID(event["id"]), "timer", None, {}, None, None, timer["name"], timer.get("data"), datetime.fromisoformat(timer["due_at"]))


class Timers:
    """Named per conversation: setting one again moves it. When it is due `@bot.on_timer(name)` is called, in turn with the contact's messages.

    A timer is gone when the conversation is closed. While a person holds the conversation, or the bot is not there, it passes without a call.
    """

    def __init__(self, now: datetime, known: Collection[str] | None = ()) -> None:
        """`known` are those that are set; None: nobody can know now."""
        self._now, self._known = now, known
        self._changes: dict[str, Json] = {}

    @property
    def changes(self) -> list[Json]:
        """What was set and cancelled in this call, for its result."""
        return list(self._changes.values())

    @property
    def names(self) -> frozenset[str]:
        """Those that are set, with what this call has changed."""
        before = {n for n in self._known or () if n not in self._changes and not n.startswith(RESERVED)}
        return frozenset(before | {n for n, change in self._changes.items() if change["at"] is not None})

    async def set(
        self, name: str, *, after: timedelta | None = None, at: datetime | None = None, data: Any = None, until_answer: bool = False
    ) -> None:
        """Calls `@bot.on_timer(name)` after this time, or at it: from a second to 366 days from now. A time that is past is a second from now.

        With `until_answer` the contact's next message cancels it: "if there is no answer in two hours".

        Raises:
            TimerRefused: the time is none, the data has more than 16 KiB or 32 levels, or there are too many.
        """
        _check_name(name)
        due = _due(self._now, after, at)
        text = as_json(data, f"the data of the timer {name!r}", LARGEST_DATA, TimerRefused, deepest=DEEPEST)
        others = sum(n.startswith(RESERVED) for n in self._known or ())
        if name not in self.names and len(self.names) + others >= MOST_TIMERS:
            raise TimerRefused(f"a conversation has at most {MOST_TIMERS} timers at once")
        self._change({"name": name, "at": due.isoformat(), "data": json.loads(text), "until_answer": bool(until_answer)})

    async def cancel(self, name: str) -> bool:
        """Whether it was set."""
        _check_name(name)
        was_set = name in self.names
        if was_set:
            self._change({"name": name, "at": None})
        return was_set

    def of_question(self, after: float | None, text: str | None) -> list[Json]:
        """What a question that waits changes: it has a timer that says `text` after so many seconds, or none.

        Raises:
            TimerRefused: there are too many.
        """
        known = self._known or ()
        if after is None or text is None:
            return [{"name": ASKED, "at": None}] if ASKED in known else []
        if self._known is None:
            raise DatabaseAway("the project's database is being brought forward")
        if ASKED not in known and len(known) >= MOST_TIMERS:
            raise TimerRefused(f"a conversation has at most {MOST_TIMERS} timers at once, and a question with a timeout_text needs one")
        due = _due(self._now, timedelta(seconds=after), None)
        return [{"name": ASKED, "at": due.isoformat(), "data": {"text": text}, "until_answer": True}]

    def _change(self, change: Json) -> None:
        if self._known is None:
            raise DatabaseAway("the project's database is being brought forward")
        if change["name"] not in self._changes and len(self._changes) >= MOST_CHANGED:
            raise TimerRefused(f"one call sets and cancels at most {MOST_CHANGED} timers")
        self._changes[change["name"]] = change


def _check_name(name: object) -> None:
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME or NO_TEXT.search(name):
        raise TimerRefused(f"a timer's name is a text of 1 to {LONGEST_NAME} characters, not {name!r}"[:200])
    if name.startswith(RESERVED):
        raise TimerRefused(f"names of timers that begin with {RESERVED!r} are the platform's own, such as {name!r}")


def _due(now: datetime, after: timedelta | None, at: datetime | None) -> datetime:
    if (after is None) == (at is None):
        raise TimerRefused("a timer has a time: give after=timedelta(...) or at=datetime(...), one of both")
    if after is not None:
        if not isinstance(after, timedelta) or not timedelta(0) <= after <= LATEST:  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise TimerRefused(f"after is a timedelta of at most {LATEST.days} days, such as timedelta(hours=2), not {after!r}"[:200])
        at = now + after
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise TimerRefused(f"at is a datetime with its zone, such as datetime.now(UTC), not {at!r}"[:200])
    if at - now > LATEST:
        raise TimerRefused(f"a timer is due within {LATEST.days} days; this is {at.isoformat()}")
    return max(at.astimezone(UTC), now.astimezone(UTC) + SOONEST)
