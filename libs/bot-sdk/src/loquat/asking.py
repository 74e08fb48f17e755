"""Questions that a handler asks: kept by the platform while the contact thinks, so they survive restarts and deployments.

A handler with questions is called again from its top with each answer, and the answers that are known are given at once. What it wrote, noted or
set before is undone each time but the last: it becomes true once, when the handler ends.
"""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any, Final, Literal, cast

from loquat import replies
from loquat.messages import Choice, Json, Message, Text
from loquat.rules import plain
from loquat.timers import ASKED, Timer, Timers, happened
from loquat.values import NO_TEXT

MOST_QUESTIONS: Final = 50
"""Questions of one handler."""
LARGEST_NOTES: Final = 48 << 10
"""Bytes of the first message and all answers as JSON: the platform keeps 64 KiB."""
LONGEST_KEY: Final = 60
_LONGEST_WAIT: Final = 366 * 86_400.0
_SPARE: Final = 3600.0
"""Seconds that a question is kept beyond its time when a timer ends it: whichever comes first, the timer or an answer, decides, however late the former."""
_OVER: Final = {"over": True, "seconds": 1}
"""Notes that no question waits any more. They take the place of those that were kept, and are gone in a second."""


class AskAgain(ValueError):
    """Raised in `validate`: the answer will not do. Its text is what the contact is told."""


class NoAnswer(Exception):
    """The contact does not answer: `reason` is `cancelled`, or `tries` when too many answers would not do.

    A handler may catch it. If it does not, it is over, nothing of it is there, and `text` is said, if there is one.
    """

    def __init__(self, reason: Literal["cancelled", "tries"], text: str | None = None) -> None:
        super().__init__(reason)
        self.reason, self.text = reason, text


class Waiting(BaseException):
    """Ends a call at a question. No `except Exception` of a bot stops it."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked, and what will do as an answer."""

    prompt: str
    key: str | None = None
    validate: Callable[[str], Any] | None = None
    again: str | None = None
    tries: int = 3
    choices: Sequence[tuple[str, str]] = ()
    cancel: Sequence[str] = ()
    no_answer: str | None = None
    timeout: timedelta | float | None = None
    timeout_text: str | None = None

    def __post_init__(self) -> None:
        if self.timeout_text is not None:
            replies.text(self.timeout_text)
            if self.timeout is None:
                raise ValueError("a timeout_text is said after a timeout: give both")
        if self.tries < 1:
            raise ValueError(f"tries is at least 1, not {self.tries}")
        if self.key is not None and (not 1 <= len(self.key) <= LONGEST_KEY or NO_TEXT.search(self.key)):
            raise ValueError(f"a question's key has 1 to {LONGEST_KEY} characters, and no U+0000 or half a character")

    def heard(self, message: Message) -> str | None:
        """The answer in a message: a text, or the id of what was chosen; None: it is none."""
        if isinstance(message, Choice):
            return message.choice_id if not self.choices or message.choice_id in dict(self.choices) else None
        if not isinstance(message, Text):
            return None
        if not self.choices:
            return message.text
        return next((i for i, title in self.choices if plain(message.text) in {plain(title), plain(i)}), None)

    def calls_off(self, message: Message) -> bool:
        """Whether the contact will not go on."""
        return isinstance(message, Text) and plain(message.text) in {plain(word) for word in self.cancel}


