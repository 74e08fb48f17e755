"""What a project's bot may take: chosen by its owner within bounds, in force from the next call on, and each breach ends that call or process only."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.limits import ChosenLimits
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.domain.limits import LEAST, MOST, BotLimits, chosen, in_force, within
from loquat_bot_runner.errors import BotError, OutOfMemory, ProjectDatabaseAway, TimedOut
from loquat_bot_runner.http.limits import LimitsApi
from loquat_bot_runner.settings import Settings
from loquat_common.bounds import OutOfBounds
from loquat_common.http import Api
from loquat_common.service import run
from loquat_common.tokens import Actor
from loquat_sandbox import Sandbox

from conftest import Platform
from tests.botbench import ANNA, migrated
from tests.bots import housing
from tests.shelf import Shelf, task

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

pytestmark = pytest.mark.promise("P4")
PROJECT, OTHER = "prj_a", "prj_b"
PLAN, REACHABLE = BotLimits(call_seconds=5), replace(MOST, memory_bytes=512 << 20)
TALKER = """
import asyncio
from loquat import Bot
bot = Bot()

@bot.fallback
async def handle(ctx):
    what, _, much = ctx.event.text.partition(" ")
    match what:
        case "say":
            for n in range(int(much)):
                ctx.reply_text(str(n))
        case "wait":
            await asyncio.sleep(float(much))
        case "take":
            ctx.reply_text(str(len(bytearray(int(much) << 20))))
        case "print":
            print("x" * int(much), flush=True)
