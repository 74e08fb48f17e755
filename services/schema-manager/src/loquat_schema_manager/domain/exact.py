"""JSON whose numbers stay as they were written: PostgreSQL keeps digits and exponents that a double has no room for."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from typing import Any, Final

FINE: Final = re.compile(rb"\d[.eE]|\d{16}")
"""Perhaps a number that a double rounds."""


@dataclass(frozen=True, slots=True)
class Number:
    """A number of a JSON text as it was written."""

    text: str

    def __str__(self) -> str:
        return self.text


def _no_number(token: str) -> None:
    raise ValueError(f"{token} is no JSON")


JSON: Final = json.JSONDecoder(parse_float=Number, parse_int=Number, parse_constant=_no_number)
"""Reads numbers as `Number`."""


def reading(raw: bytes) -> Any:
    """A JSON text with its numbers as they were written. None: plain reading rounds none of them, or it is no JSON."""
    if not FINE.search(raw):
        return None
    try:
        return JSON.decode(raw.decode())
    except (ValueError, RecursionError):
        return None


def written(value: Any) -> str:
    """JSON of what `JSON` has read, or of plain values.

    Raises:
        ValueError: a number that is not finite.
    """
    try:
        return json.dumps(value, allow_nan=False)  # whole numbers of any size, which orjson refuses
    except TypeError:
        return _written(value)


def _written(value: Any) -> str:
    match value:
        case Number():
            return value.text
        case dict():
            members: dict[str, Any] = value  # pyright: ignore[reportUnknownVariableType]
            return "{" + ",".join(f"{json.dumps(n)}:{_written(v)}" for n, v in members.items()) + "}"
        case list():
            items: list[Any] = value  # pyright: ignore[reportUnknownVariableType]
            return "[" + ",".join(map(_written, items)) + "]"
        case _:
            return json.dumps(value, allow_nan=False)
