"""Versions: saved by content, listed, compared; what is no bot is refused with file, line and advice."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from importlib.resources import files
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from loquat_bot_runner.adapters import pointers, versions
from loquat_bot_runner.adapters.deployments import Deployed, Publisher
from loquat_bot_runner.domain import pointing
from loquat_bot_runner.domain.pointing import CannotPoint
from loquat_common.bus.memory import MemoryBus
from loquat_common.bus.record import Record
from loquat_common.migrate import load, migrate
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import DEPLOYMENTS

from conftest import Platform, open_platform
from tests.botbench import ANNA, Bench, bot, now, open_bench, pointed
from tests.system.world import until


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


async def test_of_versions_to_which_nothing_refers_the_last_ones_are_kept(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    stable, before, canary, tester, base = [await bench.save(bot(str(n))) for n in range(5)]
    for version in (before, stable):
        await bench.deploy(version=version)
    await bench.deploy(version=canary, canary=10)
    await bench.good("PUT", "/testers", {"testers": {str(uuid4()): tester}})
    await bench.pool.execute("INSERT INTO drafts (project_id, base) VALUES ($1, $2)", bench.project_id, base)
    monkeypatch.setattr(versions, "MOST", 2)
    others = [await bench.save(bot(f"other {n}")) for n in range(3)]
    kept = {v["version"] for v in (await bench.good("GET", "/versions"))["items"]}
    assert kept == {stable, before, canary, tester, base, *others[1:]}
    assert "parent" in (await bench.bad("GET", f"/versions/{others[1]}/diff", code="not_found"))["title"]
    await bench.bad("POST", "/deployments", {"version": others[0]}, code="not_found")


async def test_a_step_that_names_a_version_which_went_meanwhile_is_refused(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    contact, gone = str(uuid4()), "0" * 64
    with pytest.raises(CannotPoint, match="save it again"):
        await bench.pointers.move(bench.project_id, "testers", lambda at, _: pointing.tested(at, {contact: gone}), by="anna", message="")


async def test_the_last_deployments_are_kept_and_those_to_which_they_lead_back(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pointers, "MOST", 3)
    for n in range(3):
        await bench.deploy(files=bot(str(n)), message=str(n))
    for n in range(4):
        await bench.good("PUT", "/testers", {"testers": {}, "message": f"testers {n}"})
    kept = [d["message"] for d in (await bench.good("GET", "/deployments"))["items"]]
    assert kept == ["testers 3", "testers 2", "testers 1", "1"]
    await bench.heard(await bench.good("POST", "/rollback", {}))
    assert (await bench.good("GET", f"/versions/{pointed(bench).version}"))["files"] == bot("1")


@pytest.mark.promise("P1")
@pytest.mark.parametrize("somebody_knew", [True, False])
async def test_an_older_word_that_a_publisher_which_died_left_behind_a_newer_one_moves_nobody_and_is_set_right(
    bench: Bench, *, somebody_knew: bool
) -> None:
    await bench.deploy(files=bot("one"))
    *_, older = bench.broker.events(DEPLOYMENTS)
    newer = await bench.deploy(files=bot("two"))
    bus, deployed = MemoryBus("bot-runner", bench.broker), bench.deployed
    publisher, before = Publisher(bus, bench.pointers, now), len(bench.broker.events(DEPLOYMENTS))
    if somebody_knew:
        await bus.publish(older)
    else:  # whoever starts later reads what compaction has left
        table = bus.table(DEPLOYMENTS)
        table.put(Record.of(older))
        deployed = Deployed(table)
    publisher.watches(deployed)
    telling = asyncio.create_task(publisher.run())

    async def right() -> bool:
        told = bench.broker.events(DEPLOYMENTS)
        return len(told) > before and str(told[-1].id) == newer["id"]

    await until(right, "the newer one is told again", 5)
    telling.cancel()
    assert pointed(bench).deployment_id == newer["id"]


async def test_rows_that_are_older_than_what_was_told_once_are_believed(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    await bench.deploy(files=bot("two"))
    await bench.pool.execute("DELETE FROM deployments WHERE id = $1", UUID(pointed(bench).deployment_id))  # a backup was restored
    publisher = Publisher(MemoryBus("bot-runner", bench.broker), bench.pointers, now)
    publisher.watches(bench.deployed)
    telling = asyncio.create_task(publisher.run())
    current = await bench.pointers.current(bench.project_id)

    async def believed() -> bool:
        return current is not None and pointed(bench).deployment_id == str(current.id)

    await until(believed, "the rows are believed", 5)
    telling.cancel()


@pytest.mark.promise("P1")
async def test_a_pause_that_a_crash_left_untold_is_told_by_the_next_runner(bench: Bench) -> None:
    await bench.deploy(files=bot("one"))
    await bench.pointers.move(bench.project_id, "pause", lambda at, _: pointing.paused(at), by="a runner that died", message="")
    assert (bench.deployed.version(bench.project_id), bench.deployed.in_use(bench.project_id)) != (None, frozenset())
    telling = asyncio.create_task(Publisher(MemoryBus("bot-runner", bench.broker), bench.pointers, now).run())

    async def told() -> bool:
        return bench.deployed.version(bench.project_id) is None

    await until(told, "the next runner has told it", 5)
    telling.cancel()
    assert (pointed(bench).paused, bench.deployed.in_use(bench.project_id)) == (True, frozenset())
