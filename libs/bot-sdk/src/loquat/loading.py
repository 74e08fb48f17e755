"""A bot's folder: the one `Bot` that its `bot.py` makes."""

from __future__ import annotations

import importlib
import sys
import sysconfig
import traceback
from pathlib import Path

from loquat.bot import Bot
from loquat.protocol import shortened

_LONGEST_TRACE = 8000


def load(folder: Path, packages: str = "") -> Bot:
    """The bot of a folder. `packages`: another folder, of what it may import besides; "": nothing.

    Raises:
        Exception: whatever importing it raises, or that there is not exactly one.
    """
    if str(folder) not in sys.path:
        sys.path.insert(0, str(folder))
    if packages and packages not in sys.path:
        sys.path.insert(_behind_pythons_own(), packages)
    module = importlib.import_module("bot")
    found = list({id(v): v for v in vars(module).values() if isinstance(v, Bot)}.values())
    if len(found) != 1:
        raise TypeError(f"bot.py must make exactly one Bot; it makes {len(found)}")
    return found[0]


def _behind_pythons_own() -> int:
    """Before installed packages, or a bot would get the version that the platform happens to have for itself. The SDK's own are not in any layer."""
    installed = {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}
    return next((place for place, path in enumerate(sys.path) if path in installed), len(sys.path))


def own_trace(error: BaseException, folder: Path) -> str:
    """The traceback with the bot's own frames only, files relative to its folder."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if Path(f.filename).is_relative_to(folder)]
    lines = [f'  File "{Path(f.filename).relative_to(folder)}", line {f.lineno}, in {f.name}\n    {f.line}\n' for f in frames]
    said = "".join(traceback.format_exception_only(type(error), error)).replace(f"{folder}/", "")  # a syntax error names its file
    return shortened("".join(lines) + said, _LONGEST_TRACE)


def forget(home: Path) -> None:
    """Takes the modules of this bot, and of the one that was loaded before it, from those that Python knows. Tests and libraries stay."""
    before = getattr(sys.modules.get("bot"), "__file__", None)
    homes = [home, *([Path(before).resolve().parent] if before is not None else [])]
    for known, module in list(sys.modules.items()):
        file = Path(getattr(module, "__file__", None) or "/")
        inside = [part for h in homes if file.is_relative_to(h) for part in file.relative_to(h).parts]
        if inside and not any(p.startswith((".", "test")) or p in {"conftest.py", "site-packages"} for p in inside):
            del sys.modules[known]
    importlib.invalidate_caches()
