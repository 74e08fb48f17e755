"""What can be kept as JSON in the project's database."""

from __future__ import annotations

import json
import re
from typing import Any, Final

NO_TEXT: Final = re.compile("[\x00\ud800-\udfff]")
"""U+0000 and halves of characters, which no text in PostgreSQL holds."""


def as_json(value: Any, what: str, largest: int, refused: type[ValueError]) -> str:
    """The value as JSON of at most `largest` bytes.

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
    return text
