"""Answers of Meta's, read to a bound."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

_LARGEST: Final = 1 << 20


async def whole(content: aiohttp.StreamReader) -> bytes:
    """The body to its end, as far as it is looked at: one `read` gives what has come so far."""
    body = b""
    while len(body) < _LARGEST and (piece := await content.read(_LARGEST - len(body))):
        body += piece
    return body


def parsed(raw: bytes) -> dict[str, Any] | None:
    """The object that it is; None: none."""
    try:
        body = orjson.loads(raw)
    except orjson.JSONDecodeError:
        return None
    return body if isinstance(body, dict) else None  # pyright: ignore[reportUnknownVariableType]  (JSON)
