"""What is known of followings and their columns, in this service's schema of the control database."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from loquat_common.retention import BATCH
from loquat_rest.tables import Link

from loquat_schema_manager.domain.followings import TRIES, Following, LinkColumn, State, pause_after

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

LEASE: Final = 300.0
"""Seconds after which a following of a process that died is taken up again; above all that one attempt may take."""
DAYS: Final = 90
"""For which one that ended can be looked at, column by column: three times as long as the bus keeps its event (dead topics, 30 days)."""
_LIMIT: Final = 10.0  # seconds for one statement; they take about a millisecond
_REASON: Final = 500  # characters of a reason that are kept

# purpose: said again, one that was given up is begun again
_NOTE: Final = """
WITH noted AS (
  INSERT INTO followings AS f (id, order_id, project_id, epoch, kind, people, into_id, actor)
  VALUES ($1, $2, $3, $4, CASE WHEN $6::uuid IS NULL THEN 'erase' ELSE 'merge' END, $5, $6, $7)
  ON CONFLICT (id) DO UPDATE SET state = 'open', next_at = now(), ended_at = NULL WHERE f.state = 'failed' RETURNING id
)
UPDATE followed_columns AS c SET state = 'open', attempts = 0, next_at = now() FROM noted AS n WHERE c.following = n.id AND c.state = 'failed'"""
# purpose: one that is due, of a project at which nobody works; projects by chance, so that one with thousands keeps no other
_CLAIM: Final = """
UPDATE followings AS f SET leased_until = clock_timestamp() + make_interval(secs => $1), leased_by = $2
WHERE f.leased_until < clock_timestamp() AND f.state = 'open' AND f.id = (
  SELECT c.id FROM (
    SELECT DISTINCT ON (d.project_id) d.id, d.project_id FROM followings AS d WHERE d.state = 'open' AND d.next_at <= clock_timestamp()
    ORDER BY d.project_id, d.next_at
  ) AS c
  WHERE NOT EXISTS (SELECT FROM followings AS o WHERE o.project_id = c.project_id AND o.state = 'open' AND o.leased_until >= clock_timestamp())
  ORDER BY random() LIMIT 1)
RETURNING f.id, f.order_id, f.project_id, f.epoch, f.people, f.into_id, f.actor"""
# purpose: gives it back: done when all its columns are, or given up, or due with the first of them
_SETTLE: Final = """
UPDATE followings AS f SET leased_until = '-infinity', reason = NULL,
  state = CASE WHEN s.open > 0 THEN 'open' WHEN s.failed > 0 THEN 'failed' ELSE 'done' END,
  ended_at = CASE WHEN s.open = 0 THEN clock_timestamp() END, next_at = coalesce(s.next_at, f.next_at)
FROM (SELECT count(*) FILTER (WHERE c.state = 'open') AS open, count(*) FILTER (WHERE c.state = 'failed') AS failed,
             min(c.next_at) FILTER (WHERE c.state = 'open') AS next_at FROM followed_columns AS c WHERE c.following = $1) AS s
