"""What a bot can say. Limits are WhatsApp's own, checked here, so that a mistake shows in the bot and not at Meta."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

LONGEST_TEXT: Final = 4096
LONGEST_BODY: Final = 1024
MOST_BUTTONS: Final = 3
MOST_ROWS: Final = 10
_BUTTON_TITLE: Final = 20
_ROW_TITLE: Final = 24
_ROW_DESCRIPTION: Final = 72
_ROW_ID: Final = 200
_BUTTON_ID: Final = 256
_LIST_BUTTON: Final = 20
_CAPTION: Final = 1024

Reply = dict[str, Any]


class ReplyRefused(ValueError):
    """WhatsApp would refuse this reply. The text names the field and the limit."""


def text(said: str) -> Reply:
    """A text of 1 to 4,096 characters."""
    return {"type": "text", "text": _within("text", said, LONGEST_TEXT)}


def buttons(said: str, choices: Sequence[tuple[str, str]]) -> Reply:
    """A text with 1 to 3 reply buttons, each (id, title)."""
    _count("buttons", len(choices), MOST_BUTTONS)
    _distinct("button", [i for i, _ in choices])
    made = [{"id": _within("button id", i, _BUTTON_ID), "title": _within("button title", t, _BUTTON_TITLE)} for i, t in choices]
    return {"type": "buttons", "text": _within("text", said, LONGEST_BODY), "content": {"buttons": made}}


def choices(
    said: str, button: str, rows: Sequence[tuple[str, str] | tuple[str, str, str]] | Mapping[str, Sequence[tuple[str, ...]]]
) -> Reply:
    """A text with a button that opens a list of 1 to 10 rows, each (id, title) or (id, title, description); a mapping gives sections titles."""
    sections = rows if isinstance(rows, Mapping) else {"": rows}
    flat = [row for section in sections.values() for row in section]
    _count("rows", len(flat), MOST_ROWS)
    _distinct("row", [r[0] for r in flat])
    if len(sections) > 1 and not all(sections):
        raise ReplyRefused("every section of a list needs a title when there are several")
    made = [
        {**({"title": _within("section title", t, _ROW_TITLE)} if t else {}), "rows": [_row(r) for r in s]} for t, s in sections.items()
    ]
    content = {"button": _within("list button", button, _LIST_BUTTON), "sections": made}
    return {"type": "list", "text": _within("text", said, LONGEST_TEXT), "content": content}


def image(link: str, caption: str | None = None) -> Reply:
    """A picture at an https address, with an optional caption of at most 1,024 characters."""
    if not link.startswith("https://"):
        raise ReplyRefused("an image's link must start with https://")
    made: Reply = {"type": "image", "content": {"link": link}}
    return made if caption is None else {**made, "text": _within("caption", caption, _CAPTION)}


def _row(row: Sequence[str]) -> dict[str, str]:
    made = {"id": _within("row id", row[0], _ROW_ID), "title": _within("row title", row[1], _ROW_TITLE)}
    return made if len(row) < 3 else {**made, "description": _within("row description", row[2], _ROW_DESCRIPTION)}  # noqa: PLR2004  (the third is optional)


def _within(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ReplyRefused(f"{field} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ReplyRefused(f"{field} is empty")
    if len(value) > limit:
        raise ReplyRefused(f"{field} has {len(value)} characters; {limit} are the limit")
    return value


def _count(field: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise ReplyRefused(f"{count} {field}; 1 to {limit} are possible")


def _distinct(what: str, ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ReplyRefused(f"two of them have the same {what} id")
