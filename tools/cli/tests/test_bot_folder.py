"""`loquat bot init`, `check` and `test`: a folder on the author's own machine, no Loquat needed."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from loquat_cli import trial
from loquat_cli.app import build
from loquat_cli.commands.bot import BotRefused, NoBot, NotEmpty
from loquat_cli.pytests import SCRATCH, NotInstalled

Run = Callable[..., Awaitable[None]]
HEAD = "from loquat import Bot\nbot = Bot()\n"
QUIET = ("--", "-p", "no:cacheprovider", "-p", "no:asyncio", "-p", "no:randomly", "-q")

BROKEN: list[tuple[str, str, str]] = [
    ("a syntax error", HEAD + "bot.state('x'\n", r"would be refused: bot\.py, line 3: '\(' was never closed"),
    (
        "a module that is not there",
        HEAD + "import nothing_of_the_kind\n",
        r'File "bot\.py", line 3(.|\n)*No module named .nothing_of_the_kind',
    ),
    (
        "a state declared twice",
        HEAD + "async def h(ctx): ...\nbot.state('x')(h)\nbot.state('x')(h)\n",
        r"bot\.py, line 3: the state 'x' has a handler already: h, bot\.py, line 3",
    ),
    ("a handler of the wrong shape", HEAD + "@bot.fallback\nasync def h(): ...\n", r"bot\.py, line 3: a handler is `async def h\(ctx\)`"),
    ("no Bot", "x = 1\n", "exactly one Bot; it makes 0"),
    ("no handler", HEAD, "the bot has no handler"),
    ("a process that ends", HEAD + "import os\nos._exit(3)\n", r"ended while it loaded \(exit 3\)"),
    ("leaving", HEAD + "raise SystemExit(0)\n", "SystemExit: 0"),
]


@pytest.fixture
def run() -> Run:
    async def command(*words: str) -> None:
        await build().run_async(words, result_action="return_value", exit_on_error=False)

    return command


def write(folder: Path, body: str) -> str:
    (folder / "bot.py").write_text(body)
    return str(folder)


async def test_a_new_bot_loads_and_passes_its_tests_with_a_database_of_their_own(
    run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv(SCRATCH, raising=False)
    folder = tmp_path / "my bot"
    await run("bot", "init", str(folder))
    assert (folder / "loquat.toml").read_text() == 'name = "my-bot"\n'
    await run("bot", "check", str(folder))
    shown = capfd.readouterr().out
    assert re.search(r'^button "book" +begin_booking +bot\.py, line \d+', shown, re.MULTILINE)
    assert re.search(r"^on entering +collect_info +ask ", shown, re.MULTILINE)
    assert "3 states: collect_info, support, unstructured" in shown
    with pytest.raises(SystemExit) as ended:
        await run("bot", "test", str(folder), *QUIET)
    assert ended.value.code == 0
    assert re.search(r"\b12 passed in", capfd.readouterr().out), "none is skipped for want of a database"


async def test_a_new_bot_never_goes_where_something_is(run: Run, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("x")
    with pytest.raises(NotEmpty, match="not empty"):
        await run("bot", "init", str(tmp_path))
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize(("body", "said"), [b[1:] for b in BROKEN], ids=[b[0] for b in BROKEN])
async def test_a_bot_that_would_not_run_is_told_why_and_where(run: Run, tmp_path: Path, body: str, said: str) -> None:
    with pytest.raises(BotRefused, match=said) as refused:
        await run("bot", "check", write(tmp_path, body))
    assert "/tmp" not in str(refused.value), "places are those of the bot's own folder"  # noqa: S108  (a comparison)


async def test_a_syntax_error_in_a_file_that_nobody_imports_is_found_too(run: Run, tmp_path: Path) -> None:
    (tmp_path / "later.py").write_text("def f(:\n")
    with pytest.raises(BotRefused, match=r"later\.py, line 1"):
        await run("bot", "check", write(tmp_path, HEAD))


async def test_packages_that_no_lock_names_are_told_and_so_is_how_to_have_those_of_a_lock_here(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write(tmp_path, HEAD + "import nothing_of_the_kind\n")
    (tmp_path / "requirements.txt").write_text("nothing-of-the-kind\n")
    with pytest.raises(BotRefused, match=r"No module named 'nothing_of_the_kind'$"):
        await run("bot", "check", folder)
    assert "what requirements.txt names is not installed" in capsys.readouterr().err
    (tmp_path / "requirements.lock").write_text(f"nothing-of-the-kind==1.0 --hash=sha256:{'0' * 64}\n")
    with pytest.raises(BotRefused, match=r"pip install -r requirements\.lock$"):
        await run("bot", "check", folder)
    assert "requirements.txt" not in capsys.readouterr().err


async def test_a_bot_that_does_not_finish_loading_is_given_up(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trial, "_LIMIT", 1.5)
    with pytest.raises(BotRefused, match=r"did not load within 1\.5 s"):
        await run("bot", "check", write(tmp_path, HEAD + "while True: pass\n"))


async def test_a_bot_is_loaded_in_a_workers_environment_and_what_it_prints_is_shown(
    run: Run, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOQUAT_API_KEY", "lq_secret")
    body = HEAD + "import os\nprint(sorted(os.environ), os.getcwd())\n@bot.text('x')\nasync def h(ctx): ...\n"
    await run("bot", "check", write(tmp_path, body))
    shown = capsys.readouterr().out
    names, where = re.findall(r"^\[(.*)\] (.*)$", shown, re.MULTILINE)[0]
    assert set(names.replace("'", "").split(", ")) <= {"HOME", "LANG", "LC_CTYPE", "PYTHONDONTWRITEBYTECODE", "PYTHONUNBUFFERED"}
    assert where == "/"
    assert "what no rule takes is not answered: add @bot.fallback" in shown


async def test_pytests_exit_code_and_options_are_passed_on(run: Run, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    (tmp_path / "test_it.py").write_text(
        "import os\n\ndef test_bad():\n    assert 0\n\ndef test_good():\n    assert 'SCRATCH' not in os.environ\n"
    )
    folder = write(tmp_path, HEAD)
    with pytest.raises(SystemExit) as ended:
        await run("bot", "test", folder, "--no-database", *QUIET)
    assert ended.value.code == 1
    with pytest.raises(SystemExit) as ended:
        await run("bot", "test", folder, "--no-database", *QUIET, "-k", "good")
    assert ended.value.code == 0
    assert "1 passed, 1 deselected" in capfd.readouterr().out


async def test_a_folder_whose_own_environment_lacks_pytest_is_told_how_to_get_it(run: Run, tmp_path: Path) -> None:
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text("#!/bin/sh\nexit 1\n")
    python.chmod(0o755)
    with pytest.raises(NotInstalled, match=rf"^pytest is not installed for {python}\. Install it with: {python} -m pip install pytest$"):
        await run("bot", "test", write(tmp_path, HEAD), "--no-database")


async def test_a_folder_without_a_bot_is_neither_checked_nor_tested(run: Run, tmp_path: Path) -> None:
    for command in ("check", "test"):
        with pytest.raises(NoBot, match=r"there is no bot\.py"):
            await run("bot", command, str(tmp_path))