"""


@pytest.fixture
async def pool(platform: Platform) -> Pool:
    return await migrated(platform)


@pytest.fixture
async def limits(pool: Pool) -> ChosenLimits:
    return ChosenLimits(pool, PLAN, REACHABLE)


@pytest.fixture
async def client(limits: ChosenLimits) -> AsyncGenerator[TestClient[Any, Any]]:
    async def authenticate(_request: web.Request) -> Actor:
        return Actor("user", ANNA, "o", scopes=frozenset({"bots:read", "bots:write"}))

    api = Api("test", "1", authenticate=authenticate)
    listed: dict[str, object] = {PROJECT: SimpleNamespace()}
    LimitsApi(limits, cast("Any", SimpleNamespace(get=listed.get))).add_to(api)
    async with TestClient(TestServer(api.app())) as made:
        yield made


@pytest.fixture
async def workers(limits: ChosenLimits, sandbox: Sandbox, bundles: Path) -> AsyncGenerator[Workers]:
    shelf = Shelf()
    shelf.versions["talker"] = TALKER
    made = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox, limits=limits.of), most=10, idle=60)
    yield made
    await made.close()


async def ask(client: TestClient[Any, Any], json: Any = None, project: str = PROJECT) -> tuple[int, Any]:
    method = "GET" if json is None else "PATCH"
    async with client.request(method, f"/internal/projects/{project}/bot/limits", json=json) as response:
        return response.status, await response.json()


async def test_an_owner_chooses_within_bounds_and_null_is_the_plans_again(client: TestClient[Any, Any], limits: ChosenLimits) -> None:
    status, shown = await ask(client)
    assert (status, shown["limits"], shown["most"], shown["least"]) == (200, asdict(PLAN), asdict(REACHABLE), asdict(LEAST))
    status, shown = await ask(client, {"call_seconds": 30, "messages": 3})
    assert (status, shown["limits"]) == (200, {**asdict(PLAN), "call_seconds": 30, "messages": 3})
    assert (await ask(client, {"messages": None}))[1]["limits"] == {**asdict(PLAN), "call_seconds": 30}
    assert await limits.of(PROJECT) == replace(PLAN, call_seconds=30)
    assert (await ask(client, {"call_seconds": 1}))[1]["limits"] == {**asdict(PLAN), "call_seconds": 1, "processor_seconds": 1}
    assert await limits.of(OTHER) == PLAN
    assert (await ask(client, project="prj_none"))[0] == 404


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"messages": 4, "memory_bytes": (512 << 20) + 1}, "memory_bytes"),
        ({"messages": 0}, "messages"),
        ({"call_seconds": 2, "processor_seconds": 3}, "processor_seconds"),
        ({"call_seconds": "soon"}, "call_seconds"),
        ({"cores": 4}, "cores"),
    ],
)
async def test_a_limit_out_of_bounds_is_named_and_nothing_changes(client: TestClient[Any, Any], change: dict[str, Any], field: str) -> None:
    status, problem = await ask(client, change)
    assert (status, problem["errors"][0]["field"]) == (422, f"body.{field}")
    assert (await ask(client))[1]["limits"] == asdict(PLAN)


async def test_a_change_holds_from_the_next_call_on_and_its_breach_ends_that_call_only(workers: Workers, limits: ChosenLimits) -> None:
    said = await workers.call(task("talker", "say 3"))
    first = workers._workers[PROJECT, "talker"]
    await limits.change(PROJECT, {"messages": 2, "call_seconds": 1, "processor_seconds": 1, "memory_bytes": LEAST.memory_bytes}, ANNA)
    assert len(said["replies"]) == 3
    with pytest.raises(BotError, match="at most 2 messages; this one said 3"):
        await workers.call(task("talker", "say 3"))
    assert workers._workers[PROJECT, "talker"] is not first
    with pytest.raises(TimedOut, match="longer than 1 s"):
        await workers.call(task("talker", "wait 3"))
    with pytest.raises(OutOfMemory, match=r"more memory than it may \(64 MiB\)"):
        await workers.call(task("talker", "take 100"))
    assert len((await workers.call(task("talker", "say 2")))["replies"]) == 2
    assert (await workers.call(task("talker", "take 100", OTHER)))["replies"][0]["text"] == str(100 << 20), (
        "another project keeps the plan's"
    )


async def test_what_may_be_printed_is_the_projects_own_number(workers: Workers, limits: ChosenLimits) -> None:
    await limits.change(PROJECT, {"output_bytes": 200 << 10}, ANNA)
    await workers.call(task("talker", f"print {100 << 10}"))
    assert not workers._workers[PROJECT, "talker"].worn


async def test_a_look_that_began_before_a_change_does_not_undo_it(pool: Pool) -> None:
    class Late:
        acquire = pool.acquire

        async def fetchval(self, *asked: Any, **more: Any) -> Any:
            found = await pool.fetchval(*asked, **more)
            await limits.change(PROJECT, {"messages": 2}, ANNA)
            return found

    limits = ChosenLimits(cast("Any", Late()), PLAN, REACHABLE)
    assert [(await limits.of(PROJECT)).messages for _ in range(2)] == [2, 2]


async def test_while_the_database_is_away_the_last_known_limits_hold(limits: ChosenLimits, pool: Pool) -> None:
    await limits.change(PROJECT, {"messages": 2}, ANNA)
    now = 0.0
    other = ChosenLimits(pool, PLAN, REACHABLE, lambda: now)
    assert (await other.of(PROJECT)).messages == 2
    await pool.close()
    now = 60.0
    assert (await other.of(PROJECT)).messages == 2
    with pytest.raises(ProjectDatabaseAway):
        await other.of(OTHER)


async def test_nothing_of_a_project_is_left_when_it_is_gone(limits: ChosenLimits, pool: Pool) -> None:
    await limits.change(PROJECT, {"messages": 2}, ANNA)
    await limits.forget(PROJECT)
    assert await limits.of(PROJECT) == PLAN
    assert await pool.fetchval("SELECT count(*) FROM limits") == 0


@given(st.dictionaries(st.sampled_from(sorted(asdict(LEAST))), st.none() | st.integers(-10, 1 << 40)), st.sampled_from([PLAN, REACHABLE]))
def test_no_change_leaves_the_bounds_and_a_lower_bound_holds_at_once(change: dict[str, float | None], most: BotLimits) -> None:
    try:
        after = chosen({"messages": 7}, change, PLAN, REACHABLE)
    except OutOfBounds as error:
        assert error.field in {*change, "processor_seconds"}  # noqa: PT017  (either outcome is right)
        return
    within("these", in_force(after, PLAN, most), LEAST, most)


def test_an_installations_own_numbers_are_checked_at_its_start(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUAT_BOT_PLAN", '{"call_seconds": 20}')
    monkeypatch.setenv("LOQUAT_PLATFORM_DSN", "postgresql://x")
    assert Settings.model_validate({}).bot_plan == BotLimits(call_seconds=20)
    for wrong, words in (
        ('{"messages": 51}', "LOQUAT_BOT_PLAN: messages: 51 is not possible: 1 to 50 are"),
        ('{"call_second": 20}', "there is no limit call_second; there are call_seconds, "),
        ('{"call_seconds": 3}', r"LOQUAT_BOT_PLAN: processor_seconds: 5 is longer than a call may take \(3\)"),
    ):
        monkeypatch.setenv("LOQUAT_BOT_PLAN", wrong)
        with pytest.raises(ValueError, match=words):
            Settings.model_validate({})


def test_a_setting_that_is_no_json_is_named_before_anything_starts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async def serve(_settings: Settings) -> None:
        raise AssertionError("it started")

    monkeypatch.setenv("LOQUAT_PLATFORM_DSN", "postgresql://x")
    monkeypatch.setenv("LOQUAT_BOT_PLAN", "{")
    with pytest.raises(SystemExit, match="78"):
        run("bot-runner", Settings, serve)
    assert '"bot_plan"' in capsys.readouterr().err


def test_an_installation_that_moves_one_bound_keeps_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUAT_PLATFORM_DSN", "postgresql://x")
    bounds = Settings.model_validate({}).bot_most
    monkeypatch.setenv("LOQUAT_BOT_MOST", '{"memory_bytes": 2147483648}')
    assert Settings.model_validate({}).bot_most == replace(bounds, memory_bytes=2 << 30)
