"""`loquat bot run` against the whole stack: the next message is answered by what was saved, other contacts by what is deployed."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from loquat_cli.commands.botrun import run_bot

from tests.system import webhooks
from tests.system.world import World, until

AUTHOR, OTHER = "4915112000071", "4915112000072"


def source(reply: str) -> str:
    return f"from loquat import Bot\nbot = Bot()\n@bot.fallback\nasync def say(ctx):\n    ctx.log.info({reply!r})\n    ctx.reply_text({reply!r})\n"


async def test_what_is_saved_answers_the_author_and_nobody_else_until_it_ends(
    world: World, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    project = await world.project("bench", {"bot.py": source("deployed")})
    number, asked, heard = await world.number(project), list[str](), [""]
    monkeypatch.setenv("LOQUAT_URL", world.gateway)
    monkeypatch.setenv("LOQUAT_API_KEY", world.api_key)

    async def answer(contact: str) -> str:
        asked.append(contact)
        await world.deliver_until_kept(webhooks.body(number, messages=[webhooks.text(contact, f"wamid.{number}.{len(asked)}", "hi")]))
        return (await world.got(number, contact, asked.count(contact)))[-1]["text"]

    async def said(what: str) -> None:
        async def look() -> bool:
            heard[0] += "".join(capsys.readouterr())
            return what in heard[0]

        await until(look, what)
        heard[0] = heard[0].partition(what)[2]

    assert await answer(AUTHOR) == "deployed"
    (tmp_path / "bot.py").write_text(source("one"))
    task = asyncio.create_task(run_bot(tmp_path, project=project, contact=(AUTHOR,)))
    await said("answered by this folder from the next message on")
    assert [await answer(AUTHOR), await answer(OTHER)] == ["one", "deployed"]
    await said("unstructured: handled, 1 reply")
    (tmp_path / "bot.py").write_text(source("two"))
    await said("1 handlers")
    assert await answer(AUTHOR) == "two"
    await said("info    two")
    task.cancel()
    await task
    assert await answer(AUTHOR) == "deployed"
