"""Secrets that a bot's words hold are blotted out before the words are kept."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

SHORTEST: Final = 6
"""Characters of a secret that is blotted out: a shorter one would blot out half of what people write."""


class Redactor:
    """Knows values by the names of their secrets; of one with several lines (a key, say) every line, too."""

    def __init__(self, *secrets: Mapping[str, str]) -> None:
        """`secrets`: what is told to the bot now, and what it was told before."""
        self._names: dict[str, str] = {}
        for values in secrets:
            for name, value in values.items():
                for part in (value, *value.splitlines()):
                    if len(part.strip()) >= SHORTEST:
                        self._names.setdefault(part.strip(), name)
        longest_first = sorted(self._names, key=lambda p: (-len(p), p))
        self._pattern = re.compile("|".join(map(re.escape, longest_first))) if longest_first else None

    def __call__(self, text: str) -> str:
        """The text, with the name of the secret in place of its value."""
        return text if self._pattern is None else self._pattern.sub(lambda found: f"[secret {self._names[found.group()]}]", text)
