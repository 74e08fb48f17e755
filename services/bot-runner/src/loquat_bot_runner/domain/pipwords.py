"""Why pip could not fetch what a lock names: read from what it wrote, told to the bot's owner without addresses."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

_NOT_FETCHED: Final = re.compile(r"Could not fetch URL (\S+): (.*) - skipping")
_NOT_FOUND: Final = re.compile(r"No matching distribution found for ([\w.-]+)==([\w.!+-]+)")
_SKIPPED: Final = re.compile(r"Skipping link: (?:No sources permitted for \S+|none of the wheel's tags \(([^)]*)\) .*\)): (\S+)")
_OTHER_PYTHON: Final = re.compile(r"Link requires a different Python \(\S+ not in: '([^']*)'\): (\S+)")
_MISMATCH: Final = "DO NOT MATCH THE HASHES"
_MISMATCHED: Final = re.compile(r"^\s+([\w.-]+)==([\w.!+-]+) from ")
_INVALID: Final = re.compile(r"Invalid requirement: '([\w.-]+)==")
_BROKEN: Final = re.compile(
    r"Wheel '([\w.-]+)' .* is invalid|ERROR: ([\w.-]+) has an invalid wheel|Requested ([\w.-]+)==.* has inconsistent "
)
_CRASHED: Final = re.compile(
    r"(?:\w+\.)*(?:MemoryError|RecursionError|UndefinedComparison|InvalidVersion|BadMetadata|zlib\.error)(?::|$)|ERROR: Error decoding metadata "
)
"""What ends pip for what the packages and their conditions are. Another error may be this machine's."""
_TOO_LARGE: Final = "[Errno 27] File too large"
LONGEST_LINE: Final = 1000
"""Characters. Names in wheels stand in pip's words as they are: an expression that looks for its end in each of them at every place takes hours."""
_ELSEWHERE: Final = "lock a version that has wheels for Linux and this Python, with `loquat bot lock`"


@dataclass(slots=True)
class PipWords:
    """What was read of pip's words, line by line."""

    unfetched: list[str] = field(default_factory=list[str])
    missing: tuple[str, str] | None = None
    skipped: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])
    mismatch: bool = False
    mismatched: str | None = None
    malformed: str | None = None
    broken: str | None = None
    too_large: bool = False
    crashed: bool = False

    def read(self, line: str) -> None:
        """Takes note of a line, or of its beginning."""
        line = line[:LONGEST_LINE]
        self.crashed |= _CRASHED.match(line) is not None
        if found := _NOT_FETCHED.search(line):
            self.unfetched.append(found[2])
        elif found := _SKIPPED.search(line):
            self.skipped.append((_file(found[2]), "no wheel" if found[1] is None else f"wheels for {found[1]} only"))
        elif found := _OTHER_PYTHON.search(line):
            self.skipped.append((_file(found[2]), f"files for Python {found[1]} only"))
        elif found := _NOT_FOUND.search(line):
            self.missing = (found[1], found[2])
        elif _MISMATCH in line:
            self.mismatch = True
        elif self.mismatch and self.mismatched is None and (found := _MISMATCHED.match(line)):
            self.mismatched = f"{found[1]} {found[2]}"
        elif found := _INVALID.search(line):
            self.malformed = found[1]
        elif found := _BROKEN.search(line):
            self.broken = found[1] or found[2] or found[3]
        elif _TOO_LARGE in line:
            self.too_large = True

    def refusal(self) -> str | None:
        """Why what the lock names cannot be installed, whoever tries; None: nothing of it is the bot's fault, or nobody knows."""
        return self._of_a_file() or self._of_the_index()

    def _of_a_file(self) -> str | None:
        if self.mismatch:
            which = self.mismatched or "a package"
            return f"{which}: what the index has is not what the lock's hashes say; lock it again if you trust it now (`loquat bot lock`)"
        if self.malformed is not None:
            return f"{self.malformed}: its condition cannot be read; write the lock with `loquat bot lock`"
        if self.broken is not None:
            return f"{self.broken} is no wheel that can be read"
        if self.too_large:
            return "a package is larger than all of them may be unpacked"
        if self.crashed:
            return "what the packages say of themselves, or a condition in the lock, cannot be read, or not with the memory that there is for it"
        return None

    def _of_the_index(self) -> str | None:
        if self.missing is None or any(not reason.startswith("404 ") for reason in self.unfetched):
            return None
        name, version = self.missing
        if self.unfetched:
            return f"{name}: the index knows no such package; is the name right?"
        return f"{name} {version}: {self._why_not(name, version)}"

    def _why_not(self, name: str, version: str) -> str:
        begin = re.compile(rf"{re.sub('[-_.]+', '[-_.]+', re.escape(name))}-{re.escape(version)}(-|\.tar|\.zip)", re.IGNORECASE)
        reasons = {reason for file, reason in self.skipped if begin.match(file)}
        if only := sorted(reasons - {"no wheel"}):
            return f"the index has {'; '.join(only[:5])}; {_ELSEWHERE}"
        if reasons:
            return f"the index has no wheel of it, only its source, which is not built here; {_ELSEWHERE}"
        return "the index has no such version"


def _file(url: str) -> str:
    return url.partition("#")[0].rpartition("/")[2]


def read(lines: Iterable[str]) -> PipWords:
    """All of them."""
    words = PipWords()
    for line in lines:
        words.read(line)
    return words
