"""What is kept of a person's events goes, however many they are; nobody else's does."""

from __future__ import annotations

from importlib.resources import files
from uuid import uuid4

import pytest
from loquat_bot_runner.adapters.store import Store
from loquat_common.migrate import load, migrate

from conftest import Platform


@pytest.mark.promise("P7")
async def test_lines_errors_and_traces_of_thousands_of_events_go_by_the_index_and_the_neighbours_stay(platform: Platform) -> None:
    pool = await platform.pool("bot-runner")
    async with pool.acquire() as connection:
        await migrate(connection, schema="bot_runner", component="bot-runner", migrations=load(files("loquat_bot_runner.migrations")))
    events = [uuid4() for _ in range(2_001)]
    for project, of in (("prj_a", events), ("prj_b", events[:1]), ("prj_a", [uuid4()])):
        await pool.execute(
            "INSERT INTO logs (project_id, event_id, level, line) SELECT $1, e, 'info', 'of Anna' FROM unnest($2::uuid[]) AS e", project, of
        )
        await pool.execute(
            "INSERT INTO runs (project_id, event_id, attempt, outcome, duration_ms, error, started_at)"
            " SELECT $1, e, 1, 'x', 1, 'of Anna', now() FROM unnest($2::uuid[]) AS e",
            project,
            of,
        )
    await Store(pool).forget_events("prj_a", events)
    assert await pool.fetchval("SELECT count(*) FROM logs") == 2
    assert await pool.fetchval("SELECT count(*) FROM runs WHERE error IS NOT NULL") == 2
    for table, columns, values in (
        ("logs", "level, line", "'i', 'x'"),
        ("runs", "attempt, outcome, duration_ms, started_at", "1, 'x', 1, now()"),
    ):
        await pool.execute(
            f"INSERT INTO {table} (project_id, event_id, {columns}) SELECT 'prj_a', gen_random_uuid(), {values} FROM generate_series(1, 9000)"  # noqa: S608
        )
        await pool.execute(f"ANALYZE {table}")
        plan = await pool.fetch(f"EXPLAIN SELECT FROM {table} WHERE project_id = 'prj_a' AND event_id = ANY ($1)", events[:20])
        assert f"{table}_event" in str(plan)
