"""Bodies as Meta sends them, signed as Meta signs them. `at` is in seconds from now."""

from __future__ import annotations

import hashlib
import hmac
import json
import time
from collections.abc import Iterable
from typing import Any

WABA = "102290129340398"
Update = dict[str, Any]


def body(phone_number_id: str, *, messages: Iterable[Update] = (), statuses: Iterable[Update] = (), waba: str = WABA) -> bytes:
    """One POST with these messages and statuses, non-ASCII escaped as Meta does."""
    messages, statuses = list(messages), list(statuses)
    value: dict[str, Any] = {
        "messaging_product": "whatsapp",
        "metadata": {"display_phone_number": "15550001111", "phone_number_id": phone_number_id},
    }
    if messages:
        people = dict.fromkeys(m["from"] for m in messages)
        value["contacts"] = [{"profile": {"name": f"Person {p}"}, "wa_id": p} for p in people]
        value["messages"] = messages
    if statuses:
        value["statuses"] = statuses
    return json.dumps(
        {"object": "whatsapp_business_account", "entry": [{"id": waba, "changes": [{"field": "messages", "value": value}]}]}
    ).encode()


def signature(secret: str, raw: bytes) -> str:
    """The value of X-Hub-Signature-256."""
    return "sha256=" + hmac.new(secret.encode(), raw, hashlib.sha256).hexdigest()


def _message(sender: str, wamid: str, kind: str, content: object, at: int) -> Update:
    return {"from": sender, "id": wamid, "timestamp": str(int(time.time()) + at), "type": kind, kind: content}


def text(sender: str, wamid: str, said: str, at: int = 0) -> Update:
    """A text message."""
    return _message(sender, wamid, "text", {"body": said}, at)


def button(sender: str, wamid: str, chosen: str, title: str, at: int = 0) -> Update:
    """A tap on a reply button."""
    return _message(sender, wamid, "interactive", {"type": "button_reply", "button_reply": {"id": chosen, "title": title}}, at)


def image(sender: str, wamid: str, caption: str, at: int = 0) -> Update:
    """A picture with a caption."""
    content = {"id": f"media-{wamid}", "mime_type": "image/jpeg", "sha256": "c2hhMjU2", "caption": caption}
    return _message(sender, wamid, "image", content, at)


def reaction(sender: str, wamid: str, to: str, emoji: str, at: int = 0) -> Update:
    """A reaction to a message."""
    return _message(sender, wamid, "reaction", {"message_id": to, "emoji": emoji}, at)


def unknown(sender: str, wamid: str, at: int = 0) -> Update:
    """A type that nobody knows yet, with a NUL and half a character in it."""
    return _message(sender, wamid, "hologram", {"shape": "cat", "odd": "\x00\ud800"}, at)


def status(wamid: str, word: str, recipient: str, *, message_id: str | None = None, at: int = 10) -> Update:
    """A status of a message that was sent."""
    made: Update = {"id": wamid, "status": word, "timestamp": str(int(time.time()) + at), "recipient_id": recipient}
    return {**made, "biz_opaque_callback_data": message_id} if message_id else made
