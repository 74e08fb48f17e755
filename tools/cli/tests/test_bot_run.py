"""`loquat bot run`: a folder is served to test contacts, against a real gateway before bot-runner's real rows."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from uuid import uuid4

import pytest
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.domain import bundle, pointing
from loquat_cli.app import build
from loquat_cli.botapi import NoContact
from loquat_cli.commands import botbench
from loquat_cli.commands.bot import NoBot
from loquat_cli.commands.botdraft import Conflict
from loquat_cli.commands.botrun import run_bot
from loquat_cli.rest import Refused

from conftest import Platform
from services.gateway.tests.front import ANNA, Front, Records, open_front
from tests.system.world import until

Said = Callable[[str], Awaitable[str]]


def source(reply: str) -> str:
    return f"from loquat import Bot\nbot = Bot()\n@bot.fallback\nasync def say(ctx):\n    ctx.reply_text({reply!r})\n"


BERT, OLD = str(uuid4()), bundle.digest({"bot.py": source("old")})


def bot(folder: Path, content: str) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "bot.py").write_text(content)
    return folder


@pytest.fixture
async def front(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Front]:
    async with open_front(platform) as made:
        await made.made("prj")
        await made.ask(await made.key(), "POST", "/v1/projects/prj/bot/versions", {"files": {"bot.py": source("old")}})
        await Pointers(made.pools["bot-runner"]).move("prj", "deploy", lambda now, _: pointing.deployed(now, OLD), by="k", message="")
        monkeypatch.setenv("LOQUAT_URL", str(made.client.make_url("")))
        monkeypatch.setenv("LOQUAT_API_KEY", await made.key())
        monkeypatch.setattr(botbench, "_EVERY", 0.02)
        monkeypatch.setattr(botbench, "_SETTLED", 0.02)
        yield made


async def given(front: Front) -> dict[str, str]:
    current = await Pointers(front.pools["bot-runner"]).current("prj")
    return current.testers if current is not None else {}


async def draft(front: Front) -> dict[str, str]:
    status, body = await front.ask(await front.key(), "GET", "/v1/projects/prj/bot/files?contents=true")
    assert status == 200
    return body["contents"]


@asynccontextmanager
async def running(capsys: pytest.CaptureFixture[str], folder: Path, *contacts: str) -> AsyncGenerator[tuple[Said, asyncio.Task[None]]]:
    """The command, and a way to wait for what it says. Ended as Ctrl-C ends it."""
    words = ["bot", "run", str(folder), "--project", "prj", *(w for c in contacts for w in ("--contact", c))]
    task = asyncio.create_task(build().run_async(words, result_action="return_value", exit_on_error=False))
    heard = [""]

    async def said(what: str) -> str:
        async def look() -> bool:
            heard[0] += "".join(capsys.readouterr())
            assert what in heard[0] or not task.done(), heard[0]
            return what in heard[0]

        await until(look, what)
        before, _, heard[0] = heard[0].partition(what)
        return before

    try:
        yield said, task
    finally:
        task.cancel()
        await task


async def test_each_save_answers_the_test_contact_and_ctrl_c_gives_everybody_back(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pointers = Pointers(front.pools["bot-runner"])
    await pointers.move("prj", "testers", lambda now, _: pointing.tested(now, {BERT: OLD}), by="k", message="")
    folder = bot(tmp_path / "bot", source("one"))
    async with running(capsys, folder, str(ANNA), BERT) as (said, task):
        await said("from the next message on")
        assert await given(front) == {str(ANNA): "draft", BERT: "draft"}
        bot(folder, source("two"))
        await said("0 states, 1 handlers")
        assert await draft(front) == {"bot.py": source("two")}
        bot(folder, "def broken(:\n")
        await said("not served: the bot would be refused: bot.py, line 1")
        await said("what was saved before goes on answering")
        assert await draft(front) == {"bot.py": source("two")}
        (folder / "bot.py").unlink()
        await said("there is no bot.py")
        bot(folder, source("three"))
        await said("1 handlers")
        os.kill(os.getpid(), signal.SIGINT)
        await task
        await said("are answered as before")
    assert await given(front) == {BERT: OLD}
    assert await draft(front) == {"bot.py": source("three")}


async def test_what_the_folders_code_does_is_shown_and_nothing_of_other_versions(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pool, folder = front.pools["bot-runner"], bot(tmp_path / "bot", source("one"))
    add = (
        "INSERT INTO runs (project_id, event_id, version, attempt, state, outcome, duration_ms, error, trace, started_at)"
        " VALUES ('prj', $1, $2, 1, $3, 'error', 1, 'KeyError: 1', 'bot.py, line 5', now())"
    )
    version = bundle.digest({"bot.py": source("one")})
    await pool.execute(add, uuid4(), version, "of an hour ago")
    await pool.execute("INSERT INTO logs (project_id, level, line) VALUES ('prj', 'info', 'of an hour ago')")
    async with running(capsys, folder, str(ANNA)) as (said, _):
        await said("from the next message on")
        await pool.execute("INSERT INTO logs (project_id, level, line) VALUES ('prj', 'info', 'a line [b]')")
        assert "of an hour ago" not in await said("info    a line [b]")
        await pool.execute(add, uuid4(), OLD, "of others")
        await pool.execute(add, uuid4(), version, "mine")
        assert "of others" not in await said("mine: error, 0 replies, 1 ms\nKeyError: 1\nbot.py, line 5\n")


async def test_a_draft_that_somebody_else_changed_is_not_overwritten_unseen(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    key, at = await front.key(), "/v1/projects/prj/bot/files"
    theirs = {"bot.py": source("theirs")}
    assert (await front.ask(key, "PUT", at, {"files": theirs}))[0] == 200
    folder = bot(tmp_path / "bot", source("one"))
    with pytest.raises(Conflict, match="changed by somebody else"):
        await run_bot(folder, project="prj", contact=(str(ANNA),))
    await build().run_async(["bot", "pull", str(folder), "--project", "prj", "--force"], result_action="return_value")
    async with running(capsys, folder, str(ANNA)) as (said, _):
        await said("from the next message on")
        etag = bundle.digest(theirs)
        assert (await front.ask(key, "PUT", at, {"files": {"bot.py": source("new")}}, If_Match=f'"{etag}"'))[0] == 200
        bot(folder, source("mine"))
        await said("not served: the draft was changed by somebody else")
        assert await draft(front) == {"bot.py": source("new")}
    assert await given(front) == {}


async def test_a_contact_who_has_not_written_yet_is_waited_for(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, anna = bot(tmp_path / "bot", source("one")), await front.records.contact(None, ANNA)  # pyright: ignore[reportArgumentType]
    async with running(capsys, folder, "+4915") as (said, _):
        await said("4915: no message yet")
        assert await given(front) == {}

        async def written(*_: object) -> list[object]:
            return [{**(anna or {}), "last_seen_at": None}]

        monkeypatch.setattr(Records, "contacts", written)
        await said("+4915: answered by this folder")
        assert await given(front) == {str(ANNA): "draft"}


async def test_without_a_bot_a_contact_or_a_deployment_it_does_not_begin(
    front: Front, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(NoBot, match=r"there is no bot\.py"):
        await run_bot(tmp_path, project="prj")
    with pytest.raises(NoContact, match="which test contact"):
        await run_bot(bot(tmp_path, source("one")), project="prj")
    assert await given(front) == {}
    await front.made("bare")
    with pytest.raises(Refused, match="deploy a version first"):
        await run_bot(tmp_path, project="bare", contact=(str(ANNA),))
    assert capsys.readouterr().err == "", "there is nothing to be taken away"