@dataclass(slots=True)
class Asks:
    """The questions of one call: those that are answered, and the one that waits for this message."""

    answers: dict[str, str] = field(default_factory=dict[str, str])
    pending: str | None = None
    tries: int = 0
    handler: str = ""
    state: str = ""
    first: Json | None = None
    arrived: Message | None = None
    """The message of this call, while it may be the answer."""
    timed: bool = False
    """A timer ends it."""
    gone: bool = False
    """There was a question, and the code that asked it is not there any more."""
    notes: Json | None = None
    """What the platform is to keep: set when the call ends at a question."""
    timers: list[Json] = field(default_factory=list[Json])
    """What is to be set or cancelled with them."""
    _asked: list[str] = field(default_factory=list[str])

    @classmethod
    def of(cls, notes: Mapping[str, Any] | None, event: object) -> Asks:
        """From what was kept. What cannot be read is as if nothing had been asked."""
        timer = isinstance(event, Timer)
        if notes is None or "over" in notes or not isinstance(event, Message) or (timer and event.name != ASKED):
            return cls()
        try:
            first, answers = cast("Json", notes["event"]), cast("dict[str, Any]", notes["answers"])
            happened(first)
            kept = {str(k): str(v) for k, v in answers.items()}
            tried, handler, state = int(notes["tries"]), str(notes["handler"]), str(notes["state"])
            return cls(kept, str(notes["pending"]), tried, handler, state, first, None if timer else event, bool(notes.get("timed")))
        except (KeyError, TypeError, ValueError, AttributeError):
            return cls(gone=True)

    @property
    def original(self) -> Message | None:
        """The message, or the timer, whose handler asks; None: no question waits for this message."""
        return happened(self.first) if self.arrived is not None and self.first is not None else None

    def forget(self, *, gone: bool = False) -> None:
        """This message is no answer."""
        self.answers, self.pending, self.tries, self.first, self.arrived, self.gone = {}, None, 0, None, None, gone

    def begin(self, handler: str, event: Message) -> None:
        """The handler that may ask, and the message, or the timer, that it is for."""
        self.handler = handler
        if isinstance(event, Timer):
            self.first = {"id": str(event.id), "timer": {"name": event.name, "data": event.data, "due_at": event.due_at.isoformat()}}
        else:
            burst = {"texts": list(event.texts)} if isinstance(event, Text) and len(event.texts) > 1 else {}
            said = {"type": event.type, "text": event.text, "content": event.content, **burst}
            self.first = {"id": str(event.id), **said, "wamid": event.wamid, "reply_to": event.reply_to}

    async def answer(self, question: Question) -> tuple[Literal["answered", "asked", "again"], Any]:
        """What `validate` made of the answer; or what is to be said, for the first time or again.

        Raises:
            NoAnswer: cancelled, or tried too often.
            ValueError: too many questions.
        """
        if len(self._asked) >= MOST_QUESTIONS:
            raise ValueError(f"a handler asks at most {MOST_QUESTIONS} questions")
        key = self._key(question)
        self._asked.append(key)
        if key in self.answers:
            fits, value, _ = await _validated(question, self.answers[key])
            if fits:
                return "answered", value
            del self.answers[key]  # the code has changed
        elif key == self.pending and self.arrived is not None:
            return await self._arrival(question, key)
        self.pending, self.tries, self.arrived = key, 0, None
        return "asked", question.prompt

    async def _arrival(self, question: Question, key: str) -> tuple[Literal["answered", "again"], Any]:
        message, self.arrived = self.arrived, None
        if message is None or question.calls_off(message):
            raise NoAnswer("cancelled", question.no_answer)
        heard, again = question.heard(message), question.again or question.prompt
        if heard is not None:
            fits, value, said = await _validated(question, heard)
            if fits:
                self.answers[key] = heard
                return "answered", value
            again = said or again
        self.tries += 1
        if self.tries >= question.tries:
            raise NoAnswer("tries", question.no_answer)
        return "again", again

    def wait(self, question: Question, timers: Timers) -> None:
        """Notes what is to be kept until the answer comes, and the timer that ends it, if something is to be said then.

        Raises:
            ValueError: it is too much.
        """
        kept = {"handler": self.handler, "state": self.state, "event": self.first, "answers": self.answers}
        wait, timed = seconds("timeout", question.timeout), question.timeout_text is not None
        self.timers = timers.of_question(wait, question.timeout_text)
        wait = min(wait + _SPARE, _LONGEST_WAIT) if wait is not None and timed else wait
        self.notes = {**kept, "pending": self.pending, "tries": self.tries, "seconds": wait, **({"timed": True} if timed else {})}
        if len(json.dumps(self.notes).encode()) > LARGEST_NOTES:
            raise ValueError(f"the message that began this and its answers have more than {LARGEST_NOTES} bytes")

    def time_out(self, state: str) -> bool:
        """Ends the question that a timer was set for; whether there is one still."""
        if not self.timed or self.state != state:
            return False
        self.notes = dict(_OVER)
        return True

    def _key(self, question: Question) -> str:
        """A question asked twice under one key, as in a loop, is another one each time."""
        key = question.key or "question"
        times = sum(1 for k in self._asked if k == key or k.startswith(f"{key} #"))
        return key if times == 0 else f"{key} #{times + 1}"


async def _validated(question: Question, heard: str) -> tuple[bool, Any, str | None]:
    if question.validate is None:
        return True, heard, None
    try:
        value = question.validate(heard)
        return True, (await value if inspect.isawaitable(value) else value), None
    except AskAgain as refused:
        return False, None, str(refused) or None
    except ValueError:
        return False, None, None


def seconds(what: str, given: timedelta | float | None) -> float | None:
    """A time to wait.

    Raises:
        ValueError: less than a second, or more than 366 days.
    """
    if given is None:
        return None
    known = given.total_seconds() if isinstance(given, timedelta) else float(given)
    if not 1 <= known <= _LONGEST_WAIT:
        raise ValueError(f"{what} is 1 second to 366 days, not {known:g} s")
    return known
