"""What a contact sends, typed by kind. Shapes: reference of the Cloud API, "Inbound messages"."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast
from uuid import UUID

from loquat.values import DEEPEST, NO_TEXT, is_deep

Json = dict[str, Any]
_NO_TOKEN: Final = "unused"  # what WhatsApp has for the flow_token of a form that was sent without one  # noqa: S105


@dataclass(frozen=True, slots=True)
class Message:
    """What happened. `id` is the same however often the event is handled: the idempotency key of effects outside the database.

    `type` is WhatsApp's word and `content` the part of its message that is named so. `text` is what people read of it: the text, the caption, the
    title of the button, the emoji. `wamid` is WhatsApp's id of the message, `reply_to` that of the message it answers.
    """

    id: UUID
    type: str
    text: str | None
    content: Json
    wamid: str | None
    reply_to: str | None

    @property
    def button_id(self) -> str | None:
        """The id of the button or list row that was chosen; None for anything else."""
        return None


@dataclass(frozen=True, slots=True)
class Text(Message):
    """A text that somebody typed. Of a burst (`@bot.on_text(burst=...)`) `texts` are its texts in order, and `text` has a line for each."""

    text: str
    texts: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Choice(Message):
    """A choice from what the bot offered: `choice_id` is the id that the bot gave it."""

    choice_id: str
    title: str

    @property
    def button_id(self) -> str:
        """The same as `choice_id`."""
        return self.choice_id


@dataclass(frozen=True, slots=True)
class ButtonReply(Choice):
    """A tap on a button, also on the quick reply of a template: then `choice_id` is its payload."""


@dataclass(frozen=True, slots=True)
class ListReply(Choice):
    """A row picked from a list."""

    description: str | None


@dataclass(frozen=True, slots=True)
class Media(Message):
    """A file. `media_id` names it at WhatsApp."""

    media_id: str
    mime_type: str | None
    sha256: str | None

    @property
    def caption(self) -> str | None:
        """The text below it."""
        return self.text


@dataclass(frozen=True, slots=True)
class Image(Media):
    """A picture."""


@dataclass(frozen=True, slots=True)
class Video(Media):
    """A video."""


@dataclass(frozen=True, slots=True)
class Audio(Media):
    """A sound; `voice` if it was recorded in the chat."""

    voice: bool


@dataclass(frozen=True, slots=True)
class Document(Media):
    """A document."""

    filename: str | None


@dataclass(frozen=True, slots=True)
class Sticker(Media):
    """A sticker."""

    animated: bool


@dataclass(frozen=True, slots=True)
class Location(Message):
    """A place, in decimal degrees."""

    latitude: float
    longitude: float
    name: str | None
    address: str | None


@dataclass(frozen=True, slots=True)
class Card:
    """A visiting card."""

    name: str | None
    phones: tuple[str, ...]
    emails: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Contacts(Message):
    """Visiting cards that were passed on."""

    cards: tuple[Card, ...]


@dataclass(frozen=True, slots=True)
class Reaction(Message):
    """An emoji at the message `reply_to`; None: it was taken back."""

    emoji: str | None


@dataclass(frozen=True, slots=True)
class FlowReply(Message):
    """A form of WhatsApp Flows that the contact has filled in. `data` is what the form sent, without its `flow_token`; `reply_to` the message with the form.

    WhatsApp does not say which flow it was: only the `flow_token` that was given to it when the form was sent comes back, if the form passes it on.
    `token` is that, and `flow` what of it stands before the first colon: "booking" of "booking:7f3a"; both None if nothing came, or "unused", which is
    what WhatsApp puts there by itself. `problem` says why `data` is empty although something came: no JSON, no object, more than 32 levels.
    """

    flow: str | None
    token: str | None
    data: Json
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class Unknown(Message):
    """Anything else, and what has not the shape it should have."""

    @property
    def raw(self) -> Json:
        """The type and its part of the message, as WhatsApp writes them."""
        content: Any = self.content
        return {"type": self.type, self.type: content.get("value", content) if len(content) == 1 else content}


def read(event: Mapping[str, Any]) -> Message:
    """The message of a call's `event`. Whatever a contact sends is a message: what does not fit becomes `Unknown`."""
    content: Json = event.get("content") or {}
    base = (UUID(event["id"]), str(event["type"]), event.get("text"), content, event.get("wamid"), event.get("reply_to"))
    try:
        message = _READERS[base[1]](base, content)
        return replace(message, texts=tuple(event["texts"])) if isinstance(message, Text) and "texts" in event else message
    except (KeyError, TypeError, ValueError, AttributeError):
        return Unknown(*base)


