"""Secrets that a bot's words hold are blotted out before the words are kept."""

from __future__ import annotations

import json
import re
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping
from typing import Final
from urllib.parse import quote, quote_plus

from loquat.protocol import CUT

SHORTEST: Final = 6
"""Characters of a secret that is blotted out: a shorter one would blot out half of what people write."""
_MANY: Final = 200
"""Values, in all forms, of which no pattern is made: it would take longer than it saves (2 s for the most that a project may have)."""
_FOR_URLS: Final = str.maketrans("+/", "-_")


class Redactor:
    """Knows values by the names of their secrets, as they are and as programs write them down; of one with several lines (a key, say) every line, too.

    Where words were cut, the head of a value that the cut has left goes as well. What it costs depends on the words, not on how many secrets there are.
    """

    def __init__(self, *secrets: Mapping[str, str]) -> None:
        """`secrets`: what is told to the bot now, and what it was told before."""
        self._names: dict[str, str] = {}
        for values in secrets:
            for name, value in values.items():
                for part in (*_forms(value.strip()), *value.splitlines()):
                    if len(part.strip()) >= SHORTEST:
                        self._names.setdefault(part.strip(), name)
        self._by_head: dict[str, list[str]] = {}
        for part in sorted(self._names, key=lambda p: (-len(p), p)):
            self._by_head.setdefault(part[:SHORTEST], []).append(part)
        self._pattern = re.compile(_one_of(self._by_head)) if len(self._by_head) <= _MANY else None

    def __call__(self, text: str) -> str:
        """The text, with the name of the secret in place of its value."""
        if not self._by_head:
            return text
        kept, begin, at = list[str](), 0, self._head(text, 0)
        while at is not None:
            end = at + 1
            if (found := self._found(text, at)) is not None:
                name, end = found
                kept += [text[begin:at], f"[secret {name}]"]
                begin = end
            at = self._head(text, end)
        return "".join([*kept, text[begin:]])

    def _head(self, text: str, at: int) -> int | None:
        """Where the next one begins that may be a value."""
        if self._pattern is not None:
            head = self._pattern.search(text, at)
            return head.start() if head is not None else None
        return next((i for i in range(at, len(text) - SHORTEST + 1) if text[i : i + SHORTEST] in self._by_head), None)

    def _found(self, text: str, at: int) -> tuple[str, int] | None:
        """Whose value begins here, and where it ends; the longest one first."""
        parts = self._by_head[text[at : at + SHORTEST]]
        for part in parts:
            if text.startswith(part, at):
                return self._names[part], at + len(part)
        for part in parts:
            cut = text.find(CUT, at, at + len(part))
            if cut > 0 and part.startswith(text[at:cut]):
                return self._names[part], cut
        return None


def _one_of(words: Iterable[str]) -> str:
    """A pattern that looks at a character of the text a few times, however many words there are. They are all of one length."""
    by_first: dict[str, list[str]] = {}
    for word in words:
        if word:
            by_first.setdefault(word[0], []).append(word[1:])
    return f"(?:{'|'.join(re.escape(first) + _one_of(rest) for first, rest in sorted(by_first.items()))})" if by_first else ""


def _forms(secret: str) -> Iterator[str]:
    """As it is, in a URL, in JSON, in Python's own words, and in base64: there by what stands before it, so in three ways."""
    yield secret
    yield from (quote(secret, safe=""), quote_plus(secret))
    yield from (json.dumps(secret)[1:-1], json.dumps(secret, ensure_ascii=False)[1:-1], repr(secret)[1:-1])
    data = secret.encode()
    for before in range(3):
        written = b64encode(bytes(before) + data).decode()
        own = written[-(-before * 8 // 6) : (before + len(data)) * 8 // 6]  # characters of six bits that are all the secret's
        yield from (own, own.translate(_FOR_URLS))
