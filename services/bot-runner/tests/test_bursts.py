"""A burst is one call and one result, wherever the runner is cut off; its other messages are handled with it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import Any

import pytest
from loquat_common.bus.port import Defer, Done, Outcome
from loquat_common.failpoints import FailpointError
from loquat_embedded.postgres import Cluster
from loquat_events.elements import inbound
from loquat_events.envelope import Event, Payload
from loquat_sandbox import Measured

from conftest import open_platform
from tests.botbench import Bench, bundles_in, open_bench
from tests.tenants import Tenants

BOT = """from loquat import Bot
bot = Bot()

@bot.on_text(burst=5)
async def texts(ctx):
    await ctx.db.execute("INSERT INTO notes VALUES ($1)", ctx.event.text)
    ctx.reply_text(' + '.join(ctx.event.texts))
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
    bench = await shared.anew()
    assert bench.project is not None
    await (await bench.project.login("editor")).execute("CREATE TABLE notes (note text)")
    await bench.deploy(files={"bot.py": BOT})
    return bench


async def record(bench: Bench, *events: Event[Payload]) -> None:
    """As conversation-log does, one after the other."""
    assert bench.project is not None
    log = await bench.project.service("conversation-log")
    for event in events:
        await log.execute("SELECT loquat.record_inbound($1)", [inbound(event)])


async def quiet(bench: Bench) -> None:
    """The window passes."""
    assert bench.project is not None
    await (await bench.project.root()).execute("UPDATE loquat.events SET recorded_at = recorded_at - interval '5 seconds'")


async def rows(bench: Bench, query: str) -> list[Any]:
    assert bench.project is not None
    return [r[0] for r in await (await bench.project.root()).fetch(query)]


def later(outcome: Outcome) -> float:
    assert isinstance(outcome, Defer)
    return outcome.after


async def test_texts_wait_as_rows_until_the_window_has_passed_and_are_one_call(bench: Bench) -> None:
    one, two, other = bench.message(text="one"), bench.message(text="two"), bench.message("50", "other")
    assert 0 < later(await bench.take(one)) <= 5
    assert await bench.runs() == []
    await record(bench, two, other)
    await quiet(bench)
    assert isinstance(await bench.take(one), Done)
    assert isinstance(await bench.take(two), Done)
    assert (bench.answers(one.id), bench.answers(two.id)) == (["one + two"], [])
    assert await rows(bench, "SELECT outcome FROM loquat.events ORDER BY recorded_at") == ["handled", "handled", None]
    assert await rows(bench, "SELECT version FROM public.conversations ORDER BY version") == [0, 1]


@pytest.mark.promise("P2", "P7")
@pytest.mark.parametrize("point", ["after_begin", "after_handler", "after_commit", "after_publish", "after_clear"])
async def test_a_burst_is_handled_once_wherever_the_runner_is_cut_off(bench: Bench, point: str) -> None:
    one, two, three = (bench.message(text=t) for t in ("one", "two", "three"))
    await record(bench, one, two)
    await quiet(bench)
    bench.time.fail(f"bot_runner.{point}")
    with pytest.raises(FailpointError):
        await bench.take(one)
    await record(bench, three)
    for event in (one, two, one):
        outcome = await bench.take(event)
        if point == "after_begin" and isinstance(outcome, Defer):  # nothing had happened yet, and now the third belongs to it
            await quiet(bench)
            outcome = await bench.take(event)
        assert isinstance(outcome, Done)
    await quiet(bench)
    await bench.take(three)
    said = [text for event in (one, two, three) for text in dict.fromkeys(bench.answers(event.id))]
    assert said == (["one + two + three"] if point == "after_begin" else ["one + two", "three"])
    assert await rows(bench, "SELECT note FROM notes") == [s.replace(" + ", "\n") for s in said]
    assert await rows(bench, "SELECT DISTINCT outcome FROM loquat.events") == ["handled"]


async def test_a_message_that_runs_in_another_lane_meanwhile_loses_to_the_burst_or_the_burst_to_it(bench: Bench) -> None:
    one, two, project = bench.message(text="one"), bench.message(text="two"), bench.project
    assert project is not None
    await record(bench, one, two)
    await quiet(bench)
    bench.time.fail("bot_runner.after_begin")
    with pytest.raises(FailpointError):
        await bench.take(two)
    bot = await project.login("bot")
    await bot.execute("SELECT loquat.record_result($1, 0, $2)", two.id, {"replies": [{"type": "text", "text": "first"}]})
    assert isinstance(await bench.take(one), Done)
    assert (bench.answers(two.id), bench.answers(one.id)) == (["first"], ["one"])
