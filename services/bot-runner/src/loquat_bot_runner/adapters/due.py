"""The due index in the control database: which timers and schedules are due, claimed by any replica."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from loquat_bot_runner.adapters.lapses import Lapses
from loquat_bot_runner.domain.firing import DueRow, Settled

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

BATCH: Final = 100
"""Rows that are claimed at once: their events are published together."""
_WAIT: Final = 10.0  # seconds for a connection
_ARM: Final = """
INSERT INTO due (project_id, id, kind, version, event_id, epoch, due_at, look_at, lane, body)
SELECT $1, t.timer_id, 'timer', t.version, t.event_id, $2, t.due_at, t.due_at, t.lane,
       jsonb_build_object('name', t.name, 'conversation_id', t.conversation_id, 'contact_id', t.contact_id)
FROM jsonb_to_recordset($3) AS t(timer_id uuid, version bigint, event_id uuid, due_at timestamptz, lane text, name text, conversation_id uuid, contact_id uuid)
WHERE t.due_at IS NOT NULL ORDER BY t.timer_id
ON CONFLICT (project_id, id) DO UPDATE
  SET version = excluded.version, event_id = excluded.event_id, epoch = excluded.epoch, due_at = excluded.due_at, look_at = excluded.look_at,
      lane = excluded.lane, body = excluded.body
  WHERE (due.epoch, due.version) <= (excluded.epoch, excluded.version)"""
_DISARM: Final = """
DELETE FROM due USING jsonb_to_recordset($2) AS t(timer_id uuid, version bigint, due_at timestamptz)
WHERE due.project_id = $1 AND due.id = t.timer_id AND due.version <= t.version AND t.due_at IS NULL"""
FIRST: Final = 5_000
"""Rows that are looked at in the order in which they are due."""
_WALK: Final = 500
"""Projects that a claim goes round to when the first rows are not all of them: an index look-up each, some 10 ms together."""
# Fair to projects: each of those that are found has the same share, so that one whose timers are all due at once delays nobody else. Where the first
# rows are perhaps of few projects ($4 of them, as many as are looked at), others are found by going round all projects, from $3 on.
_CLAIM: Final = """
WITH RECURSIVE first AS MATERIALIZED (SELECT project_id, look_at FROM due WHERE look_at <= $1 ORDER BY look_at LIMIT $4),
  walk AS (
    (SELECT due.project_id, due.look_at, 1 AS n FROM due WHERE due.project_id > $3 AND (SELECT count(*) FROM first) = $4
     ORDER BY due.project_id, due.look_at LIMIT 1)
    UNION ALL
    SELECT next.project_id, next.look_at, walk.n + 1 FROM walk, LATERAL (
      SELECT due.project_id, due.look_at FROM due WHERE due.project_id > walk.project_id ORDER BY due.project_id, due.look_at LIMIT 1) AS next
    WHERE walk.n < $5),
  waiting AS MATERIALIZED (
    (SELECT project_id FROM first GROUP BY project_id ORDER BY min(look_at), random() LIMIT 50)
    UNION
    (SELECT project_id FROM walk WHERE look_at <= $1 ORDER BY look_at LIMIT 50))
