"""From events to what the project database's functions take. Pure."""

from __future__ import annotations

from typing import Any

from loquat_events.conversations import MessageOutcome, MessageQueued, StatusReceived
from loquat_events.elements import clean


def outbound(data: MessageQueued) -> dict[str, Any]:
    """An element for `record_outbound`."""
    return {
        "id": str(data.message_id),
        "conversation_id": str(data.conversation_id),
        "type": data.message.type,
        "text": clean(data.message.text),
        "content": clean(data.message.content),
        "sender": data.sender,
        "status": "queued",
        "sent_at": data.queued_at.isoformat(),
    }


def receipt(data: StatusReceived | MessageOutcome) -> dict[str, Any]:
    """An element for `apply_receipts`: its key is the message's id, or the wamid where Meta told no more."""
    known: dict[str, Any] = {
        "status": data.status,
        "at": data.at.isoformat(),
        "error_code": data.error_code,
        "error_title": clean(data.error_title),
    }
    if isinstance(data, MessageOutcome):
        return {**known, "key": str(data.message_id), "wamid": data.wamid}
    key = str(data.message_id) if data.message_id is not None else data.wamid
    return {**known, "key": key, "wamid": data.wamid, "pricing": data.pricing, "billable": data.billable}
