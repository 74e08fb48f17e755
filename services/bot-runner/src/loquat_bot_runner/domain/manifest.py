"""`loquat.toml`: what may stand in it."""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

NAME: Final = "loquat.toml"
KEYS: Final[dict[str, type]] = {"name": str, "description": str}
"""What is known, with its type. Anything else is refused: a key that is misspelt would be silently without effect."""
_KINDS: Final = {str: "a text", int: "a whole number", bool: "true or false", dict: "a table", list: "a list"}
_PLACE: Final = re.compile(r" \(at line (\d+), column \d+\)$")


@dataclass(frozen=True, slots=True)
class Wrong:
    """What is wrong in a TOML file, and where."""

    code: str
    message: str
    advice: str
    line: int | None = None


def flaws(path: str, content: str) -> Iterator[Wrong]:
    """Of any TOML file, that it does not parse; of the bot's own, keys that are not known."""
    try:
        found = tomllib.loads(content)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        place = _PLACE.search(str(error))
        yield Wrong("toml", str(error) or "nested too deeply", "this is no TOML", int(place[1]) if place else None)
        return
    if path != NAME:
        return
    for key, value in found.items():
        if key not in KEYS:
            near = difflib.get_close_matches(key, KEYS, 1)
            advice = f"do you mean {near[0]!r}?" if near else f"known are {', '.join(KEYS)}"
            yield Wrong("unknown_key", f"the key {key[:60]!r} is not known", advice, _line(content, key))
        elif type(value) is not KEYS[key]:
            yield Wrong("wrong_type", f"{key!r} must be {_KINDS[KEYS[key]]}", f'such as {key} = "..."', _line(content, key))


def _line(content: str, key: str) -> int | None:
    """Where a key of the top level stands, as far as that is plain to see."""
    written = re.compile(rf"^[ \t]*(?:\[+[ \t]*)?[\"']?{re.escape(key)}[\"']?[ \t]*[\].=]", re.MULTILINE)
    place = written.search(content)
    return content.count("\n", 0, place.start()) + 1 if place else None
