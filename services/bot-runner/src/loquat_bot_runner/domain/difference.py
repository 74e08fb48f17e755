"""What differs between two bundles."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Literal

_MOST_LINES: Final = 5_000
"""Lines of a file up to which it is compared line by line: the comparison grows with their product."""


@dataclass(frozen=True, slots=True)
class FileChange:
    """One file. `diff` is unified; None where the file is too long to be compared."""

    path: str
    status: Literal["added", "removed", "changed"]
    diff: str | None
    added: int
    removed: int


def difference(old: Mapping[str, str], new: Mapping[str, str]) -> Iterator[FileChange]:
    """The files that differ, by path."""
    for path in sorted({*old, *new}):
        before, after = old.get(path), new.get(path)
        if before == after:
            continue
        status = "added" if before is None else "removed" if after is None else "changed"
        lines = _lines(before or ""), _lines(after or "")
        if max(map(len, lines)) > _MOST_LINES and status == "changed":
            yield FileChange(path, status, None, len(lines[1]), len(lines[0]))
            continue
        names = f"a/{path}" if before is not None else "/dev/null", f"b/{path}" if after is not None else "/dev/null"
        found = [*difflib.unified_diff(*lines, *names)]
        counted = [line[:1] for line in found[2:]]
        yield FileChange(path, status, "".join(found), counted.count("+"), counted.count("-"))


def _lines(text: str) -> list[str]:
    """Whole lines; a last one without an end is told as `diff` tells it."""
    lines = text.split("\n")
    whole = [f"{line}\n" for line in lines[:-1]]
    return [*whole, f"{lines[-1]}\n\\ No newline at end of file\n"] if lines[-1] else whole
