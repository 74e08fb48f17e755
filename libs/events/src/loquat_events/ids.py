"""Deterministic ids: the same fact has the same id however often it is delivered.

Each is a UUID version 5 of one namespace and a natural key. The parts of a key are joined by U+001F, which no part contains.
"""

from __future__ import annotations

from hashlib import sha1
from typing import Final
from uuid import UUID

NAMESPACE: Final = UUID("6a1f0f6e-8d5b-5c0a-9f0e-10c4a7000001")
_BEGUN: Final = sha1(NAMESPACE.bytes, usedforsecurity=False)
_SEPARATOR: Final = "\x1f"


def fact_id(kind: str, *parts: str) -> UUID:
    """The id of a fact of `kind` with this natural key."""
    key = _SEPARATOR.join((kind, *parts))
    if key.count(_SEPARATOR) != len(parts):
        key = _SEPARATOR.join((kind, *(p.replace(_SEPARATOR, " ") for p in parts)))
    digest = _BEGUN.copy()  # the standard library's uuid5, without hashing the namespace each time
    digest.update(key.encode())
    return UUID(bytes=digest.digest()[:16], version=5)


def message_id(phone_number_id: str, wamid: str) -> UUID:
    """A message as one number saw it. The number belongs to the key: both ends of a message may be numbers of this platform."""
    return fact_id("message", phone_number_id, wamid)


def status_id(phone_number_id: str, wamid: str, status: str, recipient: str, timestamp: str) -> UUID:
    """A status that Meta reported. `timestamp` is Meta's own text, in whole seconds."""
    return fact_id("status", phone_number_id, wamid, status, recipient, timestamp)


def update_id(phone_number_id: str, field: str, canonical: str) -> UUID:
    """An update without a natural key: `canonical` is its JSON with sorted keys and no white space."""
    return fact_id("update", phone_number_id, field, canonical)


def order_id(project: str, idempotency_key: str) -> UUID:
    """A person's or a program's order, by the `Idempotency-Key` of the request."""
    return fact_id("order", project, idempotency_key)


def schedule_id(project: str, automation: UUID, due_at: str) -> UUID:
    """A schedule's time, in UTC; or a request to run it now, by a word of its own."""
    return fact_id("schedule", project, str(automation), due_at)


def contact_order_id(project: str, kind: str, *contacts: str) -> UUID:
    """An order to merge or to erase contacts: the same wish is the same order."""
    return fact_id("contact order", project, kind, *contacts)


def change_id(cause: UUID, what: str) -> UUID:
    """A consequence of another event: the same cause gives the same consequence."""
    return fact_id("change", str(cause), what)
