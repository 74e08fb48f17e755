"""From the body of a webhook to events. Pure: the signature was checked before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any, Final

import msgspec
from loquat_events.elements import clean
from loquat_events.envelope import AnyEvent, Payload
from loquat_events.ids import update_id
from loquat_events.meta import Fact, number_of, split_change
from loquat_events.numbers import AccountUpdateReceived, UpdateUnrouted

OBJECT: Final = "whatsapp_business_account"
LARGEST: Final = 3 << 20
"""Bytes of a body: Meta's own limit."""
_SLACK: Final = 64 << 10
BODY_LIMIT: Final = LARGEST + _SLACK


class BodyRefused(Exception):
    """The body is none of WhatsApp's. `status` is for the answer."""

    def __init__(self, status: int, code: str, title: str) -> None:
        super().__init__(title)
        self.status, self.code, self.title = status, code, title


def parse(raw: bytes) -> dict[str, Any]:
    """The body as JSON. What the quick reader refuses goes to the standard library, which keeps half characters and NaN.

    Raises:
        BodyRefused: no JSON, or about something else than WhatsApp.
    """
    try:
        body = _read(raw)
    except (ValueError, RecursionError):
        raise BodyRefused(400, "malformed_json", "The body is not valid JSON") from None
    if not isinstance(body, dict) or body.get("object") != OBJECT:  # pyright: ignore[reportUnknownMemberType]
        raise BodyRefused(422, "not_whatsapp", f"The body's object is not {OBJECT}")
    return body  # pyright: ignore[reportUnknownVariableType]


def _read(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except msgspec.DecodeError:
        return json.loads(raw)


def events(body: dict[str, Any], project_of: Callable[[str], str | None], now: datetime) -> list[AnyEvent]:
    """Every update of the body as one event: to its project, or kept for the day somebody attaches the number.

    Raises:
        BodyRefused: it could just be read, and is nested too deep to be written again.
    """
    try:
        return [event for waba, change in _changes(body) for event in _of_change(waba, change, project_of, now)]
    except RecursionError:
        raise BodyRefused(400, "malformed_json", "The body is nested too deep") from None


def _changes(body: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    entries: Any = body.get("entry")
    for entry in entries if isinstance(entries, list) else [entries] if entries else []:  # pyright: ignore[reportUnknownVariableType]  (JSON)
        known = _object(entry)
        waba = clean(str(known.get("id") or "unknown"))[:80]
        changes: Any = known.get("changes")
        if not isinstance(changes, list):
            yield waba, {"field": "unknown", "value": entry}
            continue
        for change in changes:  # pyright: ignore[reportUnknownVariableType]  (JSON)
            yield waba, _object(change) or {"field": "unknown", "value": change}


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}  # pyright: ignore[reportUnknownVariableType]  (JSON)


def _of_change(waba: str, change: dict[str, Any], project_of: Callable[[str], str | None], now: datetime) -> list[AnyEvent]:
    number = number_of(change)
    project = project_of(number) if number is not None else None
    facts = split_change(change, waba)
    if number is not None and project is None and any(f.number is not None for f in facts):
        text = json.dumps(change)
        unrouted = UpdateUnrouted(number_id=number, waba_id=waba, change=text, received_at=now)
        return [_event(unrouted, Fact(unrouted, number, update_id(number, "unrouted", text), number), "unrouted", now)]
    return [_event(f.payload, f, waba if isinstance(f.payload, AccountUpdateReceived) else project or waba, now) for f in facts]


def _event(payload: Payload, fact: Fact, project: str, now: datetime) -> AnyEvent:
    return AnyEvent.of(payload, id=fact.id, source="/gateway", time=now, project=project, lane=fact.lane)
