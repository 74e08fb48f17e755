"""What the runner does about the isolation level that it finds."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from loquat_bot_runner.domain.wear import FULLEST, MOST_CALLS, OLDEST, Wear, processor, worn
from loquat_bot_runner.settings import Settings
from loquat_sandbox import Level, Measured, measure

from tests.bots import login_of, started
from tests.ordinary import REFUSED, USER
from tests.tenants import Desk, Tenants, message

DSN = "postgresql://nobody@127.0.0.1:1/none"


def settings(**more: object) -> Settings:
    return Settings.model_validate({"platform_dsn": DSN, **more})


@pytest.mark.parametrize(
    ("given", "least"),
    [
        ({"environment": "production"}, 2),
        ({"environment": "production", "allow_isolation_none": True}, 0),
        ({"environment": "production", "min_isolation": 3}, 3),
        ({"environment": "production", "min_isolation": 1}, 1),
        ({"environment": "development"}, 0),
        ({"environment": "development", "min_isolation": 2}, 2),
    ],
)
def test_the_least_level_is_2_in_production_unless_another_is_asked_for(given: dict[str, object], least: int) -> None:
    assert settings(**given).least_isolation == least


def test_level_0_in_production_is_asked_for_by_name() -> None:
    with pytest.raises(ValueError, match="LOQUAT_ALLOW_ISOLATION_NONE"):
        settings(environment="production", min_isolation=0)


@pytest.mark.skipif(os.geteuid() != 0, reason="not root: there is no level above what this runner finds to ask for")
@pytest.mark.promise("P4")
async def test_below_the_least_level_the_runner_exits_with_78_and_says_what_is_missing(clusters_home: Path) -> None:
    bundles = clusters_home / "too-low"
    bundles.mkdir()
    os.chown(bundles, USER, USER)
    start = "import os, runpy\nos.environ.update(dict(a.split('=', 1) for a in __import__('sys').argv[1:]))\nrunpy.run_module('loquat_bot_runner', run_name='__main__', alter_sys=True)"
    given = {"PLATFORM_DSN": DSN, "BUNDLES": str(bundles), "MIN_ISOLATION": "3", "ENVIRONMENT": "development"}
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tests.ordinary",
        start,
        *(f"LOQUAT_{name}={value}" for name, value in given.items()),
        cwd=Path(__file__).parents[3],
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said = (await process.communicate())[0].decode()
    if process.returncode == REFUSED:
        pytest.skip("root may not make a mount namespace here, so no ordinary user can be played")
    assert process.returncode == 78, said
    assert "bots.isolation_too_low" in said
    assert "a user for each project: the runner is not root" in said


def test_the_level_of_this_machine_is_said(measured: Measured) -> None:
    """Where less is given, less is tested: the line is in the output of every run."""
    report = measured.sandbox.report()
    if measured.sandbox.level < Level.HARDENED:
        pytest.skip(
            f"bots of tests run at isolation level {report['isolation']} ({report['name']}); missing: {'; '.join(measured.missing)}"
        )
    assert measured.missing == ()


BOT = """
from loquat import Bot

bot = Bot()


@bot.fallback
async def handle(ctx):
    ctx.reply_text(await ctx.db.fetchval("SELECT session_user || ' ' || current_database()"))
"""


def _unheard(_event: str | None, _level: str, _text: str) -> None:
    return


@pytest.mark.parametrize("level", list(Level), ids=lambda level: level.label)
async def test_a_bot_reaches_its_own_database_at_every_level(level: Level, tenants: Tenants, bundles: Path) -> None:
    found, project, one = await measure(bundles, level), await tenants.project(), str(UUID(int=1))
    try:
        if found.sandbox.level != level:
            pytest.skip(f"this machine does not give isolation level {level:d} ({level.label}): {'; '.join(found.missing)}")
        (bundles / "v1").mkdir()
        (bundles / "v1" / "bot.py").write_text(BOT)
        worker = await started(found.sandbox, bundles / "v1", _unheard, login_of(tenants, project), project.project_id)
        begun = await (await Desk.of(project)).begin(said := message("wa_id:49151", text="hi"))
        event: dict[str, Any] = {"id": said["id"], "type": "text", "text": "hi", "content": {}}
        where = {"id": str(begun["conversation_id"]), "number_id": "1"}
        fields: dict[str, Any] = {
            "event": event,
            "contact": {"id": one},
            "conversation": where,
            "state": begun["state"],
            "version": begun["version"],
        }
        result = await worker.call(10, **fields)
        await worker.kill()
        assert result["replies"][0]["text"] == f"{project.names.login('bot')} {project.database}"
    finally:
        await found.sandbox.close()
        await tenants.drop(project)


@pytest.mark.parametrize(
    ("wear", "over"),
    [
        (Wear(10, 10, 30 << 20), False),
        (Wear(OLDEST + 1, 10, 30 << 20), True),
        (Wear(10, MOST_CALLS + 1, 30 << 20), True),
        (Wear(10, 10, int(FULLEST * (256 << 20)) + 1), True),
    ],
)
def test_a_worker_is_worn_by_age_by_calls_or_by_what_it_holds(wear: Wear, over: bool) -> None:
    assert worn(wear, 256 << 20) == over


@pytest.mark.parametrize(
    ("used", "calls", "verdict"), [(0.1, 1, "run"), (0.3, 1, "yield"), (5.1, 1, "end"), (5.1, 2, "yield"), (10.1, 2, "end")]
)
def test_who_keeps_the_processor_busy_gives_way_and_is_ended_at_last(used: float, calls: int, verdict: str) -> None:
    assert processor(used, calls, 5.0) == verdict