WHERE f.id = $1"""
# purpose: columns, then merges without any. That an erase is done must stay known as long as its order is, which is for good
_SWEEP: Final = """
WITH columns AS (
  DELETE FROM followed_columns WHERE (following, table_name, column_name) IN (
    SELECT c.following, c.table_name, c.column_name FROM followed_columns AS c JOIN followings AS f ON f.id = c.following
    WHERE (f.state = 'done' OR f.state = 'failed' AND f.kind = 'merge') AND f.ended_at < now() - make_interval(days => $1) LIMIT $2)
  RETURNING following
), merges AS (
  DELETE FROM followings WHERE id IN (
    SELECT f.id FROM followings AS f WHERE f.state <> 'open' AND f.kind = 'merge' AND f.ended_at < now() - make_interval(days => $1)
      AND NOT EXISTS (SELECT FROM followed_columns AS c WHERE c.following = f.id)
    ORDER BY f.ended_at LIMIT $2 FOR UPDATE SKIP LOCKED)
  RETURNING id
)
SELECT (SELECT count(*) FROM columns) + (SELECT count(*) FROM merges)"""


@dataclass(frozen=True, slots=True)
class Column:
    """A link column of one following, and how far it is."""

    table: str
    column: str
    link: Link
    state: State
    rows: int
    attempts: int
    reason: str | None
    next_at: datetime


@dataclass(frozen=True, slots=True)
class Followed:
    """A following, and how far it is."""

    state: State
    reason: str | None
    columns: tuple[Column, ...]


class FollowedRows:
    """Rows of `followings` and `followed_columns`. `chance` gives random numbers from 0 to 1; `replica` names this process among its like."""

    def __init__(self, pool: Pool, chance: Callable[[], float], replica: str = "only") -> None:
        self._pool, self._chance, self._replica = pool, chance, replica

    async def note(self, f: Following) -> None:
        """Writes that it is to be followed. It may be said again."""
        await self._pool.execute(_NOTE, f.id, f.order_id, f.project_id, f.epoch, list(f.people), f.into, f.actor, timeout=_LIMIT)

    async def release(self) -> None:
        """What this replica worked at when it died is free. Asked before it begins."""
        query = "UPDATE followings SET leased_until = '-infinity' WHERE leased_by = $1 AND state = 'open' AND leased_until >= now()"
        await self._pool.execute(query, self._replica, timeout=_LIMIT)

    async def claim(self) -> Following | None:
        """One that is due, for a while; None: none is."""
        row = await self._pool.fetchrow(_CLAIM, LEASE, self._replica, timeout=_LIMIT)
        if row is None:
            return None
        people = tuple(row["people"])
        return Following(row["id"], row["order_id"], row["project_id"], row["epoch"], people, row["into_id"], row["actor"])

    async def list(self, following: UUID, columns: Sequence[LinkColumn]) -> list[LinkColumn]:
        """Notes the columns that there are now; those of them that are due. A column that is gone has nothing to follow any more."""
        tables, names = [c.table for c in columns], [c.column for c in columns]
        async with self._pool.acquire(timeout=_LIMIT) as connection, connection.transaction():
            await connection.execute(
                "INSERT INTO followed_columns (following, table_name, column_name, link) SELECT $1, * FROM unnest($2::text[], $3::text[], $4::text[])"
                " ON CONFLICT DO NOTHING",
                following,
                tables,
                names,
                [c.link for c in columns],
            )
            await connection.execute(
                "UPDATE followed_columns SET state = 'done' WHERE following = $1 AND state = 'open'"
                " AND (table_name, column_name) NOT IN (SELECT * FROM unnest($2::text[], $3::text[]))",
                following,
                tables,
                names,
            )
            rows = await connection.fetch(
                "SELECT table_name, column_name FROM followed_columns WHERE following = $1 AND state = 'open' AND next_at <= clock_timestamp()",
                following,
            )
        due = {(r["table_name"], r["column_name"]) for r in rows}
        return [c for c in columns if (c.table, c.column) in due]

    async def count(self, following: UUID, column: LinkColumn, rows: int, *, done: bool) -> None:
        """Rows that followed; `done`: none is left."""
        await self._pool.execute(
            "UPDATE followed_columns SET rows = rows + $4, state = CASE WHEN $5 THEN 'done' ELSE state END, reason = CASE WHEN $5 THEN NULL ELSE reason END"
            " WHERE (following, table_name, column_name) = ($1, $2, $3)",
            following,
            column.table,
            column.column,
            rows,
            done,
            timeout=_LIMIT,
        )

    async def refused(self, following: UUID, column: LinkColumn, reason: str) -> None:
        """It is tried again later, at most `TRIES` times in all."""
        key = (following, column.table, column.column)
        attempts: int | None = await self._pool.fetchval(
            "UPDATE followed_columns SET attempts = attempts + 1, reason = $4, state = CASE WHEN attempts + 1 >= $5 THEN 'failed' ELSE state END"
            " WHERE (following, table_name, column_name) = ($1, $2, $3) RETURNING attempts",
            *key,
            reason.replace("\0", "")[:_REASON],
            TRIES,
            timeout=_LIMIT,
        )
        await self._pool.execute(
            "UPDATE followed_columns SET next_at = clock_timestamp() + make_interval(secs => $4)"
            " WHERE (following, table_name, column_name) = ($1, $2, $3)",
            *key,
            pause_after(attempts or 1, self._chance()),
            timeout=_LIMIT,
        )

    async def settle(self, following: UUID) -> None:
        """Gives it back after an attempt."""
        await self._pool.execute(_SETTLE, following, timeout=_LIMIT)

    async def postpone(self, following: UUID, seconds: float, reason: str) -> None:
        """Gives it back untried: the fault was ours."""
        await self._pool.execute(
            "UPDATE followings SET leased_until = '-infinity', reason = $3, next_at = clock_timestamp() + make_interval(secs => $2) WHERE id = $1",
            following,
            seconds,
            reason,
            timeout=_LIMIT,
        )

    async def end(self, following: UUID, reason: str) -> None:
        """There is nothing to follow it any more."""
        await self._pool.execute(
            "UPDATE followings SET leased_until = '-infinity', state = 'done', reason = $2, ended_at = clock_timestamp() WHERE id = $1",
            following,
            reason,
            timeout=_LIMIT,
        )

    async def due(self) -> float | None:
        """Seconds until the next one is due or free; None if there is none."""
        query = "SELECT extract(epoch FROM min(greatest(next_at, leased_until)) - clock_timestamp())::float8 FROM followings WHERE state = 'open'"
        return await self._pool.fetchval(query, timeout=_LIMIT)

    async def show(self, project: str, order: UUID) -> Followed | None:
        """The last one of an order."""
        row = await self._pool.fetchrow(
            "SELECT id, state, reason FROM followings WHERE project_id = $1 AND order_id = $2 ORDER BY epoch DESC LIMIT 1",
            project,
            order,
            timeout=_LIMIT,
        )
        if row is None:
            return None
        columns = await self._pool.fetch(
            "SELECT table_name, column_name, link, state, rows, attempts, reason, next_at FROM followed_columns WHERE following = $1"
            " ORDER BY table_name, column_name",
            row["id"],
            timeout=_LIMIT,
        )
        return Followed(row["state"], row["reason"], tuple(Column(*c.values()) for c in columns))

    async def sweep(self) -> int:
        """Forgets a batch of what ended long ago, the oldest first; how many rows."""
        return await self._pool.fetchval(_SWEEP, DAYS, BATCH, timeout=_LIMIT)

    async def projects(self) -> list[str]:
        """Of which there are followings."""
        return [r["project_id"] for r in await self._pool.fetch("SELECT DISTINCT project_id FROM followings", timeout=_LIMIT)]

    async def forget(self, project: str) -> None:
        """All of a project that is gone."""
        await self._pool.execute("DELETE FROM followings WHERE project_id = $1", project, timeout=_LIMIT)
