"""The ids of an event's replies: the same in every process, and in the project database (`loquat.reply_id`)."""

from __future__ import annotations

import hashlib
from uuid import UUID


def reply_id(event: UUID, n: int) -> UUID:
    """Of the n-th reply, counted from 1: a UUID version 8 of a sha-256 (core Postgres has no sha-1 for a version 5)."""
    digest = bytearray(hashlib.sha256(event.bytes + n.to_bytes(4, "big", signed=True)).digest()[:16])
    digest[6] = digest[6] & 0x0F | 0x80
    digest[8] = digest[8] & 0x3F | 0x80
    return UUID(bytes=bytes(digest))
