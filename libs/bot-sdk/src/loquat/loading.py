"""A bot's folder: the one `Bot` that its `bot.py` makes."""

from __future__ import annotations

import importlib
import sys
import traceback
from pathlib import Path

from loquat.bot import Bot

_LONGEST_TRACE = 8000


def load(folder: Path) -> Bot:
    """The bot of a folder.

    Raises:
        Exception: whatever importing it raises, or that there is not exactly one.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    module = importlib.import_module("bot")
    found = list({id(v): v for v in vars(module).values() if isinstance(v, Bot)}.values())
    if len(found) != 1:
        raise TypeError(f"bot.py must make exactly one Bot; it makes {len(found)}")
    return found[0]


def own_trace(error: BaseException, folder: Path) -> str:
    """The traceback with the bot's own frames only, files relative to its folder."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    lines = [f'  File "{Path(f.filename).relative_to(folder)}", line {f.lineno}, in {f.name}\n    {f.line}\n' for f in frames]
    said = "".join(traceback.format_exception_only(type(error), error)).replace(f"{folder}/", "")  # a syntax error names its file
    return ("".join(lines) + said)[:_LONGEST_TRACE]
