"""Meta's changes, split into facts. Pure, shared by the gateway (which receives them) and the connector (which replays unrouted ones).

Never raises for any JSON: what nobody knows is kept raw (P6). Every message and every status of a change ends in exactly one fact. The same
change gives the same facts with the same ids.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple
from uuid import UUID

from pydantic_core import PydanticSerializationError, to_json

from loquat_events.conversations import AddressKind, MessageReceived, PersonUpdateReceived, StatusReceived
from loquat_events.elements import clean
from loquat_events.envelope import Payload
from loquat_events.ids import message_id, status_id, update_id
from loquat_events.numbers import AccountUpdateReceived

Json = dict[str, Any]

ECHOES: Final = "smb_message_echoes"
PERSON_FIELDS: Final = frozenset(
    {
        "message_echoes",
        "smb_message_echoes",
        "smb_app_state_sync",
        "history",
        "calls",
        "user_id_update",
        "user_preferences",
        "consumer_profile",
        "messaging_handovers",
        "group_lifecycle_update",
        "group_participants_update",
        "group_settings_update",
        "group_status_update",
    }
)
"""Fields that name a person, besides `messages` (reference of the Cloud API, "Fields that matter")."""
_TEXTS: Final = ("body", "caption", "title", "text", "emoji")
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECONDS: Final = 10**12  # a timestamp at or above is in milliseconds: seen in the wild
_LATEST: Final = 253_402_300_799  # the last second of the year 9999
_LONGEST: Final = 200
_DEEPEST: Final = 100
"""Levels of lists and objects that are kept as structure. Readers of an event (jiter: 200, orjson: 254) refuse more; as text it is no matter."""


class Fact(NamedTuple):
    """One event to be: without its project, which routing adds. `number` is None for what concerns an account."""

    payload: Payload
    lane: str
    id: UUID
    number: str | None


def number_of(change: Json) -> str | None:
    """The phone_number_id that a change is about."""
    number = _object(_object(change.get("value")).get("metadata")).get("phone_number_id")
    return _text(number)


def split_change(change: Json, waba_id: str) -> list[Fact]:
    """The facts of one change of a webhook's body."""
    value = _object(change.get("value"))
    number, field = number_of(change), _text(change.get("field")) or "unknown"
    if number is None:
        return [_account(change, field, waba_id, None)]
    if field == "messages":
        facts = [*_messages(value, number), *_statuses(value, number)]
        if value.get("errors") or not facts:
            facts.append(_account(change, field, waba_id, number))
        return facts
    if field == ECHOES and (echoes := _list(value.get("message_echoes"))):
        return [_echo(echo, number) for echo in echoes]
    if field in PERSON_FIELDS:
        return [_person(change, field, number)]
    return [_account(change, field, waba_id, number)]


def _messages(value: Json, number: str) -> Iterator[Fact]:
    contacts = [_object(c) for c in _list(value.get("contacts"))]
    for raw in _list(value.get("messages")):
        message = _object(raw)
        addresses, name = _who(message, contacts)
        wamid = _text(message.get("id"))
        if not addresses or wamid is None:
            yield _person({"field": "messages", "value": raw}, "messages", number)
            continue
        kind = _text(message.get("type")) or "unknown"
        received = MessageReceived.model_validate(  # its parts as they are: one validation instead of one for each part
            {
                "number_id": number,
                "addresses": addresses,
                "name": name,
                "message": _message(message, kind, wamid),
                "sent_at": _moment(message.get("timestamp")),
            }
        )
        yield Fact(received, addresses[0]["value"], message_id(number, wamid), number)


def _message(message: Json, kind: str, wamid: str) -> Json:
    """The fields of an InboundMessage."""
    raw = _written(message)
    fit = "\\u0000" not in raw and "\\ud" not in raw  # nothing to be cleaned: U+0000 and half characters stand escaped
    content = message.get(kind)
    deep = raw.count("{") + raw.count("[") > _DEEPEST and is_deep(content)
    if not fit and not deep:
        content = clean(content)
    said, context = _object(content), _object(message.get("context"))
    if kind == "interactive":
        said = next((_object(v) for k, v in said.items() if k != "type"), Json())
    text = None
    for key in _TEXTS:
        if key in said and (text := _text(said[key], 100_000)) is not None:
            break
    return {
        "type": clean(kind),
        "text": text,
        "content": None if deep else _object(content) or (None if content is None else {"value": content}),
        "wamid": wamid,
        "reply_to": _text(context.get("id")) or (_text(said.get("message_id")) if kind == "reaction" else None),
        "raw": raw,
    }


