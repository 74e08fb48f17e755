"""When holds of conversations end by themselves, of all projects, in the control database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

MOST: Final = 100
"""That are taken at once."""
LEASE: Final = timedelta(minutes=1)
"""Until what somebody has taken is another's: whoever took it has told of it long before, or is gone."""
_WAIT: Final = 10.0  # seconds for a statement
_NOTE: Final = """
INSERT INTO lapses (project_id, conversation_id, epoch, held_until, look_at, lane) VALUES ($1, $2, $3, $4, $4, $5)
ON CONFLICT (project_id, conversation_id) DO UPDATE
  SET epoch = excluded.epoch, held_until = excluded.held_until, look_at = excluded.look_at, lane = excluded.lane
  WHERE (lapses.epoch, lapses.held_until) <> (excluded.epoch, excluded.held_until)"""
_TAKE: Final = """
WITH due AS (SELECT project_id, conversation_id FROM lapses WHERE look_at <= $1 ORDER BY look_at LIMIT $3 FOR UPDATE SKIP LOCKED)
UPDATE lapses AS l SET look_at = $2 FROM due WHERE (l.project_id, l.conversation_id) = (due.project_id, due.conversation_id)
RETURNING l.project_id, l.conversation_id, l.epoch, l.held_until, l.lane"""


@dataclass(frozen=True, slots=True)
class Lapse:
    """A hold whose time is over, unless it was moved since."""

    project_id: str
    conversation_id: UUID
    epoch: int
    held_until: datetime
    lane: str


class Lapses:
    """Rows of all projects. What is taken and not settled, because its taker died, is taken again."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def note(self, lapse: Lapse) -> None:
        """The conversation is held until then. A conversation has one row; repeated, it changes nothing."""
        await self._pool.execute(_NOTE, lapse.project_id, lapse.conversation_id, lapse.epoch, lapse.held_until, lapse.lane, timeout=_WAIT)

    async def take(self, now: datetime) -> list[Lapse]:
        """Those that are due, for as long as `LEASE`."""
        return [Lapse(**_known(r)) for r in await self._pool.fetch(_TAKE, now, now + LEASE, MOST, timeout=_WAIT)]

    async def put_back(self, lapses: Sequence[Lapse], look_at: datetime) -> None:
        """They are looked at then."""
        await self._settle("UPDATE lapses AS l SET look_at = $4", lapses, look_at)

    async def settle(self, lapses: Sequence[Lapse]) -> None:
        """They are told of, or were moved. One that was noted anew meanwhile stays."""
        await self._settle("DELETE FROM lapses AS l USING", lapses)

    async def _settle(self, begin: str, lapses: Sequence[Lapse], *more: Any) -> None:
        source = " FROM" if more else ""
        await self._pool.execute(
            f"{begin}{source} unnest($1::text[], $2::uuid[], $3::timestamptz[]) AS t(project_id, conversation_id, held_until)"
            " WHERE (l.project_id, l.conversation_id, l.held_until) = (t.project_id, t.conversation_id, t.held_until)",
            [x.project_id for x in lapses],
            [x.conversation_id for x in lapses],
            [x.held_until for x in lapses],
            *more,
            timeout=_WAIT,
        )


def _known(row: asyncpg.Record) -> dict[str, Any]:
    return dict(row)
