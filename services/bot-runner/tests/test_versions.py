"""Versions: saved by content, listed, compared; what is no bot is refused with file, line and advice."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib.resources import files
from pathlib import Path

import pytest
from loquat_common.migrate import load, migrate
from loquat_embedded.postgres import Cluster

from conftest import Platform, open_platform
from tests.botbench import ANNA, Bench, bot, open_bench


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path) -> AsyncGenerator[Bench]:
    async with open_platform(platform_cluster) as platform, open_bench(platform, clusters_home) as made:
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    return await shared.anew()


async def test_the_same_content_is_the_same_version_and_stays_as_it_was_saved_first(bench: Bench) -> None:
    first = await bench.good("POST", "/versions", {"files": bot("one"), "message": "begin"})
    second = await bench.good("POST", "/versions", {"files": bot("two"), "message": "better"})
    again = await bench.good("POST", "/versions", {"files": bot("one"), "message": "the same?"})
    assert (first["created"], second["created"], again["created"]) == (True, True, False)
    assert (again["version"], again["message"], again["author"]) == (first["version"], "begin", ANNA)
    assert (first["parent"], second["parent"]) == (None, first["version"])
    assert again["saved_at"] > first["saved_at"]


async def test_versions_come_in_pages_that_name_each_once_and_say_which_is_deployed(bench: Bench) -> None:
    saved = [await bench.save(bot(str(n))) for n in range(5)]
    await bench.deploy(version=saved[3])
    page = await bench.good("GET", "/versions?limit=3")
    rest = await bench.good("GET", f"/versions?limit=3&cursor={page['next_cursor']}")
    items = [*page["items"], *rest["items"]]
    assert [v["version"] for v in items] == saved[::-1]
    assert rest["next_cursor"] is None
    assert [v["deployed"] for v in items] == [None, "all", None, None, None]


async def test_what_is_saved_and_not_deployed_is_visible(bench: Bench) -> None:
    assert not (await bench.good("GET", ""))["saved_not_deployed"]
    version = await bench.save(bot("one"))
    assert (await bench.good("GET", ""))["saved_not_deployed"]
    await bench.deploy(version=version)
    assert not (await bench.good("GET", ""))["saved_not_deployed"]
    newer = await bench.save(bot("two"))
    status = await bench.good("GET", "")
    assert (status["deployment"]["version"], status["newest_version"], status["saved_not_deployed"]) == (version, newer, True)


async def test_a_version_is_shown_with_its_files_and_compared_file_by_file(bench: Bench) -> None:
    old = await bench.save({**bot("one"), "texts/de.py": "A = 1\n", "gone.md": "bye\n"})
    new = await bench.save({**bot("two"), "texts/de.py": "A = 1\n", "come.md": "hello\n"})
    assert (await bench.good("GET", f"/versions/{new}"))["files"]["come.md"] == "hello\n"
    diff = await bench.good("GET", f"/versions/{new}/diff")
    assert diff["against"] == old, "its parent, unless another is named"
    assert [(f["path"], f["status"], f["added"], f["removed"]) for f in diff["items"]] == [
        ("bot.py", "changed", 1, 1),
        ("come.md", "added", 1, 0),
        ("gone.md", "removed", 0, 1),
    ]
    assert "-    ctx.reply_text('one')\n+    ctx.reply_text('two')\n" in diff["items"][0]["diff"]
    back = await bench.good("GET", f"/versions/{old}/diff?against={new}")
    assert [f["status"] for f in back["items"]] == ["changed", "removed", "added"]


async def test_what_is_no_bot_is_refused_with_every_flaw_its_place_and_advice(bench: Bench) -> None:
    given = {"bot.py": "x = 1\ny = = 2\n", "loquat.toml": 'name = "x"\ndescripton = "y"\n', "../evil.py": "", "data.txt": "a\n\x01"}
    refused = await bench.bad("POST", "/versions", {"files": given}, code="bot_refused")
    assert [(f["code"], f["file"], f.get("line")) for f in refused["flaws"]] == [
        ("syntax", "bot.py", 2),
        ("unknown_key", "loquat.toml", 2),
        ("path", "../evil.py", None),
        ("binary", "data.txt", 2),
    ]
    assert refused["flaws"][1]["advice"] == "do you mean 'description'?"
    assert (refused["file"], refused["line"]) == ("bot.py", 2)
    assert all(f["advice"] for f in refused["flaws"])
    await bench.bad("POST", "/deployments", {"files": given, "force": True}, code="bot_refused")
    assert (await bench.good("GET", "/versions"))["items"] == []


@pytest.mark.promise("P4")
@pytest.mark.parametrize(("more", "file"), [({".": ""}, "."), ({"a": "", "a/b/c": ""}, "a/b/c"), ({"ü" * 128: ""}, "ü" * 128)])
async def test_files_that_no_folder_can_hold_are_refused_before_a_worker_would_need_them(
    bench: Bench, more: dict[str, str], file: str
) -> None:
    refused = await bench.bad("POST", "/versions", {"files": {**bot("x"), **more}}, code="bot_refused")
    assert [(f["code"], f["file"]) for f in refused["flaws"]] == [("path", file)]


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("GET", "/versions/" + "0" * 64, None),
        ("GET", "/versions/" + "0" * 64 + "/diff", None),
        ("POST", "/deployments", {"version": "0" * 64}),
        ("POST", "/versions", {"files": bot("x"), "parent": "0" * 64}),
    ],
)
async def test_a_version_that_is_not_there_is_not_found(bench: Bench, method: str, path: str, body: object) -> None:
    await bench.bad(method, path, body, code="not_found")


async def test_what_an_older_release_deployed_can_be_gone_back_to(platform: Platform, tmp_path: Path) -> None:
    pool = await platform.pool("bot-runner")
    migrations = load(files("loquat_bot_runner.migrations"))
    async with pool.acquire() as connection:
        await migrate(connection, schema="bot_runner", component="bot-runner", migrations=migrations[:1])
        await connection.execute(
            "INSERT INTO versions (project_id, version, files, author, message) SELECT 'p', repeat(v, 64), '{}', 'a', '' FROM unnest('{a,b}'::text[]) AS v"
        )
        for version in ("a", "b", "b"):
            await connection.execute(
                "INSERT INTO deployments (project_id, version, deployed_by, message, published) VALUES ('p', repeat($1, 64), 'a', '', true)",
                version,
            )
    async with open_bench(platform, tmp_path) as bench:
        bench.project_id = "p"
        assert (await bench.good("POST", "/rollback", {}))["version"] == "a" * 64
        await bench.bad("POST", "/rollback", {}, code="nothing_before")
        assert [v["deployed"] for v in (await bench.good("GET", "/versions"))["items"]] == [None, "all"]


async def test_a_version_of_another_project_is_not_found(bench: Bench) -> None:
    version = await bench.save(bot("one"))
    await bench.pool.execute("UPDATE versions SET project_id = 'another' WHERE project_id = $1", bench.project_id)
    await bench.bad("GET", f"/versions/{version}", code="not_found")
    await bench.bad("POST", "/deployments", {"version": version}, code="not_found")
