"""`loquat bot lock`."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loquat_bot_runner.domain.packages import LOCK, flaws, packages_of

from loquat_cli.errors import Trouble
from loquat_cli.show import console, plain

WANTED: Final = "requirements.txt"
_PLAIN: Final = ("--generate-hashes", "--no-header", "--no-annotate", "--strip-extras", "--quiet")
"""What both tools understand. Neither writes where the packages come from: that is the platform's to say."""


class CannotLock(Trouble):
    """There is nothing to lock, or nobody to do it."""


async def lock_bot(folder: Path = Path(), /, *, upgrade: bool = False) -> None:
    """Write requirements.lock from requirements.txt: the packages that the bot needs, each of one version, with hashes.

    With the tool that is installed, `uv` or `pip-compile`, and from where that is configured to look.

    Parameters
    ----------
    folder
        With requirements.txt in it.
    upgrade
        Take the newest versions, not those that the lock names already.
    """
    wanted, lock = folder / WANTED, folder / LOCK
    if not wanted.is_file():
        raise CannotLock(f"there is no {WANTED} in {folder}: write the names of packages into it, one a line, such as phonenumbers~=9.0")
    with tempfile.TemporaryDirectory(prefix="loquat-lock-") as made:
        new = Path(made) / LOCK
        if lock.is_file() and not upgrade:
            shutil.copy(lock, new)
        await _run([*_tool(), *_PLAIN, *(("--upgrade",) if upgrade else ()), "-o", str(new), WANTED], folder)
        text = new.read_text(encoding="utf-8")
    if found := [*flaws(text)]:
        first = found[0]
        raise CannotLock(f"what would be {LOCK} is not taken by the platform: line {first.line}: {first.message}")
    lock.write_text(text, encoding="utf-8")
    many = len(packages_of(text))
    console().print(f"{plain(lock)}: {many} package{'s' * (many != 1)}. To have them here too: [bold]pip install -r {plain(lock)}[/]")


def _tool() -> list[str]:
    """The program and how it is told to take wheels alone.

    Raises:
        CannotLock: there is none.
    """
    places = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    if (uv := shutil.which("uv", path=places)) is not None:
        python = f"{sys.version_info.major}.{sys.version_info.minor}"
        return [uv, "pip", "compile", "--universal", "--no-build", "--python-version", python]
    if (compile_ := shutil.which("pip-compile", path=places)) is not None:
        return [compile_, "--no-emit-index-url", "--no-emit-trusted-host", "--no-emit-find-links", "--no-emit-options", "--allow-unsafe"]
    raise CannotLock(f"neither uv nor pip-compile is installed, of which one is needed: {sys.executable} -m pip install uv")


async def _run(command: Sequence[str], folder: Path) -> None:
    """In the folder, or paths that stand in the file would mean others."""
    process = await asyncio.create_subprocess_exec(*command, cwd=folder, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE)
    _, said = await process.communicate()
    if process.returncode:
        raise CannotLock(f"{Path(command[0]).name} could not lock {WANTED}:\n{said.decode(errors='replace').strip()}")
