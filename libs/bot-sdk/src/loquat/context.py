"""What a handler gets: the event, the contact, the conversation's state, the database, and ways to answer."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loquat import replies
from loquat.database import Database
from loquat.messages import Message

MOST_REPLIES: Final = 50
"""Replies of one call: what the platform stores with its result."""
LONGEST_STATE: Final = 60
_LARGEST: Final = 240 << 10
"""Bytes of the replies of one call as JSON: the platform stores 256 KiB, the state's name and the spaces between included."""
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")


@dataclass(frozen=True, slots=True)
class Contact:
    """Who wrote."""

    id: UUID
    name: str | None


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


class Context:
    """One call. Replies are collected and sent in order when the handler ends well; if it fails, nothing is said and nothing is written.

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
    ) -> None:
        self.event, self.contact, self.conversation = event, contact, conversation
        self.db, self.log, self.now = database, log, now
        self._state, self._next = state, state
        self._entered = True
        self._replies: list[replies.Reply] = []
        self._bytes = 0
        self._ends = False

    @property
    def state(self) -> str:
        """The conversation's state; assign to change it from the next event on."""
        return self._next

    @state.setter
    def state(self, name: str) -> None:
        if not (isinstance(name, str) and 1 <= len(name) <= LONGEST_STATE):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
            raise ValueError(f"a state's name has 1 to {LONGEST_STATE} characters; this is {name!r}"[:200])
        if _NO_TEXT.search(name):
            raise ValueError("a state's name holds U+0000 or half a character, which is no text")
        self._next = name
        self._entered = False

    def goto(self, state: str) -> None:
        """The same as assigning to `state`. What is declared with `@bot.on_enter(state)` follows when the handler has ended."""
        self.state = state

    def end(self) -> None:
        """Closes the conversation; the contact's next message opens a new one."""
        self._ends = True

    @property
    def replies(self) -> tuple[replies.Reply, ...]:
        """What was said in this call so far."""
        return tuple(self._replies)

    def reply(self, reply: replies.Reply) -> None:
        """Says what was made with `loquat.replies` before, such as a menu that is the same everywhere."""
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

    def reply_image(self, link: str, caption: str | None = None) -> None:
        """Shows a picture at an https address."""
        self.reply(replies.image(link, caption))

    def entering(self) -> str | None:
        """The state that is gone to and was not entered yet, once; None: none, or the conversation ends."""
        if self._entered or self._ends:
            return None
        self._entered = True
        return self._next

    def result(self) -> dict[str, Any]:
        """What the platform makes true."""
        return {
            "replies": [reply.wire() for reply in self._replies],
            **({"state": self._next} if self._next != self._state else {}),
            **({"end": True} if self._ends else {}),
        }
