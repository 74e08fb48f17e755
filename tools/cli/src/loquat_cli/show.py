"""How things look on the terminal."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.markup import escape
from rich.table import Table

_PIPE: Final = 300  # columns
_CONTROL: Final = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f]")


def console(*, stderr: bool = False) -> Console:
    """The terminal; a file or a pipe gets long lines whole."""
    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal:
        made.width = _PIPE
    return made


def plain(text: object) -> str:
    """Text of others, such as a contact's name: no markup, no control characters that would steer the terminal."""
    return escape(_CONTROL.sub("\N{REPLACEMENT CHARACTER}", "" if text is None else str(text)))


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> Table:
    """A table without lines, readable by people and by `awk`."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, overflow="fold")
    for row in rows:
        made.add_row(*(plain(cell) for cell in row))
    return made


def when(text: str | None) -> str:
    """A time of the API, in this machine's zone."""
    return datetime.fromisoformat(text).astimezone().strftime("%Y-%m-%d %H:%M:%S") if text else ""


def size(count: float) -> str:
    """Bytes as people say them."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:  # noqa: PLR2004  (the SI's step)
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"


def program() -> str:
    """How this command is called here: by its name where the shell finds it, else by its path."""
    called = Path(sys.argv[0])
    found = shutil.which("loquat")
    if called.name != "loquat" or (found is not None and Path(found).resolve() == called.resolve()):
        return "loquat"
    try:
        return str(called.absolute().relative_to(Path.cwd()))
    except ValueError:
        return str(called)
