"""`loquat bot lock`: from names to versions and hashes, and never an address."""

from __future__ import annotations

import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from loquat_bot_runner.domain.packages import packages_of
from loquat_cli.app import build
from loquat_cli.commands.bot import BotRefused
from loquat_cli.commands.botlock import CannotLock

from tests.wheels import serving, wheel

Run = Callable[..., Awaitable[None]]


@pytest.fixture
def run() -> Run:
    async def command(*words: str) -> None:
        await build().run_async(words, result_action="return_value", exit_on_error=False)

    return command


async def test_a_lock_names_versions_and_hashes_keeps_them_until_an_upgrade_and_holds_no_address(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UV_NO_CONFIG", "1")
    monkeypatch.setenv("UV_CACHE_DIR", str(tmp_path / "cache"))
    async with serving() as index:
        monkeypatch.setenv("UV_DEFAULT_INDEX", index.url)
        index.add(wheel({}, "tiny", "1.0"))
        (tmp_path / "requirements.txt").write_text("tiny>=1.0\n")
        await run("bot", "lock", str(tmp_path), "--upgrade")
        index.add(wheel({}, "tiny", "2.0"))
        lock, versions = tmp_path / "requirements.lock", list[str]()
        for more in ((), ("--upgrade",)):
            await run("bot", "lock", str(tmp_path), *more)
            versions += [p.version for p in packages_of(lock.read_text())]
        assert versions == ["1.0", "2.0"]
        assert "127.0.0.1" not in lock.read_text()
        (tmp_path / "requirements.txt").write_text("nothing\n")
        with pytest.raises(CannotLock, match=r"could not lock requirements\.txt:\n(.|\n)*nothing"):
            await run("bot", "lock", str(tmp_path))


async def test_without_names_or_without_a_tool_it_says_what_to_do(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CannotLock, match=r"there is no requirements\.txt"):
        await run("bot", "lock", str(tmp_path))
    (tmp_path / "requirements.txt").touch()
    monkeypatch.setenv("PATH", "")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "python"))
    with pytest.raises(CannotLock, match=r"neither uv nor pip-compile is installed.*pip install uv"):
        await run("bot", "lock", str(tmp_path))


async def test_a_lock_that_the_platform_would_refuse_is_refused_by_check(run: Run, tmp_path: Path) -> None:
    (tmp_path / "bot.py").write_text("from loquat import Bot\nbot = Bot()\n")
    (tmp_path / "requirements.lock").write_text("\n-r more.txt\n")
    with pytest.raises(BotRefused, match=r"requirements\.lock, line 2: the option -r is not taken"):
        await run("bot", "check", str(tmp_path))
