"""What a handler gets: the event, the contact, the conversation's state, the database, and ways to answer."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Final, TypeVar, overload
from uuid import UUID

from loquat import replies
from loquat.asking import Asks, NoAnswer, Question, Waiting, seconds
from loquat.bursts import Following
from loquat.config import Config, Secrets
from loquat.contact import Contact
from loquat.database import Database
from loquat.media import Files, Uploaded
from loquat.memory import Memory
from loquat.messages import Message
from loquat.outside import Outside
from loquat.timers import Timers
from loquat.tools import Tool, Tools
from loquat.values import NO_TEXT
from loquat.voice import Voice
from loquat.web import Http

MOST_REPLIES: Final = 50
"""Replies of one call: what the platform stores with its result."""
LONGEST_STATE: Final = 60
LONGEST_NOTE: Final = 1000
"""Characters of what a handoff says to people."""
_LARGEST: Final = 240 << 10
"""Bytes of the replies of one call as JSON: the platform stores 256 KiB, the state's name and the spaces between included."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Conversation:
    """The open conversation with the contact."""

    id: UUID
    number_id: str


class Log:
    """Lines for the project's log. Runner and owner see them; other projects never."""

    def __init__(self, write: Callable[[str, str], None]) -> None:
        self._write = write

    def info(self, text: object) -> None:
        """A line."""
        self._write("info", str(text))

    def warning(self, text: object) -> None:
        """A line that somebody should look at."""
        self._write("warning", str(text))

    def error(self, text: object) -> None:
        """A line that somebody must look at."""
        self._write("error", str(text))


@dataclass(frozen=True, slots=True)
class Means:
    """What a handler has besides the message and its own transaction."""

    memory: Memory
    pool: Outside
    http: Http
    media: Files
    config: Config = field(default_factory=lambda: Config({}, {}))
    secrets: Secrets = field(default_factory=lambda: Secrets({}))
    tools: Mapping[str, Tool] = field(default_factory=dict[str, Tool])


class Watching(RuntimeError):
    """A person holds the conversation: an observer may look and note, and cannot speak, go to a state, ask, hand over or end."""

    def __init__(self, what: str) -> None:
        super().__init__(f"{what}: {self.__doc__}")


@dataclass(frozen=True, slots=True)
class Manner:
    """How this call is: whether the bot only watches, whether texts are joined, and the questions of its handler (None: none may be asked)."""

    observing: bool = False
    join_texts: bool = False
    asks: Asks | None = None
    following: Following | None = None
    voice: Voice = field(default_factory=Voice)


