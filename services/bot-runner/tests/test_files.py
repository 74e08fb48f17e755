"""The draft for an editor: nobody's work is overwritten unseen, and nothing of it is deployed before it is saved."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from loquat_bot_runner.domain.bundle import LARGEST, MOST_FILES
from loquat_embedded.postgres import Cluster

from conftest import open_platform
from tests.botbench import ANNA, Bench, bot, open_bench


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path) -> AsyncGenerator[Bench]:
    async with open_platform(platform_cluster) as platform, open_bench(platform, clusters_home) as made:
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    return await shared.anew()


async def test_a_draft_begins_with_what_was_saved_last_and_is_saved_as_a_version_of_its_own(bench: Bench) -> None:
    version = await bench.save(bot("one"))
    draft = await bench.good("GET", "/files?contents=true")
    assert (draft["etag"], draft["base"], draft["changed"], draft["contents"]) == (version, version, False, bot("one"))
    await bench.good("PUT", "/files/texts%2Fde.py", {"content": "A = 1\n"}, If_None_Match="*")
    draft = await bench.good("GET", "/files")
    assert ([f["path"] for f in draft["items"]], draft["changed"]) == (["bot.py", "texts/de.py"], True)
    saved = await bench.good("POST", "/versions", {"message": "texts"})
    assert (saved["version"], saved["parent"], saved["message"]) == (draft["etag"], version, "texts")
    assert (await bench.good("GET", "/files"))["changed"] is False
    assert (await bench.good("GET", "/files/texts%2Fde.py"))["content"] == "A = 1\n"


async def test_who_did_not_see_the_last_content_is_told_both_and_overwrites_nothing(bench: Bench) -> None:
    await bench.save(bot("one"))
    seen = (await bench.good("GET", "/files/bot.py"))["etag"]
    mine = await bench.good("PUT", "/files/bot.py", {"content": "mine = 1\n"}, If_Match=f'"{seen}"')
    told = await bench.bad("PUT", "/files/bot.py", {"content": "theirs = 1\n"}, If_Match=f'"{seen}"', code="file_changed")
    assert (told["current"]["content"], told["given"]["content"]) == ("mine = 1\n", "theirs = 1\n")
    assert (told["current"]["etag"], told["current"]["author"]) == (mine["etag"], ANNA)
    assert (await bench.bad("DELETE", "/files/bot.py", If_Match=seen, code="file_changed"))["current"]["content"] == "mine = 1\n"
    assert (await bench.bad("PUT", "/files/bot.py", {"content": "x"}, code="etag_needed"))["current"]["etag"] == mine["etag"]
    await bench.bad("DELETE", "/files/bot.py", code="etag_needed")
    await bench.bad("DELETE", "/files/none.py", If_Match='""', code="etag_needed")
    await bench.bad("PUT", "/files/bot.py", {"content": "x"}, If_None_Match="*", code="file_changed")
    await bench.good("DELETE", "/files/bot.py", If_Match=mine["etag"])
    gone = await bench.bad("PUT", "/files/bot.py", {"content": "late"}, If_Match=mine["etag"], code="file_changed")
    assert gone["current"] is None


async def test_a_star_means_whatever_is_there_but_not_nothing(bench: Bench) -> None:
    await bench.bad("PUT", "/files/bot.py", {"content": "a = 1\n"}, If_Match="*", code="file_changed")
    await bench.good("PUT", "/files/bot.py", {"content": "a = 1\n"}, If_None_Match="*")
    written = await bench.good("PUT", "/files/bot.py", {"content": "a = 2\n"}, If_Match="*")
    several = f'"{"0" * 64}", W/"{written["etag"]}"'
    await bench.good("PUT", "/files/bot.py", {"content": "a = 3\n"}, If_Match=several)
    await bench.bad("PUT", "/files", {"files": bot("lost")}, code="draft_changed")
    await bench.good("PUT", "/files", {"files": bot("one")}, If_Match="*")
    await bench.good("DELETE", "/files/bot.py", If_Match="*")
    status, _ = await bench.ask("DELETE", "/files/bot.py", If_Match="*")
    assert status == 404


async def test_of_two_who_write_at_once_one_wins(bench: Bench) -> None:
    await bench.save(bot("one"))
    seen = (await bench.good("GET", "/files/bot.py"))["etag"]
    asked = [bench.ask("PUT", "/files/bot.py", {"content": f"n = {n}\n"}, If_Match=seen) for n in range(5)]
    assert sorted(status for status, _ in await asyncio.gather(*asked)) == [200, 412, 412, 412, 412]


async def test_a_whole_draft_is_replaced_only_by_who_saw_it_or_where_nothing_would_be_lost(bench: Bench) -> None:
    await bench.save(bot("one"))
    pushed = await bench.good("PUT", "/files", {"files": bot("two")})
    told = await bench.bad("PUT", "/files", {"files": bot("three")}, code="draft_changed")
    assert told["current"]["etag"] == pushed["etag"]
    await bench.bad("PUT", "/files", {"files": bot("three")}, If_Match="0" * 64, code="draft_changed")
    assert (await bench.good("PUT", "/files", {"files": bot("two")}))["etag"] == pushed["etag"], "the same again does no harm"
    await bench.good("PUT", "/files", {"files": bot("three")}, If_Match=pushed["etag"])
    await bench.good("DELETE", "/files")
    assert (await bench.good("GET", "/files?contents=1"))["contents"] == bot("one")


async def test_lines_and_paths_are_found_whatever_the_case(bench: Bench) -> None:
    await bench.good("PUT", "/files", {"files": {"bot.py": "a = 1\n    Greeting = 'x'\n", "greetings.md": "none\n"}})
    found = (await bench.good("GET", "/files?search=gReeting"))["matches"]
    assert [(m["path"], m["line"], m["text"]) for m in found] == [("bot.py", 2, "Greeting = 'x'"), ("greetings.md", 0, "greetings.md")]


async def test_a_draft_is_no_larger_than_a_bot_may_be_and_its_paths_stay_inside(bench: Bench) -> None:
    for path in ("..%2Fx", "%2Fetc%2Fpasswd", "a%5Cb", "a%2F%2Fb"):
        await bench.bad("PUT", f"/files/{path}", {"content": ""}, code="bad_path")
    await bench.good("PUT", "/files/big.txt", {"content": "x" * (LARGEST - 100)})
    await bench.bad("PUT", "/files/more.txt", {"content": "x" * 100}, code="draft_full")
    await bench.bad("PUT", "/files", {"files": {f"{n}.py": "" for n in range(MOST_FILES + 1)}}, code="draft_full")
    await bench.bad("PUT", "/files", {"files": {"../x": ""}}, code="bad_path")
    assert [f["path"] for f in (await bench.good("GET", "/files"))["items"]] == ["big.txt"]


async def test_a_draft_that_is_no_bot_can_be_kept_but_neither_saved_nor_deployed(bench: Bench) -> None:
    await bench.bad("POST", "/versions", {}, code="no_draft")
    await bench.good("PUT", "/files/later.py", {"content": "def f(:\n"})
    refused = await bench.bad("POST", "/versions", {}, code="bot_refused")
    assert [(f["code"], f["file"]) for f in refused["flaws"]] == [("no_bot", "bot.py"), ("syntax", "later.py")]
    await bench.bad("POST", "/deployments", {"draft": True}, code="bot_refused")
    await bench.good("PUT", "/files", {"files": bot("good")}, If_Match=(await bench.good("GET", "/files"))["etag"])
    made = await bench.deploy(draft=True, message="from the editor")
    assert (await bench.good("GET", f"/versions/{made['version']}"))["message"] == "from the editor"


async def test_what_is_written_while_the_draft_is_saved_stays_a_change(bench: Bench) -> None:
    await bench.good("PUT", "/files", {"files": bot("one")})
    version = (await bench.good("POST", "/versions", {}))["version"]
    seen = (await bench.good("GET", "/files/bot.py"))["etag"]
    await bench.good("PUT", "/files/bot.py", {"content": "b = 2\n"}, If_Match=seen)
    draft = await bench.good("GET", "/files")
    assert (draft["base"], draft["changed"]) == (version, True)


async def test_a_draft_without_a_change_shows_what_was_saved_elsewhere_since(bench: Bench) -> None:
    await bench.good("PUT", "/files", {"files": bot("one")})
    await bench.good("POST", "/versions", {})
    newer = await bench.save(bot("two"))
    draft = await bench.good("GET", "/files?contents=true")
    assert (draft["base"], draft["changed"], draft["contents"]) == (newer, False, bot("two"))
    seen = (await bench.good("GET", "/files/bot.py"))["etag"]
    await bench.good("PUT", "/files/bot.py", {"content": "mine = 1\n"}, If_Match=seen)
    await bench.save(bot("three"))
    draft = await bench.good("GET", "/files?contents=true")
    assert (draft["base"], draft["changed"], draft["contents"]) == (newer, True, {"bot.py": "mine = 1\n"})
