"""Log files that do not grow without end, and their last words."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Final

_TAIL: Final = 64 << 10  # bytes read from the end


def bound(log: Path, limit: int) -> None:
    """Puts a log of more than `limit` bytes aside as `.1` and empties it.

    Its process keeps writing to the same file, at the end, so it need not be told. A line written in the milliseconds of the copy is lost:
    these are the logs of one machine's embedded stack, a production logs elsewhere.
    """
    try:
        if log.stat().st_size <= limit:
            return
    except FileNotFoundError:
        return
    shutil.copyfile(log, log.with_name(f"{log.name}.1"))
    os.truncate(log, 0)


def last_lines(log: Path, count: int) -> list[str]:
    """The end of a log; nothing where there is none."""
    try:
        with log.open("rb") as file:
            file.seek(max(0, file.seek(0, os.SEEK_END) - _TAIL))
            text = file.read().decode(errors="replace")
    except FileNotFoundError:
        return []
    return [line for line in text.splitlines() if line.strip()][-count:]
