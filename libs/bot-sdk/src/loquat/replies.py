"""What a bot can say. Limits are WhatsApp's own, checked here, so that a mistake shows in the bot and not at Meta."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Final, Literal

from loquat.media import Uploaded
from loquat.values import DEEPEST, as_json

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
LONGEST_FLOW: Final = 60
"""Characters of a flow's name."""
_FLOW_PART: Final = 200
_FLOW_BUTTON: Final = 30
_FLOW_DATA: Final = 32 << 10  # bytes as JSON
_NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")

Rows = Sequence[tuple[str, str] | tuple[str, str, str]] | Mapping[str, Sequence[tuple[str, ...]]]

_FILENAME: Final = 240
_MEDIA_ID: Final = 200

FileKind = Literal["image", "video", "document", "audio", "sticker"]
Kind = Literal["text", "buttons", "list", "flow"] | FileKind


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
class Flow:
    """A form of WhatsApp Flows behind a button, its parts named as WhatsApp does: `flow_cta` is the button's title."""

    flow_cta: str
    flow_token: str
    flow_id: str | None = None
    flow_name: str | None = None
    screen: str | None = None
    data: dict[str, Any] | None = None


@dataclass(frozen=True, slots=True)
class Reply:
    """One thing said, as a value: equal to another that says the same.

    `text` is the caption of a file; `open_list` the words on the button that opens the list of `rows`; `link` a file's address, `media_id` its id
    at WhatsApp instead, `filename` a document's name.
    """

    type: Kind
    text: str | None = None
    buttons: tuple[Button, ...] = ()
    open_list: str | None = None
    rows: tuple[Row, ...] = ()
    link: str | None = None
    media_id: str | None = None
    filename: str | None = None
    flow: Flow | None = None

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
            case "flow":
                return {k: v for k, v in asdict(self.flow).items() if v is not None} if self.flow is not None else None
            case _:
                named = {"link": self.link, "id": self.media_id, "filename": self.filename}
                return {k: v for k, v in named.items() if v is not None}


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


def image(source: str | Uploaded, caption: str | None = None) -> Reply:
    """A picture: at an https address, or uploaded; with an optional caption of at most 1,024 characters."""
    return _file("image", source, caption)


def video(source: str | Uploaded, caption: str | None = None) -> Reply:
    """A video: at an https address, or uploaded; with an optional caption of at most 1,024 characters."""
    return _file("video", source, caption)


def document(source: str | Uploaded, caption: str | None = None, *, name: str | None = None) -> Reply:
    """A document: at an https address, or uploaded; with an optional caption of at most 1,024 characters and a name of at most 240."""
    return replace(_file("document", source, caption), filename=None if name is None else _within("document name", name, _FILENAME))


def audio(source: str | Uploaded) -> Reply:
    """A sound: at an https address, or uploaded."""
    return _file("audio", source, None)


def sticker(source: str | Uploaded) -> Reply:
    """A sticker (WebP): at an https address, or uploaded."""
    return _file("sticker", source, None)


def _file(kind: FileKind, source: str | Uploaded, caption: str | None) -> Reply:
    said = None if caption is None else _within("caption", caption, _CAPTION)
    if isinstance(source, Uploaded):
        return Reply(kind, said, media_id=_within(f"{kind} id", source.id, _MEDIA_ID))
    if not _within(f"{kind} link", source, _LINK).startswith("https://"):
        raise ReplyRefused(f"the link of {kind} must start with https://")
    return Reply(kind, said, link=source)


def flow(
    said: str, button: str, name: str, *, id: str | None = None, token: str | None = None, screen: str | None = None,
    data: Mapping[str, Any] | None = None,
) -> Reply:  # fmt: skip
    """A text of 1 to 1,024 characters with a button that opens a published form of WhatsApp Flows, whose answer `@bot.on_flow(name)` gets.

    At WhatsApp the form is called `name`, too, unless its `id` is given. `token`, a reference of the bot's own, comes back with the answer. The form
    opens at `screen`, which is given `data`, or else where its own JSON says. A button has at most 30 characters, a name 60 and no colon.
    """
    if ":" in _within("flow name", name, LONGEST_FLOW):
        raise ReplyRefused(f"the flow name {name!r} has a colon: what follows one is the token")
    if data is not None and (screen is None or not isinstance(data, Mapping) or not data):  # pyright: ignore[reportUnnecessaryIsInstance]  (bots are often not typed)
        raise ReplyRefused("flow data is a mapping with something in it, for the screen that is named with it")
    given = json.loads(as_json(dict(data), "flow data", _FLOW_DATA, ReplyRefused, deepest=DEEPEST)) if data is not None else None
    made = Flow(
        _within("flow button", button, _FLOW_BUTTON),
        _within("flow token", name if token is None else f"{name}:{token}", _FLOW_PART),
        flow_id=_within("flow id", id, _FLOW_PART) if id is not None else None,
        flow_name=name if id is None else None,
        screen=_within("flow screen", screen, _FLOW_PART) if screen is not None else None,
        data=given,
    )
    return Reply("flow", _within("text", said, LONGEST_BODY), flow=made)


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