_Base = tuple[UUID, str, str | None, Json, str | None, str | None]
_Plain = Literal["image", "video"]
_PLAIN: Final[dict[_Plain, type[Image | Video]]] = {"image": Image, "video": Video}


def _text(base: _Base, _content: Json) -> Message:
    text = _string(base[2])
    return Text(*base[:2], text, *base[3:], (text,))


def _interactive(base: _Base, content: Json) -> Message:
    if "list_reply" in content:
        chosen = content["list_reply"]
        return ListReply(*base, _string(chosen["id"]), str(chosen.get("title") or ""), _optional(chosen.get("description")))
    if "nfm_reply" in content and content["nfm_reply"].get("name", "flow") == "flow":
        return _flow(base, content["nfm_reply"].get("response_json"))
    chosen = content["button_reply"]
    return ButtonReply(*base, _string(chosen["id"]), str(chosen.get("title") or ""))


def _flow(base: _Base, answer: object) -> Message:
    """Whatever the form sent, which its author decides, and the contact's phone writes."""
    try:
        given: Any = json.loads(answer) if isinstance(answer, str) else None
    except (ValueError, RecursionError):
        return FlowReply(*base, None, None, {}, "its response_json is no JSON")
    if not isinstance(given, dict):
        return FlowReply(*base, None, None, {}, "its response_json is no object")
    if is_deep(given):
        return FlowReply(*base, None, None, {}, f"its response_json has more than {DEEPEST} levels")
    data: Json = _kept(given)
    token = data.pop("flow_token", None)
    known = token if isinstance(token, str) and token not in {"", _NO_TOKEN} else None
    return FlowReply(*base, known.partition(":")[0] if known is not None else None, known, data)


def _kept(value: Any) -> Any:
    """Without U+0000 and halves of characters, which can stand escaped in JSON inside of JSON."""
    match value:
        case str():
            return NO_TEXT.sub("\N{REPLACEMENT CHARACTER}", value)
        case dict():
            return {_kept(k): _kept(v) for k, v in cast("Json", value).items()}
        case list():
            return [_kept(v) for v in cast("list[Any]", value)]
        case _:
            return value


def _quick_reply(base: _Base, content: Json) -> Message:
    return ButtonReply(*base, _string(content["payload"]), str(content.get("text") or ""))


def _file(base: _Base, content: Json) -> Message:
    return _PLAIN[cast("_Plain", base[1])](*base, *_media(content))


def _media(content: Json) -> tuple[str, str | None, str | None]:
    return _string(content["id"]), _optional(content.get("mime_type")), _optional(content.get("sha256"))


def _location(base: _Base, content: Json) -> Message:
    where = float(content["latitude"]), float(content["longitude"])
    return Location(*base, *where, _optional(content.get("name")), _optional(content.get("address")))


def _contacts(base: _Base, content: Json) -> Message:
    return Contacts(*base, tuple(_card(card) for card in content["value"]))


def _card(card: Json) -> Card:
    phones = [p.get("phone") or p.get("wa_id") for p in card.get("phones") or ()]
    emails = [e.get("email") for e in card.get("emails") or ()]
    name: Json = card.get("name") or {}
    return Card(_optional(name.get("formatted_name")), tuple(str(p) for p in phones if p), tuple(str(e) for e in emails if e))


def _string(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


def _optional(value: object) -> str | None:
    return None if value is None else str(value)


_READERS: Final[dict[str, Callable[[_Base, Json], Message]]] = {
    "text": _text,
    "interactive": _interactive,
    "button": _quick_reply,
    "image": _file,
    "video": _file,
    "audio": lambda base, content: Audio(*base, *_media(content), bool(content.get("voice"))),
    "document": lambda base, content: Document(*base, *_media(content), _optional(content.get("filename"))),
    "sticker": lambda base, content: Sticker(*base, *_media(content), bool(content.get("animated"))),
    "location": _location,
    "contacts": _contacts,
    "reaction": lambda base, content: Reaction(*base, _optional(content.get("emoji")) or None),
}
