"""`loquat bot`."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Final

from loquat.protocol import Ready
from loquat_bot_runner.domain import bundle

from loquat_cli.errors import Trouble
from loquat_cli.pytests import run_pytest, scratch_database
from loquat_cli.services import starter_bot
from loquat_cli.settings import StackSettings
from loquat_cli.show import console, plain, program, table
from loquat_cli.trial import on_trial

_LARGEST: Final = 2 << 20  # bytes of a whole bot: the gateway takes 3 MB, and JSON writes some characters longer
_LEFT_OUT: Final = ("__pycache__", "node_modules")


class NoBot(Trouble):
    """The folder holds no bot that could be sent."""


class BotRefused(Trouble):
    """The bot would not be deployed, or would not load."""


class NotEmpty(Trouble):
    """The folder of a new bot has something in it."""


def bot_paths(folder: Path) -> list[Path]:
    """The files below a folder that are a bot's, in order."""
    found = [p for p in sorted(folder.rglob("*")) if p.is_file()]
    return [p for p in found if not any(part.startswith(".") or part in _LEFT_OUT for part in p.relative_to(folder).parts)]


def read_bot(folder: Path) -> dict[str, str]:
    """A bot's files by their path below `folder`; what begins with a dot stays out.

    Raises:
        NoBot: no bot.py, a file that is no text or is a link to one that is not the bot's, or too much in all.
    """
    if not (folder / "bot.py").is_file():
        raise NoBot(f"there is no bot.py in {folder.absolute()}")
    files: dict[str, str] = {}
    total = 0
    whole = folder.resolve()
    for path in bot_paths(folder):
        if not path.resolve().is_relative_to(whole):  # somebody else's bot could have a link to what is secret here
            raise NoBot(f"{path} is a link that leads out of {folder}; put the file itself there")
        total += path.stat().st_size
        if total > _LARGEST:
            raise NoBot(f"{folder} holds more than {_LARGEST >> 20} MB: is there something in it that is not the bot's?")
        try:
            files[path.relative_to(folder).as_posix()] = path.read_text()
        except UnicodeDecodeError:
            raise NoBot(f"{path} is no UTF-8 text; a bot consists of text files") from None
    return files


def init_bot(folder: Path, /) -> None:
    """Make a new bot: one that works, with its tests.

    Parameters
    ----------
    folder
        Where; it must be empty or not there.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise NotEmpty(f"{folder} is there and not empty; a new bot needs a folder of its own")
    template = starter_bot(StackSettings())
    files = read_bot(template)
    name = re.sub(r"[^\w.-]+", "-", folder.absolute().name) or "bot"
    files["loquat.toml"] = f"name = {json.dumps(name)}\n"
    files["README.md"] = (
        f"# {name}\n\n```\nloquat bot check .\nloquat bot test .\nloquat bot run . --project ID\nloquat bot deploy . --project ID\n```\n"
    )
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(content)
    console().print(f"made {plain(folder)} ({len(files)} files). Next:\n")
    for word in ("check", "test", "run", "deploy"):
        console().print(f"  {plain(program())} bot {word} {plain(folder)}")


async def declarations(files: Mapping[str, str]) -> Ready:
    """What a bot declares, loaded as the platform would; what it prints meanwhile is shown.

    Raises:
        BotRefused: it would not be deployed, or does not load.
    """
    try:
        bundle.checked(files)
    except bundle.BundleRefused as refused:
        raise BotRefused(f"the bot would be refused: {refused}") from None
    trial = await on_trial(files)
    if trial.printed:
        console().print(f"[dim]{plain(trial.printed.rstrip())}[/]\n")
    if trial.ready is None:
        raise BotRefused(f"the bot does not load:\n{trial.error.rstrip()}{_missing(files, trial.error)}")
    if not trial.ready.handlers:
        raise BotRefused("the bot has no handler: add one with @bot.state('unstructured') or @bot.fallback")
    return trial.ready


def unlocked(files: Mapping[str, str]) -> None:
    """Says that packages are named which the bot will not have."""
    if "requirements.txt" in files and "requirements.lock" not in files:
        said = (
            f"[yellow]there is no requirements.lock: what requirements.txt names is not installed[/]; {plain(program())} bot lock writes it"
        )
        console(stderr=True).print(said)


def _missing(files: Mapping[str, str], error: str) -> str:
    """What to do about a module that is not there, if a lock names packages: here it may be missing while the platform has it."""
    if "ModuleNotFoundError" not in error or "requirements.lock" not in files:
        return ""
    return "\nThe packages of its lock must be installed here, too: pip install -r requirements.lock"


async def check_bot(folder: Path = Path(), /) -> None:
    """Load a bot as the platform would, and list its states and handlers.

    Parameters
    ----------
    folder
        With bot.py in it.
    """
    files = read_bot(folder)
    unlocked(files)
    ready, out = await declarations(files), console()
    states, handlers = ready.states, ready.handlers
    out.print(table(("WHEN", "STATE", "HANDLER", "WHERE"), [(h.when, h.state, h.handler, h.where) for h in handlers]))
    out.print(f"\n{len(states)} state{'s' * (len(states) != 1)}: {plain(', '.join(states)) or 'none'}")
    for need in ready.needs:
        out.print(f"needs the table {plain(need.table)}{plain(' with ' + ', '.join(need.columns)) if need.columns else ''}")
    if not {("fallback", ""), ("anything else", "unstructured")} & {(h.when, h.state) for h in handlers}:
        out.print("[yellow]what no rule takes is not answered: add @bot.fallback or @bot.state('unstructured')[/]")


async def test_bot(folder: Path = Path(), /, *for_pytest: str, database: bool = True) -> None:  # noqa: PT028  (a command, no test)
    """Run a bot's tests with pytest, and a throw-away PostgreSQL for ctx.db.

    Parameters
    ----------
    folder
        With bot.py in it. If it has a virtual environment (.venv), its pytest is the one that runs.
    for_pytest
        Options for pytest, after `--`.
    database
        Without one, tests that need it are skipped or fail. LOQUAT_SCRATCH_DATABASE names another than the throw-away one.
    """
    read_bot(folder)
    async with AsyncExitStack() as stack:
        environment: Mapping[str, str] = await stack.enter_async_context(scratch_database()) if database else {}
        code = await run_pytest(folder, for_pytest, environment)
    sys.exit(code)
