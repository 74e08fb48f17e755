"""The tester itself: it lets a test do what a contact could, and leaves nothing behind."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from loquat import Bot, ContactRefused, Context, replies
from loquat.testing import BotTester, NoScratchDatabase, NotOffered, SchemaFailed
from loquat_embedded.postgres import Cluster

EVERY = Path(__file__).parent / "bots" / "every"


async def test_only_what_was_shown_can_be_tapped_or_picked() -> None:
    tester = BotTester.load(EVERY)
    with pytest.raises(NotOffered, match="no button with the id 'book'; there are: none"):
        await tester.tap("book")
    await tester.send("hi")
    with pytest.raises(NotOffered, match="'bok'; there are: 'book', 'slot:9', 'slot:day:2'"):
        await tester.tap("bok")
    with pytest.raises(NotOffered, match="no row with the id 'large'"):
        await tester.pick("large")


async def test_replies_are_values_that_can_be_looked_into_and_compared() -> None:
    tester = BotTester.load(EVERY)
    said = await tester.send("hi")
    assert (
        said
        == tester.replies
        == (replies.buttons("What can I do?", [("book", "Book"), ("slot:9", "At nine"), ("slot:day:2", "Tomorrow")]),)
    )
    assert next((b.id, b.title) for b in tester.last.buttons) == ("book", "Book")
    await tester.send("sizes")
    assert [(r.id, r.description) for r in tester.last.rows] == [("small", None), ("large", "For two")]
    assert len(tester.said) == 2


def test_before_anything_was_said_there_is_no_last_reply() -> None:
    with pytest.raises(AssertionError, match="the bot has said nothing"):
        _ = BotTester(Bot()).last


async def test_a_bot_that_uses_its_database_without_one_is_told_how_to_get_it() -> None:
    bot = Bot()

    @bot.fallback
    async def write(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute("SELECT 1")

    with pytest.raises(NoScratchDatabase, match=r'BotTester\(bot, database="postgresql://'):
        await BotTester(bot).send("hi")


async def test_two_testers_on_one_database_do_not_meet_and_leave_nothing(platform_cluster: Cluster) -> None:
    bot = Bot()

    @bot.fallback
    async def write(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        await ctx.db.execute("CREATE TABLE notes (said jsonb)")
        await ctx.db.execute("INSERT INTO notes VALUES ($1)", {"text": ctx.event.text})

    for _ in range(2):
        with BotTester(bot, database=platform_cluster.dsn()) as tester:
            await tester.send("hi")
            assert [r["said"] for r in await tester.fetch("SELECT said FROM notes")] == [{"text": "hi"}]
    admin = await platform_cluster.connect()
    left = await admin.fetchval("SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'bot\\_test\\_%'")
    await admin.close()
    assert left == 0


async def test_bots_of_two_folders_are_loaded_apart_and_anew(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "words.py").write_text(f"WORD = {name!r}\n")
        (tmp_path / name / "bot.py").write_text(
            "from loquat import Bot\nfrom words import WORD\nbot = Bot()\n\n@bot.fallback\nasync def say(ctx):\n    ctx.reply_text(WORD)\n"
        )
    one, two = BotTester.load(tmp_path / "one"), BotTester.load(tmp_path / "two")
    assert [(await t.send("hi"))[0].text for t in (one, two, one)] == ["one", "two", "one"]
    (tmp_path / "one" / "words.py").write_text("WORD = 'changed'\n")
    assert (await BotTester.load(tmp_path / "one").send("hi"))[0].text == "changed"


PYTEST = (sys.executable, "-m", "pytest", "-q", "-p", "no:asyncio", "-p", "no:randomly", "-p", "no:cacheprovider")


async def test_a_contact_is_as_the_test_says_and_the_bots_tables_are_as_its_script_makes_them(
    platform_cluster: Cluster, tmp_path: Path
) -> None:
    bot, script, wrong = Bot(), tmp_path / "schema.sql", tmp_path / "wrong.sql"
    script.write_text("CREATE TABLE notes (said text); INSERT INTO notes SELECT name FROM contacts;")
    wrong.write_text("CREATE TABLE notes (said txet)")

    @bot.fallback
    async def look(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        who, noted = ctx.contact, await ctx.db.fetchval("SELECT count(*) FROM notes")
        ctx.reply_text(f"{who.language} {who.phone_number} {who.attributes['vip']} {noted}")

    known: dict[str, Any] = {"language": "de", "phone_number": "+49151", "attributes": {"vip": True}}
    with BotTester(bot, database=platform_cluster.dsn(), schema=script, **known) as tester:
        assert (await tester.send("hi"))[0].text == "de +49151 True 0"
        assert [r["language"] for r in await tester.fetch("SELECT language FROM contacts WHERE attributes->'vip' = 'true'")] == ["de"]
    with (
        BotTester(bot, database=platform_cluster.dsn(), schema=[script, wrong]) as tester,
        pytest.raises(SchemaFailed, match=r"wrong\.sql: type .txet. does not exist"),
    ):
        await tester.fetch("SELECT 1")
    deep: list[Any] = []
    for _ in range(32):
        deep = [deep]
    with pytest.raises(ContactRefused, match="more than 32 levels"):
        BotTester(bot, attributes={"x": deep})


def test_async_tests_run_in_plain_pytest_with_one_import_or_with_the_fixture_that_pytest_finds(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text("from loquat.testing import pytest_pyfunc_call\n")
    (tmp_path / "pytest.ini").write_text("[pytest]\nfilterwarnings = error\n")
    (tmp_path / "test_it.py").write_text(
        "import pytest\n\n@pytest.fixture\ndef seven():\n    return 7\n\n"
        "async def test_good(seven):\n    assert seven == 7\n\nasync def test_bad():\n    assert False, 'it ran'\n"
    )
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "bot.py").write_text(
        "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def say(ctx):\n    ctx.reply_text('hello')\n"
    )
    (tmp_path / "plain" / "test_bot.py").write_text(
        "async def test_it(bot_tester):\n    await bot_tester.send('hi')\n    assert bot_tester.last.text == 'hello'\n"
    )
    (tmp_path / "test_none.py").write_text("async def test_it(bot_tester):\n    pass\n")
    run = subprocess.run([*PYTEST, str(tmp_path)], capture_output=True, text=True, check=False, timeout=50)  # noqa: S603
    assert "1 failed, 2 passed, 1 error" in run.stdout, run.stdout
    assert "it ran" in run.stdout
    assert f"there is no bot.py in {tmp_path} or above it" in run.stdout


def test_what_pytest_loads_in_every_run_loads_nothing_of_the_sdk() -> None:
    code = "import loquat_pytest, sys; print(sorted({'loquat', 'asyncpg', 'aiohttp', 'msgspec'} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=50)  # noqa: S603
    assert run.stdout == "[]\n"
