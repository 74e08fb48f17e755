"""What a bot's word is worth: checked before anything is made of it."""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Any, Final, cast
from uuid import UUID

from loquat_events.conversations import Outgoing
from loquat_events.meta import is_deep
from pydantic import ValidationError

from loquat_bot_runner.errors import BotError, ProtocolViolated

_MOST: Final = 50
MOST_NOW: Final = 10
"""Replies that one call says before its end."""
_LARGEST_NOW: Final = 64 << 10
_LONGEST_STATE: Final = 60
_LARGEST: Final = 256 << 10
_DEEPEST: Final = 32
"""Levels of a contact's attributes and a timer's data, as the SDK has it."""
_DEEPEST_OF_ALL: Final = 128  # the notes of a question hold what a contact sent: at most 100
_KEYS: Final = {"replies", "state", "end", "contact", "timers", "sends", "hold", "ask", "joins", "later"}
_TIMER: Final = {"name", "at", "data", "until_answer"}
_TIME: Final = re.compile(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?\+00:00")
MOST_TIMERS: Final = 20
MOST_SENDS: Final = 500
_SOONEST, _LATEST = 0.05, 10.0  # seconds until a burst is looked at again
_LARGEST_NOTES: Final = 60 << 10
_LONGEST_NOTE: Final = 1000
_LONGEST_SPAN: Final = 366 * 86_400  # seconds
_NUL: Final = re.compile(r"(?<!\\)(?:\\\\)*\\u0000")  # and not an escaped backslash before these words
_NOTED: Final = ("name", "language", "attributes")
_LONGEST_NAME: Final = 200
_LANGUAGE: Final = re.compile(r"[A-Za-z]{2,3}([_-][A-Za-z0-9]{2,8}){0,3}")


def checked(result: dict[str, Any], messages: int = _MOST, before: int = 0) -> dict[str, Any]:
    """The result as `commit_run` takes it; `messages`: that a call may say, of which it has said so many `before` its end.

    Raises:
        ProtocolViolated: the SDK would not have made it.
        BotError: more messages than the project may say in one call.
    """
    result = _plain(result)
    state, replies, end = result.get("state"), result.get("replies", []), result.get("end", False)
    if not result.keys() <= _KEYS or not isinstance(replies, list) or not isinstance(end, bool):
        raise ProtocolViolated("the result has another shape")
    if state is not None and (not isinstance(state, str) or not 1 <= len(state) <= _LONGEST_STATE):
        raise ProtocolViolated("the state has another shape")
    if len(replies) > _MOST:  # pyright: ignore[reportUnknownArgumentType]
        raise ProtocolViolated("too many replies")
    if (count := len(replies) + before) > messages:  # pyright: ignore[reportUnknownArgumentType]
        raise BotError(f"one call of this project's bot says at most {messages} messages; this one said {count}")
    try:
        said = [Outgoing.model_validate(r).model_dump(exclude_none=True) for r in replies]  # pyright: ignore[reportUnknownVariableType]
    except ValidationError:
        raise ProtocolViolated("a reply has another shape") from None
    contact, sends = _contact(result.get("contact")), [_send(s) for s in _listed(result.get("sends"), MOST_SENDS)]
    timers = [_timer(t) for t in _listed(result.get("timers"), MOST_TIMERS)]
    return {
        "replies": said,
        **({"state": state} if state is not None else {}),
        **({"end": True} if end else {}),
        **({"contact": contact} if contact else {}),
        **({"timers": timers} if timers else {}),
        **({"sends": sends} if sends else {}),
        **_held(result),
        **_burst(result),
    }


def checked_now(answered: str, reply: dict[str, Any]) -> tuple[UUID, dict[str, Any]]:
    """What is said before the end of a call, and the event that it answers.

    Raises:
        ProtocolViolated: the SDK would not have made it.
    """
    plain = _plain(reply)
    try:
        said = Outgoing.model_validate(plain).model_dump(exclude_none=True)
        event = UUID(answered)
    except ValueError:  # pydantic's is one
        raise ProtocolViolated("a reply has another shape") from None
    if len(json.dumps(said)) > _LARGEST_NOW:
        raise ProtocolViolated("a reply is too large")
    return event, said


def _plain(result: dict[str, Any]) -> dict[str, Any]:
    """As JSON has it: a frame may hold bytes, dates, numbers that are none and maps in maps without end."""
    try:
        text = json.dumps(result, allow_nan=False)
    except (TypeError, ValueError, RecursionError):
        raise ProtocolViolated("the result is no JSON") from None
    if len(text) > _LARGEST:
        raise ProtocolViolated("the result is too large")
    if _NUL.search(text) is not None:
        raise ProtocolViolated("the result has a NUL character")
    plain = json.loads(text)
    if is_deep(plain, _DEEPEST_OF_ALL):
        raise ProtocolViolated("the result has too many levels")
    return plain


def _held(result: dict[str, Any]) -> dict[str, Any]:
    """A handover to people, and the notes of a question, as the database takes them."""
    made: dict[str, Any] = {}
    for key, known in (("hold", {"seconds", "note"}), ("ask", None)):
        given: Any = result.get(key)
        if given is None:
            continue
        text = json.dumps(given)
        if (
            not isinstance(given, dict)
            or (known is not None and not given.keys() <= known)  # pyright: ignore[reportUnknownMemberType]
            or len(text) > _LARGEST_NOTES
            or "\\u0000" in text
            or not _is_span(given.get("seconds"))  # pyright: ignore[reportUnknownMemberType]
        ):
            raise ProtocolViolated(f"what it says of {key} has another shape")
        made[key] = given
    note = made.get("hold", {}).get("note")
    if note is not None and not (isinstance(note, str) and len(note) <= _LONGEST_NOTE):
        raise ProtocolViolated("the note has another shape")
    return made


def _burst(result: dict[str, Any]) -> dict[str, Any]:
    """The messages that were handled together with this one; or in how many seconds there may be all of them."""
    made: dict[str, Any] = {}
    if result.get("joins") is not None:
        try:
            made["joins"] = [str(UUID(i)) for i in _listed(result["joins"], _MOST)]
        except (AttributeError, TypeError, ValueError):
            raise ProtocolViolated("what was joined has another shape") from None
    if result.get("later") is not None:
        if not _is_span(result["later"], 0):
            raise ProtocolViolated("later is no number of seconds")
        made["later"] = min(max(float(result["later"]), _SOONEST), _LATEST)
    return made


def _is_span(given: Any, least: float = 1) -> bool:
    return given is None or (isinstance(given, int | float) and not isinstance(given, bool) and least <= given <= _LONGEST_SPAN)


def _is_time(given: Any) -> bool:
    """Written as the SDK does, and in the calendar."""
    if not isinstance(given, str) or not _TIME.fullmatch(given):
        return False
    try:
        datetime.fromisoformat(given)
    except ValueError:
        return False
    return True


def _listed(given: Any, most: int) -> list[Any]:
    if given is None:
        return []
    if not isinstance(given, list) or len(given) > most:  # pyright: ignore[reportUnknownArgumentType]
        raise ProtocolViolated("timers or sends have another shape")
    return cast("list[Any]", given)


def _send(given: Any) -> dict[str, Any]:
    """A message of a schedule to a contact."""
    try:
        known = {str(k): v for k, v in given.items()}
        contact = UUID(known.pop("contact_id"))
        return {"contact_id": str(contact), **Outgoing.model_validate(known).model_dump(exclude_none=True)}
    except (AttributeError, KeyError, TypeError, ValueError):  # pydantic's is a ValueError
        raise ProtocolViolated("a send has another shape") from None


def _timer(given: Any) -> dict[str, Any]:
    """A timer that is set, or cancelled."""
    known: dict[str, Any] = cast("dict[str, Any]", given) if isinstance(given, dict) else {}
    name, at, data = known.get("name"), known.get("at"), known.get("data")
    text = json.dumps(data)
    if (
        not known.keys() <= _TIMER
        or not (isinstance(name, str) and 1 <= len(name) <= _LONGEST_STATE and "\0" not in name)
        or not (at is None or _is_time(at))
        or not isinstance(known.get("until_answer", False), bool)
        or len(text) > _LARGEST
        or "\\u0000" in text
        or is_deep(data, _DEEPEST)
    ):
        raise ProtocolViolated("a timer has another shape")
    return known


def _contact(given: Any) -> dict[str, Any] | None:
    """What is noted of the contact, as the database takes it."""
    if given is None:
        return None
    known: dict[str, Any] = cast("dict[str, Any]", given) if isinstance(given, dict) else {"none": None}
    name, language, attributes = (known.get(k) for k in _NOTED)
    text = json.dumps(attributes)
    if (
        not known.keys() <= set(_NOTED)
        or not (name is None or (isinstance(name, str) and 1 <= len(name) <= _LONGEST_NAME and "\0" not in name))
        or not (language is None or (isinstance(language, str) and _LANGUAGE.fullmatch(language)))
        or not (attributes is None or isinstance(attributes, dict))
        or len(text) > _LARGEST
        or "\\u0000" in text
        or is_deep(cast("object", attributes), _DEEPEST)
    ):
        raise ProtocolViolated("what is noted of the contact has another shape")
    return known
