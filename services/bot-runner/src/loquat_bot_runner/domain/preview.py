"""A simulated contact, what he does, and what came of it. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal, cast
from uuid import UUID, uuid5

from loquat_events.conversations import Address, InboundMessage, MessageReceived

Where = Literal["clone", "live"]
NUMBER: Final = "preview"
"""In place of a number of the project's: no connector has one of this name."""
BEGUN: Final = "A preview: this contact is simulated, and what the bot says to him is not sent."
_MOST_LINES: Final = 500
_LONGEST_LINE: Final = 4_000
_NAMES: Final = UUID("6f0d2c1e-6c39-4a57-9d0c-5a7b5b8f5f0d")


class CannotPreview(Exception):
    """Not now, but a little later. `code` and the text are for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code


@dataclass(frozen=True, slots=True)
class Act:
    """What the contact does, in the form that messages have on the inbox."""

    type: str
    text: str | None = None
    content: dict[str, Any] | None = None
    reply_to: str | None = None


@dataclass(frozen=True, slots=True)
class Asked:
    """A step of a preview. `key` names the preview; `goes_on`: it was begun before."""

    where: Where
    key: UUID
    goes_on: bool
    version: str
    act: Act
    contact: Mapping[str, Any] | None = None

    @property
    def name(self) -> str:
        """As callers know it."""
        return f"{self.where}_{self.key.hex}"

    def noted(self) -> dict[str, Any] | None:
        """What is noted of the contact before the bot is called; None: nothing new. In the live database people see that he is none."""
        if self.goes_on and self.contact is None:
            return None
        given = {k: v for k, v in (self.contact or {}).items() if v is not None}
        if not self.goes_on:
            given.setdefault("name", "Preview")
        if self.where == "live":
            given["attributes"] = {**given.get("attributes", {}), "preview": self.name}
        return given


def address(key: UUID) -> Address:
    """A name that WhatsApp gives nobody, of the one kind of address to which nothing can be sent."""
    return Address(kind="username", value=f"preview:{key.hex}")


def received(asked: Asked, act: Act, event: UUID, now: datetime) -> MessageReceived:
    """The message as the gateway would have told of it."""
    shown = {"type": act.type, "text": act.text, "content": act.content}
    message = InboundMessage(
        type=act.type,
        text=act.text,
        content=act.content,
        wamid=f"preview.{uuid5(_NAMES, str(event)).hex}",
        reply_to=act.reply_to,
        raw=json.dumps({k: v for k, v in shown.items() if v is not None}),
    )
    return MessageReceived(number_id=NUMBER, addresses=(address(asked.key),), message=message, sent_at=now)


@dataclass(slots=True)
class Lines:
    """What a bot logs and prints, as far as somebody reads it."""

    kept: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])

    def write(self, _event: str | None, level: str, text: str) -> None:
        """Beyond the limit the newest are dropped, and that is said."""
        for line in text.replace("\0", "").splitlines():
            if len(self.kept) < _MOST_LINES and line.strip():
                self.kept.append((level, line[:_LONGEST_LINE]))
            elif len(self.kept) == _MOST_LINES:
                self.kept.append(("warning", f"more than {_MOST_LINES} lines: the rest is not shown"))


@dataclass(slots=True)
class Seen:
    """What came of a step."""

    outcome: str = "handled"
    contact_id: UUID | None = None
    conversation_id: UUID | None = None
    replies: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    state_before: str | None = None
    state: str | None = None
    ended: bool = False
    holder: str | None = None
    needs_attention: bool = False
    noted: dict[str, Any] | None = None
    timers: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    touched: dict[str, int] = field(default_factory=dict[str, int])
    duration_ms: float | None = None
    queries: int | None = None
    log: Sequence[tuple[str, str]] = ()
    error: str | None = None
    trace: str | None = None
    expires_at: datetime | None = None

    def held_by(self, holder: Mapping[str, Any] | None) -> None:
        """The conversation as it is now."""
        if holder is not None:
            self.state, self.holder, self.needs_attention = holder["state"], holder["holder"], holder["needs_attention"]


def is_huge(value: Any) -> bool:
    """Whether a whole number in it has more than 64 bits, which nobody writes on the way to the database."""
    if isinstance(value, dict):
        return any(is_huge(v) for v in cast("dict[Any, Any]", value).values())
    if isinstance(value, list | tuple):
        return any(is_huge(v) for v in cast("Sequence[Any]", value))
    return isinstance(value, int) and not -(1 << 63) <= value < 1 << 64


def blotted(value: Any, redact: Callable[[str], str]) -> Any:
    """Without what `redact` takes out of a text, however deep."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {blotted(k, redact): blotted(v, redact) for k, v in cast("dict[Any, Any]", value).items()}
    if isinstance(value, list | tuple):
        return [blotted(v, redact) for v in cast("Sequence[Any]", value)]
    return value
