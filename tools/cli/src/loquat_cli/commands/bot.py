"""`loquat bot`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

from cyclopts import Parameter

from loquat_cli.context import Context
from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain, when

_LARGEST: Final = 2 << 20  # bytes of a whole bot: the gateway takes 3 MB, and JSON writes some characters longer
_LEFT_OUT: Final = ("__pycache__", "node_modules")

Project = Annotated[str | None, Parameter(alias="-p")]


class NoBot(Trouble):
    """The folder holds no bot that could be sent."""


def read_bot(folder: Path) -> dict[str, str]:
    """A bot's files by their path below `folder`; what begins with a dot stays out.

    Raises:
        NoBot: no bot.py, a file that is no text, or too much in all.
    """
    if not (folder / "bot.py").is_file():
        raise NoBot(f"there is no bot.py in {folder.absolute()}")
    files: dict[str, str] = {}
    total = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") or part in _LEFT_OUT for part in inside.parts):
            continue
        total += path.stat().st_size
        if total > _LARGEST:
            raise NoBot(f"{folder} holds more than {_LARGEST >> 20} MB: is there something in it that is not the bot's?")
        try:
            files[inside.as_posix()] = path.read_text()
        except UnicodeDecodeError:
            raise NoBot(f"{path} is no UTF-8 text; a bot consists of text files") from None
    return files


async def deploy_bot(folder: Path, /, *, project: Project = None, message: Annotated[str, Parameter(alias="-m")] = "") -> None:
    """Deploy a bot: its next message is answered by this code.

    Parameters
    ----------
    folder
        With bot.py in it.
    project
        Id or name of the project; the demo project unless named.
    message
        What changed, for the history.
    """
    files, context = read_bot(folder), Context.load()
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        made = await rest.post(f"/v1/projects/{chosen}/bot/deployments", {"files": files, "message": message})
    console().print(f"{plain(chosen)} runs version {plain(made['version'][:12])} now ({len(files)} file{'s' * (len(files) > 1)})")


async def logs_bot(*, project: Project = None, limit: Annotated[int, Parameter(alias="-n")] = 50) -> None:
    """Show what a bot logged, the newest last.

    Parameters
    ----------
    project
        Id or name of the project; the demo project unless named.
    limit
        How many lines.
    """
    context = Context.load()
    async with context.rest() as rest:
        chosen = await context.project(rest, project)
        items = (await rest.get(f"/v1/projects/{chosen}/bot/logs", {"limit": limit}))["items"]
    for line in reversed(items):
        console().print(f"[dim]{when(line['at'])}[/] {plain(line['level']):7} {plain(line['line'])}")
