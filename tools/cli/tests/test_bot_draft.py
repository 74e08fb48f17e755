"""`loquat bot push`, `pull`, `versions`, `diff`, `logs --follow` against a real gateway before bot-runner's real rows."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import TestServer
from loquat_cli.app import build
from loquat_cli.commands import botlogs
from loquat_cli.commands.botdraft import Conflict

from conftest import Platform
from services.gateway.tests.front import Front, open_front
from tests.system.world import until

Run = Callable[..., Coroutine[Any, Any, None]]


@pytest.fixture
async def front(platform: Platform) -> AsyncGenerator[Front]:
    async with open_front(platform) as made:
        await made.made("prj")
        yield made


@pytest.fixture
async def run(front: Front, monkeypatch: pytest.MonkeyPatch) -> Run:
    monkeypatch.setenv("LOQUAT_URL", str(front.client.make_url("")))
    monkeypatch.setenv("LOQUAT_API_KEY", await front.key())

    async def command(*words: str) -> None:
        await build().run_async([*words, "--project", "prj"], result_action="return_value", exit_on_error=False)

    return command


def bot(folder: Path, reply: str) -> str:
    folder.mkdir(exist_ok=True)
    (folder / "bot.py").write_text(f"REPLY = {reply!r}\n")
    return str(folder)


async def test_two_people_push_and_pull_and_neither_overwrites_the_other_unseen(run: Run, tmp_path: Path) -> None:
    anna, bert = bot(tmp_path / "anna", "one"), str(tmp_path / "bert")
    await run("bot", "push", anna)
    await run("bot", "pull", bert)
    assert (tmp_path / "bert" / "bot.py").read_text() == "REPLY = 'one'\n"
    await run("bot", "push", bot(tmp_path / "anna", "two"))
    with pytest.raises(Conflict, match="changed by somebody else"):
        await run("bot", "push", bot(tmp_path / "bert", "three"))
    with pytest.raises(Conflict, match=r"you changed here .*\n  bot\.py"):
        await run("bot", "pull", bert)
    await run("bot", "pull", bert, "--force")
    assert (tmp_path / "bert" / "bot.py").read_text() == "REPLY = 'two'\n"
    await run("bot", "push", bot(tmp_path / "bert", "three"))
    await run("bot", "push", bot(tmp_path / "anna", "four"), "--force")
    await run("bot", "pull", bert)
    assert (tmp_path / "bert" / "bot.py").read_text() == "REPLY = 'four'\n"


async def test_a_file_that_was_removed_goes_here_too_and_one_that_is_only_here_stays(run: Run, tmp_path: Path) -> None:
    anna, bert = tmp_path / "anna", tmp_path / "bert"
    bot(anna, "one")
    (anna / "texts").mkdir()
    (anna / "texts" / "de.py").write_text("A = 1\n")
    await run("bot", "push", str(anna))
    await run("bot", "pull", str(bert))
    (bert / "notes.txt").write_text("mine")
    (anna / "texts" / "de.py").unlink()
    await run("bot", "push", str(anna))
    await run("bot", "pull", str(bert))
    assert not (bert / "texts" / "de.py").exists()
    assert (bert / "notes.txt").read_text() == "mine"


@pytest.mark.promise("P4")
async def test_a_colleagues_draft_writes_neither_hidden_files_nor_through_a_link_out_of_the_folder(
    run: Run, front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    files = {"bot.py": "x = 1\n", ".git/hooks/post-checkout": "evil", "out/x.py": "evil"}
    status, _ = await front.ask(await front.key(), "PUT", "/v1/projects/prj/bot/files", {"files": files})
    assert status == 200
    folder, outside = tmp_path / "bot", tmp_path / "outside"
    folder.mkdir()
    outside.mkdir()
    (folder / "out").symlink_to(outside)
    await run("bot", "pull", str(folder))
    assert [*outside.iterdir()] == []
    assert not (folder / ".git").exists()
    assert "out/x.py was left out" in capsys.readouterr().err


async def test_versions_are_listed_and_compared(run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    await run("bot", "push", bot(tmp_path / "a", "one"), "--save", "-m", "begin")
    await run("bot", "push", bot(tmp_path / "a", "two"), "--save", "-m", "better")
    capsys.readouterr()
    await run("bot", "versions")
    shown = capsys.readouterr().out
    assert shown.index("better") < shown.index("begin")
    assert "is saved, not deployed" in shown
    newest = shown.split("\n")[1].split()[0]
    await run("bot", "diff", newest)
    assert "-REPLY = 'one'\n+REPLY = 'two'\n" in capsys.readouterr().out


async def test_lines_are_shown_as_they_come_each_once_also_those_that_came_while_loquat_was_away(
    run: Run, front: Front, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(botlogs, "_EVERY", 0.01)
    pool, add = front.pools["bot-runner"], "INSERT INTO logs (project_id, level, line) VALUES ('prj', 'info', $1)"
    await pool.execute(add, "first")
    following, shown = asyncio.create_task(run("bot", "logs", "-f")), ""

    async def has(line: str) -> bool:
        nonlocal shown
        shown += capsys.readouterr().out
        return line in shown

    await until(lambda: has("first"), "what was there is shown")
    await pool.execute(add, "second")
    await until(lambda: has("second"), "what comes is shown")
    port = front.client.port
    await front.client.server.close()
    for n in range(botlogs._PAGE + 10):
        await pool.execute(add, f"missed {n:03}")
    again = TestServer(front.api.app(), port=port)
    await again.start_server()
    await pool.execute(add, "last")
    await until(lambda: has("last"), "it goes on where it was")
    following.cancel()
    await asyncio.gather(following, return_exceptions=True)
    await again.close()
    words = [line.split("info", 1)[1].strip() for line in shown.splitlines() if "info" in line]
    assert words == ["first", "second", *(f"missed {n:03}" for n in range(botlogs._PAGE + 10)), "last"]
