"""What a bot can say. Limits are WhatsApp's own, checked here, so that a mistake shows in the bot and not at Meta."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal

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
_LINK: Final = 2000
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")

Rows = Sequence[tuple[str, str] | tuple[str, str, str]] | Mapping[str, Sequence[tuple[str, ...]]]


class ReplyRefused(ValueError):
    """WhatsApp would refuse this reply. The text names the field and the limit."""


@dataclass(frozen=True, slots=True)
class Button:
    """A button below a text."""

    id: str
    title: str


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a list, and the title of the section it stands in."""

    id: str
    title: str
    description: str | None = None
    section: str | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One thing said, as a value: equal to another that says the same.

    `text` is the caption of an image; `open_list` the words on the button that opens the list of `rows`; `link` an image's address.
    """

    type: Literal["text", "buttons", "list", "image"]
    text: str | None = None
    buttons: tuple[Button, ...] = ()
    open_list: str | None = None
    rows: tuple[Row, ...] = ()
    link: str | None = None

    def wire(self) -> dict[str, Any]:
        """As the platform takes it."""
        content = self._content()
        return {
            "type": self.type,
            **({"text": self.text} if self.text is not None else {}),
            **({"content": content} if content is not None else {}),
        }

    def __getitem__(self, field: str) -> Any:
        return self.wire()[field]

    def _content(self) -> dict[str, Any] | None:
        match self.type:
            case "text":
                return None
            case "buttons":
                return {"buttons": [{"id": b.id, "title": b.title} for b in self.buttons]}
            case "list":
                sections: dict[str | None, list[dict[str, str]]] = {}
                for row in self.rows:
                    described = {"description": row.description} if row.description is not None else {}
                    sections.setdefault(row.section, []).append({"id": row.id, "title": row.title, **described})
                made = [{**({"title": title} if title else {}), "rows": rows} for title, rows in sections.items()]
                return {"button": self.open_list, "sections": made}
            case "image":
                return {"link": self.link}


def text(said: str) -> Reply:
    """A text of 1 to 4,096 characters."""
    return Reply("text", _within("text", said, LONGEST_TEXT))


def buttons(said: str, choices: Sequence[tuple[str, str]]) -> Reply:
    """A text with 1 to 3 reply buttons, each (id, title)."""
    _count("buttons", len(choices), MOST_BUTTONS)
    _distinct("button", [i for i, _ in choices])
    made = tuple(Button(_within("button id", i, _BUTTON_ID), _within("button title", t, _BUTTON_TITLE)) for i, t in choices)
    return Reply("buttons", _within("text", said, LONGEST_BODY), buttons=made)


def choices(said: str, button: str, rows: Rows) -> Reply:
    """A text with a button that opens a list of 1 to 10 rows, each (id, title) or (id, title, description); a mapping gives sections titles."""
    sections = rows if isinstance(rows, Mapping) else {"": rows}
    flat = [row for section in sections.values() for row in section]
    _count("rows", len(flat), MOST_ROWS)
    _distinct("row", [r[0] for r in flat])
    if len(sections) > 1 and not all(sections):
        raise ReplyRefused("every section of a list needs a title when there are several")
    if empty := [title for title, section in sections.items() if not section]:
        raise ReplyRefused(f"the section {empty[0]!r} of the list has no rows")
    made = tuple(_row(r, _within("section title", t, _ROW_TITLE) if t else None) for t, section in sections.items() for r in section)
    return Reply("list", _within("text", said, LONGEST_TEXT), open_list=_within("list button", button, _LIST_BUTTON), rows=made)


def image(link: str, caption: str | None = None) -> Reply:
    """A picture at an https address, with an optional caption of at most 1,024 characters."""
    if not _within("image link", link, _LINK).startswith("https://"):
        raise ReplyRefused("an image's link must start with https://")
    return Reply("image", None if caption is None else _within("caption", caption, _CAPTION), link=link)


def joined(said: Sequence[Reply]) -> list[Reply]:
    """Texts that follow each other as one, a line each, as long as they fit in one message."""
    made: list[Reply] = []
    for reply in said:
        before = made[-1].text if made and made[-1].type == reply.type == "text" else None
        if before is not None and reply.text is not None and len(before) + 1 + len(reply.text) <= LONGEST_TEXT:
            made[-1] = Reply("text", f"{before}\n{reply.text}")
        else:
            made.append(reply)
    return made


def _row(row: Sequence[str], section: str | None) -> Row:
    if not 2 <= len(row) <= 3:  # noqa: PLR2004  (the third is optional)
        raise ReplyRefused(f"a row is (id, title) or (id, title, description), not {len(row)} texts")
    described = _within("row description", row[2], _ROW_DESCRIPTION) if len(row) > 2 else None  # noqa: PLR2004
    return Row(_within("row id", row[0], _ROW_ID), _within("row title", row[1], _ROW_TITLE), described, section)


def _within(field: str, value: object, limit: int) -> str:
    if not isinstance(value, str):
        raise ReplyRefused(f"{field} must be a text, not {type(value).__name__}")
    if not value.strip():
        raise ReplyRefused(f"{field} is empty")
    if len(value) > limit:
        raise ReplyRefused(f"{field} has {len(value)} characters; {limit} are the limit")
    if _NO_TEXT.search(value):
        raise ReplyRefused(f"{field} holds U+0000 or half a character, which is no text")
    return value


def _count(field: str, count: int, limit: int) -> None:
    if not 1 <= count <= limit:
        raise ReplyRefused(f"{count} {field}; 1 to {limit} are possible")


def _distinct(what: str, ids: Sequence[str]) -> None:
    if len(set(ids)) != len(ids):
        raise ReplyRefused(f"two of them have the same {what} id")
