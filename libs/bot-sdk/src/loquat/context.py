"""What a handler gets: the event, the contact, the conversation's state, the database, and ways to answer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final
from uuid import UUID

from loquat import replies
from loquat.database import Database

MOST_REPLIES: Final = 50
"""Replies of one call: what the platform stores with its result."""
LONGEST_STATE: Final = 60


@dataclass(frozen=True, slots=True)
class Message:
    """What happened. `id` is the same however often the event is handled: the idempotency key of effects outside the database."""

    id: UUID
    type: str
    text: str | None
    content: dict[str, Any]
    wamid: str | None
    reply_to: str | None

    @property
    def button_id(self) -> str | None:
        """The id of the button or list row that was chosen; None for anything else."""
        for kind in ("button_reply", "list_reply"):
            chosen = self.content.get(kind)
            if isinstance(chosen, dict):
                return str(chosen.get("id"))  # pyright: ignore[reportUnknownMemberType, reportUnknownArgumentType]
        payload = self.content.get("payload")
        return str(payload) if payload is not None else None


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
    """One call. Replies are collected and sent in order when the handler ends well; if it fails, nothing is said and nothing is written."""

    def __init__(self, event: Message, contact: Contact, conversation: Conversation, state: str, database: Database, log: Log) -> None:
        self.event, self.contact, self.conversation = event, contact, conversation
        self.db, self.log = database, log
        self._state, self._next = state, state
        self._replies: list[replies.Reply] = []
        self._ends = False

    @property
    def state(self) -> str:
        """The conversation's state; assign to change it from the next event on."""
        return self._next

    @state.setter
    def state(self, name: str) -> None:
        if not 1 <= len(name) <= LONGEST_STATE:
            raise ValueError(f"a state's name has 1 to {LONGEST_STATE} characters")
        self._next = name

    def goto(self, state: str) -> None:
        """The same as assigning to `state`."""
        self.state = state

    def end(self) -> None:
        """Closes the conversation; the contact's next message opens a new one."""
        self._ends = True

    def reply_text(self, text: str) -> None:
        """Says a text of at most 4,096 characters."""
        self._say(replies.text(text))

    def reply_buttons(self, text: str, buttons: Sequence[tuple[str, str]]) -> None:
        """Says a text with at most 3 buttons, each (id, title); titles have at most 20 characters."""
        self._say(replies.buttons(text, buttons))

    def reply_list(
        self, text: str, button: str, rows: Sequence[tuple[str, str] | tuple[str, str, str]] | Mapping[str, Sequence[tuple[str, ...]]]
    ) -> None:
        """Says a text with a list of at most 10 rows, each (id, title) or (id, title, description), behind a button."""
        self._say(replies.choices(text, button, rows))

    def reply_image(self, link: str, caption: str | None = None) -> None:
        """Shows a picture at an https address."""
        self._say(replies.image(link, caption))

    def _say(self, reply: replies.Reply) -> None:
        if len(self._replies) >= MOST_REPLIES:
            raise replies.ReplyRefused(f"one call gives at most {MOST_REPLIES} replies")
        self._replies.append(reply)

    def result(self) -> dict[str, Any]:
        """What the platform makes true."""
        return {
            "replies": self._replies,
            **({"state": self._next} if self._next != self._state else {}),
            **({"end": True} if self._ends else {}),
        }
