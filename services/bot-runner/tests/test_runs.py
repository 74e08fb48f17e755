"""Runs as rows: what each was, asked for in many ways, with what the bot said, and gone after so many days."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote
from uuid import UUID, uuid4

import pytest
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.versions import Versions
from loquat_common.db import DatabaseAway
from loquat_common.retention import Retention
from loquat_embedded.postgres import Cluster
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, bot, bundles_in, now, open_bench
from tests.system.world import until
from tests.tenants import Tenants

TALKATIVE = """
@bot.text('go')
async def go(ctx):
    await ctx.db.fetchval('SELECT 1')
    await ctx.db.fetchval('SELECT 2')
    ctx.log.info('went')
    ctx.reply_text('gone')
    ctx.goto('away')

@bot.text('fail')
async def fail(ctx):
    ctx.log.warning('about to')
    raise KeyError('drawer')
"""


@pytest.fixture(scope="module")
async def shared(platform_cluster: Cluster, clusters_home: Path, tenants: Tenants, measured: Measured) -> AsyncGenerator[Bench]:
    async with (
        open_platform(platform_cluster) as platform,
        open_bench(platform, bundles_in(clusters_home), tenants, measured.sandbox) as made,
    ):
        yield made


@pytest.fixture
async def bench(shared: Bench) -> Bench:
    return await shared.anew()


async def test_a_run_is_a_row_with_its_version_states_replies_and_the_bots_own_frames(bench: Bench) -> None:
    version = (await bench.deploy(files=bot("hello", TALKATIVE)))["version"]
    begun = now()
    await bench.say("1", "go")
    await bench.say("2", "fail")
    await bench.say("2", "hi")
    hi, failed, went = await bench.runs()
    assert [r["version"] for r in (hi, failed, went)] == [version] * 3
    assert (went["queries"], hi["queries"], failed["queries"]) == (2, 0, None)
    assert (went["outcome"], went["state"], went["next_state"], went["replies"]) == ("handled", "unstructured", "away", 1)
    assert (failed["outcome"], failed["error"], failed["next_state"]) == ("BotError", "KeyError: 'drawer'", None)
    assert 'File "bot.py", line' in failed["trace"]
    assert "worker" not in failed["trace"]
    assert await bench.runs(outcome="failed") == [failed]
    assert await bench.runs(outcome="BotError", version=version) == [failed]
    assert await bench.runs(conversation=hi["conversation_id"]) == [hi, failed]
    assert await bench.runs(event=went["event_id"]) == [went]
    assert await bench.runs(since=quote(now().isoformat())) == []
    assert len(await bench.runs(since=quote(begun.isoformat()))) == 3
    assert await bench.runs(limit=1, before=failed["id"]) == [went]


async def test_a_run_is_shown_with_what_the_bot_said_meanwhile_and_a_tail_shows_what_follows(bench: Bench) -> None:
    await bench.deploy(files=bot("hello", TALKATIVE))
    await bench.say("1", "go")
    await bench.say("2", "fail")

    failed, went = await bench.runs()

    async def said(run: dict[str, Any]) -> list[str]:
        return [line["line"] for line in (await bench.good("GET", f"/runs/{run['id']}"))["log"]]

    async def written() -> bool:
        return len(await said(failed)) > 2

    await until(written, "the lines are written", 5)
    assert await said(went) == ["went"]
    assert (await said(failed))[:2] == ["about to", "KeyError: 'drawer'"]
    lines = (await bench.good("GET", "/logs?after=0"))["items"]
    assert [line["id"] for line in lines] == sorted(line["id"] for line in lines)
    assert (await bench.good("GET", f"/logs?after={lines[0]['id']}"))["items"] == lines[1:]
    await bench.bad("GET", f"/runs/{uuid4()}", code="not_found")


async def test_a_tail_misses_no_line_and_no_run_of_whoever_commits_later_and_shows_none_twice(bench: Bench) -> None:
    run = {"event_id": uuid4(), "attempt": 1, "outcome": "handled", "replies": 0, "duration_ms": 1.0, "started_at": now()}
    await bench.store.log(bench.project_id, None, "info", ["one"])
    await bench.store.record_run(bench.project_id, run)
    line, first = (await bench.good("GET", "/logs"))["items"][0]["id"], (await bench.runs())[0]["id"]
    async with bench.pool.acquire() as slow:
        transaction, late = slow.transaction(), Store(cast("Any", slow))
        await transaction.start()
        await late.log(bench.project_id, None, "info", ["two"])
        await late.record_run(bench.project_id, run)
        await bench.store.log(bench.project_id, None, "info", ["three"])
        last = await bench.store.record_run(bench.project_id, run)
        asked = [f"/logs?after={line}", "/logs", f"/runs?after={first}", "/runs"]
        await asyncio.gather(*(bench.bad("GET", path, code="busy") for path in asked))
        assert len((await bench.good("GET", f"/runs?before={last}"))["items"]) == 1, "pages of what is older wait for nobody"
        await transaction.commit()
    assert [found["line"] for found in (await bench.good("GET", f"/logs?after={line}"))["items"]] == ["two", "three"]
    runs = (await bench.good("GET", f"/runs?after={first}"))["items"]
    assert [r["id"] for r in runs] == [r["id"] for r in (await bench.runs())[::-1][1:]]
    assert (len(runs), runs[-1]["id"]) == (2, str(last))
    assert (await bench.good("GET", f"/runs?after={last}"))["items"] == []


class Meanwhile:
    """A pool, or a connection of it, on which somebody writes each time that rows are read."""

    def __init__(self, real: Any, write: Callable[[], Awaitable[Any]]) -> None:
        self._real, self._write = real, write

    def __getattr__(self, name: str) -> Any:
        return getattr(self._real, name)

    async def fetch(self, *given: Any) -> Any:
        await asyncio.wait_for(self._write(), 2)
        return await self._real.fetch(*given)

    @asynccontextmanager
    async def acquire(self, **given: Any) -> AsyncGenerator[Meanwhile]:
        async with self._real.acquire(**given) as connection:
            yield Meanwhile(connection, self._write)


@pytest.mark.promise("P4")
async def test_whoever_writes_waits_for_no_tail_that_reads_and_reads_and_the_tail_misses_nothing(bench: Bench) -> None:
    run = {"event_id": uuid4(), "attempt": 1, "outcome": "handled", "replies": 0, "duration_ms": 1.0, "started_at": now()}

    async def write() -> None:
        await bench.store.log(bench.project_id, None, "info", ["line"])
        await bench.store.record_run(bench.project_id, run)

    await write()
    tail = Store(cast("Any", Meanwhile(bench.pool, write)))
    lines = await tail.logs(bench.project_id, None, 100, after=0)
    lines += await tail.logs(bench.project_id, None, 100, after=lines[-1].id)
    runs = await tail.runs(bench.project_id, None, 100, after=UUID(int=0))
    runs += await tail.runs(bench.project_id, None, 100, after=runs[-1].id)
    for shown, all_ in (
        (lines, await bench.store.logs(bench.project_id, None, 100)),
        (runs, await bench.store.runs(bench.project_id, None, 100)),
    ):
        assert [one.id for one in shown] == [one.id for one in all_[::-1]][: len(shown)]


async def test_a_tail_is_told_when_lines_behind_it_were_dropped(bench: Bench) -> None:
    await bench.store.log(bench.project_id, None, "info", ["one", "two", "three"])
    lines = (await bench.good("GET", "/logs?after=0"))["items"]
    await bench.pool.execute("DELETE FROM logs WHERE project_id = $1 AND id < $2", bench.project_id, lines[1]["id"])
    told = [(await bench.good("GET", f"/logs?after={line['id']}"))["missed"] for line in lines]
    assert told == [True, False, False], "whether one between the first and the second is gone, nobody knows"


class Dying:
    """Runs whose runner dies once, when the bot has committed its result and nothing is made of it yet."""

    def __init__(self, runs: Any) -> None:
        self._runs, self._died = runs, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._runs, name)

    async def commit(self, *arguments: Any) -> Any:
        if not self._died:
            self._died = True
            raise DatabaseAway("the runner died")
        return await self._runs.commit(*arguments)


@pytest.mark.promise("P2")
async def test_a_run_whose_runner_died_behind_the_bots_commit_is_a_row_and_ran_once(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    await bench.deploy(files=bot("hello", TALKATIVE))
    monkeypatch.setattr(bench.inbox, "_runs", Dying(bench.inbox._runs))
    event = bench.message("1", "go")
    with pytest.raises(DatabaseAway):
        await bench.take(event)
    assert await bench.runs() == []
    await bench.take(event, attempts=1)
    (row,) = await bench.runs()
    assert (row["event_id"], row["attempt"], row["outcome"], row["replies"], row["version"]) == (str(event.id), 2, "handled", 1, None)
    assert bench.answers(event.id) == ["gone"]


async def test_runs_lines_and_contents_of_drafts_go_after_their_days_in_batches(bench: Bench) -> None:
    versions = Versions(bench.pool)
    await bench.pool.execute(
        "INSERT INTO runs (id, project_id, event_id, attempt, outcome, duration_ms, started_at)"
        " SELECT uuidv7(CASE WHEN n <= 2500 THEN interval '-31 days' ELSE interval '-29 days' END), 'p', uuidv7(), 1, 'handled', 1, now()"
        " FROM generate_series(1, 2510) AS n"
    )
    await bench.pool.execute(
        "INSERT INTO logs (project_id, level, line, at) SELECT 'p', 'info', 'x', now() - make_interval(days => 32 - n) FROM generate_series(1, 5) AS n"
    )
    await versions.keep("p", "0" * 64, {"bot.py": "x"})
    await versions.save("p", "1" * 64, {"bot.py": "y"}, author="a", message="", parent=None)
    await bench.pool.execute("UPDATE versions SET saved_at = now() - interval '31 days'")
    sweeps = (bench.store.sweep_runs, bench.store.sweep_logs, versions.sweep)
    assert await Retention(*(partial(sweep, 30) for sweep in sweeps)).sweep() == 2500 + 2 + 1
    assert await bench.pool.fetchval("SELECT count(*) FROM runs WHERE project_id = 'p'") == 10
    assert await bench.pool.fetchval("SELECT count(*) FROM logs WHERE project_id = 'p'") == 3
    assert await bench.pool.fetchval("SELECT version FROM versions WHERE project_id = 'p'") == "1" * 64


async def test_all_of_a_project_that_is_gone_is_forgotten(bench: Bench) -> None:
    await bench.deploy(files=bot("hello"))
    await bench.good("PUT", "/files", {"files": bot("draft")})
    await bench.say()
    await bench.store.forget(bench.project_id)
    for table in ("versions", "deployments", "drafts", "draft_files", "runs"):
        assert await bench.pool.fetchval(f"SELECT count(*) FROM {table} WHERE project_id = $1", bench.project_id) == 0, table  # noqa: S608
