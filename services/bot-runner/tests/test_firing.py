"""Two replicas that are killed again and again fire everything that is due, each time under one id; and no project waits for another's."""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat_bot_runner.adapters.due import BATCH, FIRST, DueIndex
from loquat_bot_runner.domain.firing import DueRow, Settled
from loquat_bot_runner.domain.schedules import Plan, to_fire
from loquat_bot_runner.handlers.timers import firing_of

from conftest import Platform
from tests.botbench import migrated

HOUR = timedelta(hours=1)


def timer(due_at: datetime) -> dict[str, Any]:
    told = {"timer_id": str(uuid4()), "event_id": str(uuid4()), "version": 1, "due_at": due_at.isoformat(), "lane": "49", "name": "n"}
    return {**told, "conversation_id": str(uuid4()), "contact_id": str(uuid4())}


async def keep_firing(dsn: str) -> int:
    """Starts a replica anew until it ends well; how often it was killed."""
    for kills, left in enumerate((1, 2, 3, 4, 6, 7, 0)):
        process = await asyncio.create_subprocess_exec(sys.executable, str(Path(__file__).parent / "firer.py"), dsn, str(left))
        try:
            code = await process.wait()
        except BaseException:
            process.kill()
            raise
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, code
    raise AssertionError("the last one was not to die")


@pytest.mark.promise("P2")
async def test_replicas_that_are_killed_again_and_again_fire_all_that_is_due_each_under_one_id(platform: Platform) -> None:
    pool = await migrated(platform)
    index, since = DueIndex(pool), datetime.now(UTC).replace(minute=0, second=0, microsecond=0) - 6 * HOUR
    plan, timers = Plan("*/30 * * * *", "Asia/Kathmandu", "all"), [timer(since + n * timedelta(minutes=1)) for n in range(60)]
    schedules = [uuid4() for _ in range(12)]
    await index.arm("prj_timers", 1, timers)
    body = {"name": "s", "schedule": plan.expression, "tz": plan.tz, "catch_up": "all"}
    await pool.executemany(
        "INSERT INTO due (project_id, id, kind, epoch, due_at, look_at, lane, body) VALUES ('prj_schedules', $1, 'schedule', 1, $2, $2, 's', $3)",
        [(s, plan.after(since), body) for s in schedules],
    )
    kills = sum(await asyncio.gather(*(keep_firing(platform.dsn("bot-runner")) for _ in range(2))))
    admin = await platform.cluster.connect(platform.database)
    rows = await admin.fetch("SELECT event_id, value FROM bus.event WHERE topic = 'conversations.inbox.v1'")
    await admin.close()
    told: dict[UUID, set[tuple[str, str]]] = {}
    for row in rows:
        data = json.loads(row["value"])["data"]
        told.setdefault(UUID(row["event_id"]), set()).add((data["name"], data["due_at"]))
    ends = {r["id"]: r["due_at"] - timedelta(seconds=1) for r in await pool.fetch("SELECT id, due_at FROM due")}
    expected = {firing_of("prj_schedules", s, at) for s in schedules for at in to_fire(plan, plan.after(since), ends[s])}
    assert set(told) == expected | {UUID(t["event_id"]) for t in timers}
    assert all(len(facts) == 1 for facts in told.values())
    assert (set(ends), kills > 0, len(rows) > len(told)) == (set(schedules), True, True)


@pytest.mark.promise("P3")
async def test_a_project_with_more_due_timers_than_are_looked_at_delays_none_of_many_others(platform: Platform) -> None:
    pool = await migrated(platform)
    index, now, claimed = DueIndex(pool), datetime.now(UTC), set[str]()
    due = "INSERT INTO due (project_id, id, kind, event_id, epoch, due_at, look_at, lane, body) SELECT {}, gen_random_uuid(), 'timer', gen_random_uuid(), 1, $1, $1, '49', '{{}}'"
    await pool.execute(due.format("'flood'") + " FROM generate_series(1, $2)", now - HOUR, FIRST + BATCH)
    not_due = due.format("'p' || n") + " FROM generate_series(1, 700) AS n"  # more than one claim goes round to
    await pool.execute(not_due, now + HOUR)
    await pool.execute(due.format("n") + " FROM unnest('{a,z}'::text[]) AS n", now)

    async def decide(rows: Sequence[DueRow]) -> Sequence[Settled]:
        claimed.update(r.project_id for r in rows)
        return [Settled() for _ in rows]

    for _ in range(2):
        await index.fire(now, decide)
    assert claimed == {"flood", "a", "z"}


@pytest.mark.promise("P3")
async def test_a_project_with_thousands_of_due_timers_delays_no_other(platform: Platform) -> None:
    index, now = DueIndex(await migrated(platform)), datetime.now(UTC)
    await index.arm("flood", 1, [timer(now - HOUR) for _ in range(2000)])
    for project in ("a", "b"):
        await index.arm(project, 1, [timer(now - timedelta(seconds=1)) for _ in range(3)])
    claimed: list[str] = []

    async def decide(rows: Sequence[DueRow]) -> Sequence[Settled]:
        claimed.extend(r.project_id for r in rows)
        return [Settled() for _ in rows]

    fired, following = await index.fire(now, decide)
    assert (fired <= BATCH, set(claimed), claimed.count("a")) == (True, {"flood", "a", "b"}, 3)
    assert following == now - HOUR
