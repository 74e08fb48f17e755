"""Looking for words in a bundle."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Final

MOST: Final = 200
"""Matches that are shown."""
_LONGEST: Final = 300  # characters of a line that are shown


@dataclass(frozen=True, slots=True)
class Match:
    """A line that has the words."""

    path: str
    line: int
    text: str


def search(files: Mapping[str, str], words: str) -> list[Match]:
    """Lines, and paths (as line 0), in which the words stand, upper and lower case being no matter."""
    return list(islice(_matches(files, words.casefold()), MOST))


def _matches(files: Mapping[str, str], words: str) -> Iterator[Match]:
    for path in sorted(files):
        if words in path.casefold():
            yield Match(path, 0, path)
        for number, line in enumerate(files[path].split("\n"), 1):
            if words in line.casefold():
                yield Match(path, number, line.strip()[:_LONGEST])