def _who(message: Json, contacts: list[Json]) -> tuple[list[dict[str, str]], str | None]:
    """The fields of all addresses under which the sender is known, the steadiest first, and the name of the profile."""
    sender, user = _text(message.get("from")), _text(message.get("from_user_id"))
    matching = [c for c in contacts if (sender and _text(c.get("wa_id")) == sender) or (user and _text(c.get("user_id")) == user)]
    contact = matching[0] if matching else contacts[0] if len(contacts) == 1 else {}
    profile = _object(contact.get("profile"))
    named: list[tuple[AddressKind, str | None]] = [
        ("user_id", user or _text(contact.get("user_id"))),
        ("wa_id", _text(contact.get("wa_id"))),
        ("phone", sender),
    ]
    addresses = [{"kind": k, "value": v} for k, v in named if v is not None]
    if addresses and (username := _text(profile.get("username"))) is not None:  # by itself it is no address to rely on
        addresses.append({"kind": "username", "value": username})
    return addresses, _text(profile.get("name"))


def _statuses(value: Json, number: str) -> Iterator[Fact]:
    for raw in _list(value.get("statuses")):
        status = _object(raw)
        wamid, word = _text(status.get("id")), _text(status.get("status"))
        if wamid is None or word is None:
            yield _person({"field": "statuses", "value": raw}, "statuses", number)
            continue
        ours = _uuid(status.get("biz_opaque_callback_data"))
        error = _object(next(iter(_list(status.get("errors"))), None))
        pricing = _object(status.get("pricing"))
        code, billable = error.get("code"), pricing.get("billable")
        received = StatusReceived(
            number_id=number,
            message_id=ours,
            wamid=wamid,
            status=word,
            at=_moment(status.get("timestamp")),
            error_code=code if isinstance(code, int) and abs(code) < 2**31 else None,
            error_title=_text(error.get("title"), 1000),
            pricing=_text(pricing.get("category")),
            billable=billable if isinstance(billable, bool) else None,
            raw=_written(raw),
        )
        recipient = _text(status.get("recipient_user_id")) or _text(status.get("recipient_id")) or ""
        yield Fact(received, str(ours or wamid), status_id(number, wamid, word, recipient, clean(str(status.get("timestamp")))), number)


def _person(change: Json, field: str, number: str) -> Fact:
    raw = _written(change.get("value"))
    return Fact(
        PersonUpdateReceived(number_id=number, field=clean(field), raw=raw),
        clean(field),
        update_id(number, field, _canonical(change)),
        number,
    )


def _echo(raw: object, number: str) -> Fact:
    """What somebody wrote to a contact in the phone app, in the contact's own lane. Its number is known as the one or the other."""
    echo = _object(raw)
    user, phone, wamid = _text(echo.get("to_user_id")), _text(echo.get("to")), _text(echo.get("id"))
    addresses = [{"kind": kind, "value": v} for kind, v in (("user_id", user), ("wa_id", phone), ("phone", phone)) if v is not None]
    if not addresses or wamid is None:
        return _person({"field": ECHOES, "value": raw}, ECHOES, number)
    message = _message(echo, _text(echo.get("type")) or "unknown", wamid)
    said = {"number_id": number, "addresses": addresses, "field": ECHOES, "raw": message["raw"]}
    received = PersonUpdateReceived.model_validate({**said, "message": message, "sent_at": _moment(echo.get("timestamp"))})
    return Fact(received, addresses[0]["value"], update_id(number, ECHOES, _canonical(echo)), number)


def _account(change: Json, field: str, waba_id: str, number: str | None) -> Fact:
    payload = AccountUpdateReceived(waba_id=waba_id, number_id=clean(number), field=clean(field), raw=_written(change.get("value")))
    return Fact(payload, clean(field) or "unknown", update_id(waba_id, field, _canonical(change)), None)


def _canonical(change: Json) -> str:
    return json.dumps(change, sort_keys=True, separators=(",", ":"))


def _written(value: object) -> str:
    """JSON as text. Half characters, which the quick writer refuses, the standard library escapes."""
    try:
        return to_json(value).decode()
    except PydanticSerializationError:
        return json.dumps(value)


def is_deep(value: object, deepest: int = _DEEPEST) -> bool:
    """Whether it has more levels, by default than can be kept as structure. Without recursion: it may have very many."""
    level = [value]
    for _ in range(deepest + 1):
        level = [inner for v in level for inner in (_object(v).values() or _list(v))]
        if not level:
            return False
    return True


def _moment(timestamp: object) -> datetime:
    """Meta's whole seconds as text. What cannot be read becomes the beginning of time: old, and so never answered blindly."""
    try:
        seconds = int(str(timestamp)[:20])
    except ValueError:
        return _EPOCH
    seconds = seconds // 1000 if seconds >= _MILLISECONDS else seconds
    return datetime.fromtimestamp(min(max(seconds, 0), _LATEST), UTC)


def _uuid(value: object) -> UUID | None:
    try:
        return UUID(value) if isinstance(value, str) else None
    except ValueError:
        return None


def _object(value: Any) -> Json:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _text(value: object, longest: int = _LONGEST) -> str | None:
    """Text (or a number, as Meta sends ids at times), clean and not longer than can be kept; None for anything else and for nothing."""
    if type(value) is str and len(value) <= longest and value.isascii() and "\0" not in value:  # nearly always
        return value or None
    if isinstance(value, bool) or not isinstance(value, str | int):
        return None
    return clean(str(value))[:longest] or None
