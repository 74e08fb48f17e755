"""From inbox events to the elements that `loquat.record_inbound` and `loquat.begin_run` of a project database take. Pure."""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any, Final

from loquat_events.conversations import (
    HoldOrdered,
    InboundMessage,
    MessageReceived,
    PersonUpdateReceived,
    ScheduleFired,
    SendOrdered,
    TimerFired,
)
from loquat_events.envelope import AnyEvent

_UNFIT: Final = re.compile("[\x00\ud800-\udfff]")


def clean(value: Any) -> Any:
    """Text without U+0000 and lone surrogates: Postgres takes neither outside of `raw`, where they stand escaped."""
    if isinstance(value, str):
        return value if value.isascii() and "\0" not in value else _UNFIT.sub("\N{REPLACEMENT CHARACTER}", value)
    if isinstance(value, dict):
        return {clean(k): clean(v) for k, v in value.items()}  # pyright: ignore[reportUnknownVariableType]
    if isinstance(value, list):
        return [clean(v) for v in value]  # pyright: ignore[reportUnknownVariableType]
    return value


def _message(message: InboundMessage, sent_at: datetime) -> dict[str, Any]:
    return {
        "type": clean(message.type),
        "text": clean(message.text),
        "content": clean(message.content),
        "raw": message.raw,
        "wamid": clean(message.wamid),
        "reply_to": clean(message.reply_to),
        "sent_at": sent_at.isoformat(),
    }


def inbound(event: AnyEvent) -> dict[str, Any] | None:
    """An element for `record_inbound`; None if the event is none of the inbox."""
    match event.data:
        case MessageReceived() as data:
            return {
                "id": str(event.id),
                "kind": "message",
                "number_id": data.number_id,
                "addresses": [clean(a.model_dump()) for a in data.addresses],
                "name": clean(data.name),
                "message": _message(data.message, data.sent_at),
            }
        case SendOrdered() | HoldOrdered() as data:
            return {
                "id": str(event.id),
                "kind": "order",
                "number_id": data.number_id,
                "addresses": [clean(a.model_dump()) for a in data.addresses],
                "contact_id": str(data.contact_id) if data.contact_id is not None else None,
            }
        case PersonUpdateReceived() as data:
            return {
                "id": str(event.id),
                "kind": "update",
                "number_id": data.number_id,
                "addresses": [clean(a.model_dump()) for a in data.addresses],
                "update": {"field": clean(data.field), "raw": data.raw},
                **({"message": _message(data.message, data.sent_at)} if data.message is not None and data.sent_at is not None else {}),
            }
        case TimerFired() as data:
            return {"id": str(event.id), "kind": "timer", "conversation_id": str(data.conversation_id)}
        case ScheduleFired() as data:
            told = {"automation_id": str(data.automation_id), "due_at": data.due_at.isoformat(), "ordered_by": clean(data.ordered_by)}
            return {"id": str(event.id), "kind": "schedule", "schedule": told}
        case _:
            return None
