"""Opaque cursors of pages by key: the sort key of the last row seen, so that a page is found without counting."""

from __future__ import annotations

import base64
import binascii
from datetime import UTC, datetime
from uuid import UUID

from loquat_common.problems import Problem


def encode(at: datetime, row: UUID) -> str:
    """The cursor behind this row."""
    return base64.urlsafe_b64encode(f"{at.isoformat()} {row}".encode()).decode().rstrip("=")


def decode(cursor: str | None) -> tuple[datetime, UUID] | None:
    """The key; None for the first page.

    Raises:
        Problem: 400 `invalid_cursor`.
    """
    if cursor is None:
        return None
    try:
        at, _, row = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode().partition(" ")
        moment = datetime.fromisoformat(at)
        if moment.tzinfo is None:
            raise ValueError(at)
        return moment.astimezone(UTC), UUID(row)
    except (ValueError, OverflowError, binascii.Error):
        raise Problem(400, "invalid_cursor", "The cursor is none of ours", "Take it from `next_cursor` of the page before") from None