SELECT claimed.*, (SELECT max(project_id) FROM walk WHERE n = $5) AS walked FROM waiting, LATERAL (
  SELECT * FROM due WHERE due.project_id = waiting.project_id AND due.look_at <= $1 ORDER BY due.look_at
  LIMIT (SELECT greatest($2 / count(*), 2) FROM waiting) FOR UPDATE SKIP LOCKED) AS claimed"""
# A schedule whose times are what they were goes on: what it has missed is not forgotten by a deployment.
_PLAN: Final = """
INSERT INTO due (project_id, id, kind, epoch, due_at, look_at, lane, body)
SELECT $1, a.id, 'schedule', $2, a.due_at, a.due_at, 'schedule:' || a.name, jsonb_build_object('name', a.name, 'schedule', a.schedule, 'tz', a.tz, 'catch_up', a.catch_up)
FROM jsonb_to_recordset($3) AS a(id uuid, due_at timestamptz, name text, schedule text, tz text, catch_up text) ORDER BY a.id
ON CONFLICT (project_id, id) DO UPDATE
  SET epoch = excluded.epoch, body = excluded.body,
      due_at = CASE WHEN (due.body->'schedule', due.body->'tz') = (excluded.body->'schedule', excluded.body->'tz') THEN due.due_at ELSE excluded.due_at END,
      look_at = CASE WHEN (due.body->'schedule', due.body->'tz') = (excluded.body->'schedule', excluded.body->'tz') THEN due.look_at ELSE excluded.look_at END"""


class DueIndex:
    """Rows of all projects. `lapses`: when holds of conversations end."""

    def __init__(self, pool: Pool) -> None:
        self._pool, self.lapses = pool, Lapses(pool)
        self._walked = ""
        """The last project that was gone round to."""

    async def arm(self, project: str, epoch: int, timers: Sequence[Mapping[str, Any]]) -> None:
        """Timers as the project's database gives them, each with its `lane`; one without `due_at` is called off. Repeated, it changes nothing."""
        rows = [dict(t) for t in timers]
        async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction():
            await connection.execute(_ARM, project, epoch, rows)
            await connection.execute(_DISARM, project, rows)

    async def fire(self, now: datetime, decide: Callable[[Sequence[DueRow]], Awaitable[Sequence[Settled]]]) -> tuple[int, datetime | None]:
        """Claims rows whose time has come and lets them be fired; how many, and when to look again (None: nothing is set).

        `decide` makes their events durable. It may be cut off before the rows are settled: they are fired again then, with the same ids.
        """
        async with self._pool.acquire(timeout=_WAIT) as connection:
            async with connection.transaction():
                claimed = await connection.fetch(_CLAIM, now, BATCH, self._walked, FIRST, _WALK)
                rows = [_row(r) for r in claimed]
                self._walked = (claimed[0]["walked"] if claimed else None) or ""
                if rows:
                    for row, settled in zip(rows, await decide(rows), strict=True):
                        await _settle(connection, row, settled)
            return len(rows), await connection.fetchval("SELECT min(look_at) FROM due")

    async def unscheduled(self) -> list[str]:
        """Projects whose schedules are not known to be what their deployment says."""
        return [
            r["project_id"] for r in await self._pool.fetch("SELECT DISTINCT project_id FROM deployments WHERE NOT scheduled LIMIT 1000")
        ]

    async def unschedule(self, project: str) -> None:
        """Something is about to change: whoever is cut off, somebody looks again."""
        await self._pool.execute(_UNSCHEDULE, project)

    async def plan(
        self,
        project: str,
        deployment: UUID,
        rows: Callable[[], Awaitable[tuple[int, Sequence[Mapping[str, Any]]]]],
        *,
        changing: bool = False,
    ) -> bool:
        """Makes the index what `rows` says (the epoch, and each with `due_at`), one replica at a time; False: another deployment was quicker.

        `changing`: `rows` changes the project's own before it tells. Whoever is cut off there leaves the mark, which nobody else takes away meanwhile.
        """
        async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"schedules {project}", timeout=_WAIT)
            current = await connection.fetchval("SELECT id FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT 1", project)
            if current != deployment:
                return False
            if changing:
                async with self._pool.acquire(timeout=_WAIT) as another:  # committed before anything is changed
                    await another.execute(_UNSCHEDULE, project)
            epoch, planned = await rows()
            kept = [dict(r) for r in planned]
            await connection.execute(
                "DELETE FROM due WHERE project_id = $1 AND kind = 'schedule' AND id <> ALL ($2)", project, [UUID(r["id"]) for r in kept]
            )
            await connection.execute(_PLAN, project, epoch, kept)
            await connection.execute(
                "UPDATE deployments SET scheduled = true WHERE project_id = $1 AND id <= $2 AND NOT scheduled", project, deployment
            )
            return True

    async def planned(self, project: str) -> dict[UUID, datetime]:
        """When each schedule that is on is due."""
        query = "SELECT id, due_at FROM due WHERE project_id = $1 AND kind = 'schedule'"
        return {r["id"]: r["due_at"] for r in await self._pool.fetch(query, project)}


_UNSCHEDULE: Final = """
UPDATE deployments SET scheduled = false
WHERE id = (SELECT d.id FROM deployments AS d WHERE d.project_id = $1 ORDER BY d.id DESC LIMIT 1) AND scheduled"""


async def _settle(connection: Connection, row: DueRow, settled: Settled) -> None:
    if settled.due_at is not None:
        await connection.execute(
            "UPDATE due SET due_at = $3, look_at = $4, epoch = $5 WHERE project_id = $1 AND id = $2",
            row.project_id,
            row.id,
            settled.due_at,
            settled.look_at or settled.due_at,
            settled.epoch,
        )
    else:
        await connection.execute("DELETE FROM due WHERE project_id = $1 AND id = $2", row.project_id, row.id)
    if settled.stale:
        await connection.execute(_UNSCHEDULE, row.project_id)


def _row(row: asyncpg.Record) -> DueRow:
    return DueRow(row["project_id"], row["id"], row["kind"], row["event_id"], row["epoch"], row["due_at"], row["lane"], row["body"])