class Context:
    """One call. Replies are collected and sent in order when the handler ends well; if it fails, nothing is said (but by `reply_now`) and nothing is written.

    `now` is when the call began, with its zone (UTC): in a test it is the fake clock's. A repeated call of the same event has another.
    """

    def __init__(
        self,
        event: Message,
        contact: Contact,
        conversation: Conversation,
        state: str,
        database: Database,
        log: Log,
        now: datetime,
        means: Means,
        timers: Timers | None = None,
        manner: Manner | None = None,
    ) -> None:
        self.manner = manner or Manner()
        self._hold: dict[str, Any] | None = None
        self.joins: tuple[UUID, ...] = ()
        self.timers = timers or Timers(now)
        self.event, self.contact, self.conversation = event, contact, conversation
        self.db, self.log, self.now = database, log, now
        self.memory, self.pool, self.http, self.media = means.memory, means.pool, means.http, means.media
        self.config, self.secrets, self._tools = means.config, means.secrets, means.tools
        self._state, self._next = state, state
        self._entered = True
        self._replies: list[replies.Reply] = []
        self._bytes = 0
        self._ends = False

    @property
    def tools(self) -> Tools:
        """The bot's tools, to be listed and called."""
        return Tools(self._tools, self)

    @property
    def state(self) -> str:
        """The conversation's state; assign to change it from the next event on."""
        return self._next

    @state.setter
    def state(self, name: str) -> None:
        if not (isinstance(name, str) and 1 <= len(name) <= LONGEST_STATE):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise ValueError(f"a state's name has 1 to {LONGEST_STATE} characters; this is {name!r}"[:200])
        self._speaking("state")
        if NO_TEXT.search(name):
            raise ValueError("a state's name holds U+0000 or half a character, which is no text")
        self._next = name
        self._entered = False

    def goto(self, state: str) -> None:
        """The same as assigning to `state`. What is declared with `@bot.on_enter(state)` follows when the handler has ended."""
        self.state = state

    def end(self) -> None:
        """Closes the conversation; the contact's next message opens a new one."""
        self._speaking("end")
        self._ends = True

    async def handoff(self, *, timeout: timedelta | float | None = None, note: str | None = None) -> None:  # noqa: ASYNC109  (kept, not awaited)
        """Leaves the conversation to people, when the handler has ended: the bot hears nothing until one of them hands it back, or the time is over.

        `timeout` in seconds, unless it is a timedelta; None: until somebody hands it back. `note`, at most 1,000 characters, is for people.
        """
        self._speaking("handoff")
        if note is not None and (not 1 <= len(note) <= LONGEST_NOTE or NO_TEXT.search(note)):
            raise ValueError(f"a note has 1 to {LONGEST_NOTE} characters")
        self._hold = {"seconds": seconds("timeout", timeout), "note": note}

    @overload
    async def ask(
        self, prompt: str, *, key: str | None = None, again: str | None = None, tries: int = 3, choices: Sequence[tuple[str, str]] = (),
        cancel: Sequence[str] = (), no_answer: str | None = None, timeout: timedelta | float | None = None,  # noqa: ASYNC109
        timeout_text: str | None = None,
    ) -> str: ...  # fmt: skip
    @overload
    async def ask(
        self, prompt: str, *, validate: Callable[[str], Awaitable[T] | T], key: str | None = None, again: str | None = None, tries: int = 3,
        choices: Sequence[tuple[str, str]] = (), cancel: Sequence[str] = (), no_answer: str | None = None, timeout: timedelta | float | None = None,  # noqa: ASYNC109
        timeout_text: str | None = None,
    ) -> T: ...  # fmt: skip
    async def ask(self, prompt: str, **more: Any) -> Any:
        """Asks, and ends the call; with the contact's answer the handler is called again from its top, and gets it here.

        So what stands before a question runs again with each answer. What it writes through `ctx.db` and `ctx.memory`, notes and sets is undone
        until the handler ends, and becomes true once; what it says was said the first time. What it does outside (`ctx.http`, `ctx.pool`) is done
        again: put it behind the last question, or give it `ctx.event.id`, which stays that of the message that began this.

        `validate` takes the text, or the id of a choice, and gives what `ask` gives; with ValueError it refuses: the contact is asked `again` (else
        the prompt), or told the text of an AskAgain, `tries` times. `choices` are up to 3 buttons or 10 rows, (id, title). A word of `cancel`, or one try too
        many, raises NoAnswer. After `timeout` the question is forgotten, `timeout_text` is said, and a message is a new one; of the handler nothing is
        called then. `key` names the question for deployments that change their order.

        Raises:
            NoAnswer: `no_answer` is said if the handler does not catch it.
        """
        self._speaking("ask")
        asks, question = self.manner.asks, Question(prompt, **more)
        if asks is None:
            raise RuntimeError("questions are asked in the handler of a message or a timer, not here")
        try:
            what, found = await asks.answer(question)
        except NoAnswer:
            self._unsay()
            raise
        if what != "asked":  # what was said before was said the first time
            self._unsay()
        if what == "answered":
            return found
        self._say(found, question.choices)
        asks.wait(question, self.timers)
        raise Waiting

    def time_out(self, text: str) -> None:
        """Says this if the question that it was meant for still waits, which then does not any more."""
        if self.manner.asks is not None and self.manner.asks.time_out(self.state):
            self.reply_text(text)

    def _say(self, prompt: str, choices: Sequence[tuple[str, str]]) -> None:
        if not choices:
            self.reply_text(prompt)
        elif len(choices) <= replies.MOST_BUTTONS:
            self.reply_buttons(prompt, choices)
        else:
            self.reply_list(prompt, "\N{HORIZONTAL ELLIPSIS}", choices)

    def _unsay(self) -> None:
        self._replies.clear()
        self._bytes = 0

    def _speaking(self, what: str) -> None:
        if self.manner.observing:
            raise Watching(what)

    @property
    def replies(self) -> tuple[replies.Reply, ...]:
        """What was said in this call so far."""
        return tuple(self._replies)

    def reply(self, reply: replies.Reply) -> None:
        """Says what was made with `loquat.replies` before, such as a menu that is the same everywhere."""
        self._speaking("reply")
        size = len(json.dumps(reply.wire()))
        if len(self._replies) >= MOST_REPLIES:
            raise replies.ReplyRefused(f"one call gives at most {MOST_REPLIES} replies")
        if self._bytes + size > _LARGEST:
            raise replies.ReplyRefused(f"the replies of one call have more than {_LARGEST} bytes")
        self._bytes += size
        self._replies.append(reply)

    def reply_text(self, text: str) -> None:
        """Says a text of at most 4,096 characters."""
        self.reply(replies.text(text))

    def reply_buttons(self, text: str, buttons: Sequence[tuple[str, str]]) -> None:
        """Says a text with at most 3 buttons, each (id, title); titles have at most 20 characters."""
        self.reply(replies.buttons(text, buttons))

    def reply_list(self, text: str, button: str, rows: replies.Rows) -> None:
        """Says a text with a list of at most 10 rows, each (id, title) or (id, title, description), behind a button."""
        self.reply(replies.choices(text, button, rows))

    def reply_image(self, source: str | Uploaded, caption: str | None = None) -> None:
        """Shows a picture at an https address, or one that was uploaded."""
        self.reply(replies.image(source, caption))

    def reply_video(self, source: str | Uploaded, caption: str | None = None) -> None:
        """Shows a video at an https address, or one that was uploaded."""
        self.reply(replies.video(source, caption))

    def reply_document(self, source: str | Uploaded, caption: str | None = None, *, name: str | None = None) -> None:
        """Gives a document at an https address, or one that was uploaded; `name` is what it is called on the phone."""
        self.reply(replies.document(source, caption, name=name))

    def reply_audio(self, source: str | Uploaded) -> None:
        """Plays a sound at an https address, or one that was uploaded."""
        self.reply(replies.audio(source))

    def reply_sticker(self, source: str | Uploaded) -> None:
        """Shows a sticker at an https address, or one that was uploaded."""
        self.reply(replies.sticker(source))

    async def reply_now(self, reply: str | replies.Reply) -> None:
        """Says something at once, before the handler ends, a text or what was made with `loquat.replies`; returns when it is certain to be sent.

        It stays said if the handler fails, and is said once: a repeated run, or one that `ask` has begun again, comes to the same place and goes on.
        So what stands before it must lead there again; another text at the same place is not said. At most 10 in one call.

        Raises:
            ReplyRefused: WhatsApp would refuse it, or it is one too many.
            NotSaid: it is not said; the text says why.
        """
        self._speaking("reply_now")
        await self.manner.voice.say(self.event.id, replies.text(reply) if isinstance(reply, str) else reply)

    async def typing(self) -> None:
        """Shows the contact that his message was read and an answer is being written, until one comes or 25 seconds are over.

        Best effort: it returns at once and never fails. A timer without a message to answer shows nothing.
        """
        self._speaking("typing")
        self.manner.voice.typing()

    def reply_flow(
        self, text: str, button: str, name: str, *, id: str | None = None, token: str | None = None, screen: str | None = None,
        data: Mapping[str, Any] | None = None,
    ) -> None:  # fmt: skip
        """Says a text with a button that opens a form of WhatsApp Flows, whose answer `@bot.on_flow(name)` gets. See `loquat.replies.flow`."""
        self.reply(replies.flow(text, button, name, id=id, token=token, screen=screen, data=data))

    def entering(self) -> str | None:
        """The state that is gone to and was not entered yet, once; None: none, or the conversation ends."""
        if self._entered or self._ends:
            return None
        self._entered = True
        return self._next

    def result(self) -> dict[str, Any]:
        """What the platform makes true.

        Raises:
            ReplyRefused: replies, timers and what is noted of the contact are too much for one call.
        """
        changes, timers = self.contact.changes, self.timers.changes
        if (changes or timers) and self._bytes + len(json.dumps([changes, timers])) > _LARGEST:
            raise replies.ReplyRefused(f"replies, timers and what is noted of the contact have more than {_LARGEST} bytes together")
        return {
            "replies": self._said(),
            **({"hold": self._hold} if self._hold is not None else {}),
            **self._joined(),
            **({"state": self._next} if self._next != self._state else {}),
            **({"end": True} if self._ends else {}),
            **({"contact": changes} if changes else {}),
            **({"timers": timers} if timers else {}),
        }

    def question(self) -> dict[str, Any]:
        """What the platform makes true of a call that ended at a question, or for want of an answer: what is said, and what is kept.

        Raises:
            ReplyRefused: that is too much for one call.
        """
        notes, timers = (self.manner.asks.notes, self.manner.asks.timers) if self.manner.asks is not None else (None, [])
        if notes is not None and self._bytes + len(json.dumps(notes)) > _LARGEST:
            raise replies.ReplyRefused(f"the replies and what is kept of the question have more than {_LARGEST} bytes together")
        kept = {**({"ask": notes} if notes is not None else {}), **({"timers": timers} if timers else {})}
        return {"replies": self._said(), **kept, **self._joined()}

    def _joined(self) -> dict[str, Any]:
        return {"joins": [str(i) for i in self.joins]} if self.joins else {}

    def _said(self) -> list[dict[str, Any]]:
        return [reply.wire() for reply in (replies.joined(self._replies) if self.manner.join_texts else self._replies)]
