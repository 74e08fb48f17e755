"""A bot that is started again is not compiled again, and what cannot be compiled harms nobody."""

from __future__ import annotations

from collections.abc import Mapping
from importlib.util import cache_from_source
from pathlib import Path

import pytest
from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.bytecode import Bytecode
from loquat_sandbox import Sandbox

from tests.bots import started

BOT = (
    "from loquat import Bot\nfrom texts.de import HELLO\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    raise KeyError(HELLO)\n"
)
FILES = {"bot.py": BOT, "texts/de.py": "HELLO = 'hallo'\n"}
SWOLLEN = "x = [" + ", ".join(f"'{n:04}' * 1000" for n in range(2_000)) + "]\n"
"""30 KB of source, 8 MB compiled."""


class Held:
    """A shelf with these files."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = files

    async def files(self, project: str, version: str) -> Mapping[str, str]:
        del project, version
        return self._files


def compiled(folder: Path) -> list[str]:
    return [path for path in FILES if Path(cache_from_source(folder / path)).exists()]


async def test_a_version_that_is_started_again_is_taken_as_it_was_compiled_aside(sandbox: Sandbox, bundles: Path) -> None:
    bytecode = Bytecode(Aside())
    made, said = Bundles(Held(FILES), bundles, bytecode.want), list[str]()
    folder = await made.of("prj", "v")
    assert bytecode._waiting.empty(), "many are never started again"
    await made.of("prj", "v")
    await bytecode.one()
    assert compiled(folder) == list(FILES)
    for path in FILES:  # nobody reads them any more
        (folder / path).chmod(0o644)
        (folder / path).write_text("this is no Python")
    worker = await started(sandbox, folder, lambda _event, _level, text: said.append(text))
    await worker.kill()
    assert said == []


async def test_what_cannot_be_compiled_is_left_to_the_bot_and_not_tried_again(bundles: Path) -> None:
    bytecode = Bytecode(Aside())
    made = Bundles(Held({"bot.py": SWOLLEN, "texts/de.py": "((\n"}), bundles, bytecode.want)
    folder = await made.of("prj", "v")
    await made.of("prj", "v")
    await bytecode.one()
    await made.of("prj", "v")
    assert bytecode._waiting.empty()
    assert compiled(folder) == []


@pytest.mark.parametrize("limit", [0.001, 10.0], ids=["too slow", "gone"])
async def test_a_version_that_takes_too_long_or_is_gone_leaves_nothing(bundles: Path, limit: float) -> None:
    bytecode = Bytecode(Aside(limit=limit))
    bytecode.want(bundles / "prj" / "v")
    await bytecode.one()
    assert not (bundles / "prj").exists()
