"""The reference is what the code says: complete, the committed one, and nothing that changes from run to run."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import loquat
from loquat import Bot, Context
from loquat.reference import page
from loquat.testing import BotTester

COMMITTED = Path(__file__).resolve().parents[3] / "docs" / "sdk.md"


def test_the_committed_reference_is_that_of_the_code() -> None:
    assert COMMITTED.read_text() == page(), "run `make docs`"


def test_it_names_all_that_a_bot_imports_and_is_the_same_in_every_process() -> None:
    made = page()
    missing = [n for n in loquat.__all__ if not re.search(rf"^(#+ (.*: )?|\| `){n}\b|\bimport {n}\b", made, re.MULTILINE)]
    assert missing == ["Next"], "the type of what a middleware awaits is told of there"
    assert " at 0x" not in made
    command = [sys.executable, "-c", "from loquat.reference import page; print(page(), end='')"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout == made  # noqa: S603


async def test_it_tells_of_every_attribute_of_a_context() -> None:
    bot, seen = Bot(), set[str]()

    @bot.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        seen.update(name for name in vars(ctx) if not name.startswith("_"))

    await BotTester(bot).send("hi")
    told = set(re.findall(r"^\| `ctx\.(\w+)`", page(), re.MULTILINE))
    assert seen - told <= {"manner", "joins"}, "what is not told of is the worker's"
