"""What can be kept as JSON in the project's database."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from typing import Any, Final, cast

NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
"""U+0000 and halves of characters, which no text in PostgreSQL holds."""


DEEPEST: Final = 32
"""Levels of lists and objects in what the platform keeps for a bot and hands on: its readers have limits of their own."""


def is_deep(value: Any, deepest: int = DEEPEST) -> bool:
    """Whether lists and objects stand in each other at more levels. Without recursion: they may at very many."""
    level: list[Any] = [value]
    for _ in range(deepest):
        level = [inner for v in level for inner in _inside(v)]
        if not any(isinstance(v, dict | list | tuple) for v in level):
            return False
    return True


def _inside(value: Any) -> Iterable[Any]:
    return (
        cast("dict[Any, Any]", value).values()
        if isinstance(value, dict)
        else cast("list[Any]", value)
        if isinstance(value, list | tuple)
        else ()
    )


def as_json(value: Any, what: str, largest: int, refused: type[ValueError], *, deepest: int | None = None) -> str:
    """The value as JSON of at most `largest` bytes, and `deepest` levels of lists and objects.

    Raises:
        ValueError: of the type `refused`, naming what it is and the limit.
    """
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    except (TypeError, ValueError, RecursionError) as error:
        raise refused(f"{what} cannot be kept as JSON: {error}"[:300]) from None
    if NO_TEXT.search(text) or "\\u0000" in text.replace("\\\\", ""):
        raise refused(f"{what} holds U+0000 or half a character, which is no text")
    if (size := len(text.encode())) > largest:
        raise refused(f"{what} has {size:,} bytes as JSON; {largest:,} are the limit")
    if deepest is not None and is_deep(value, deepest):
        raise refused(f"{what} has more than {deepest} levels of lists and objects in each other; {deepest} are the limit")
    return text
