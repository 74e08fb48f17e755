"""Runs and logs in the control database, and all that is kept of a project."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from loquat_common.retention import BATCH
from pydantic import BaseModel

from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.drafts import Drafts
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.bundle import BundleRefused
from loquat_bot_runner.errors import BotError

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

_LOG_LINES: Final = 2_000
"""Lines kept of a project: what a page shows and a person reads. A flood of one project costs nobody else."""
_EVENTS: Final = 1_000
"""Events forgotten by one statement: some thousand rows by the index, far within a command's limit."""
_WRITING: Final = "WITH writing AS MATERIALIZED (SELECT pg_advisory_xact_lock_shared(hashtextextended('said ' || $1::text, 0)))"
# purpose: whoever writes takes a number and commits later, not always in that order. Who reads what is newest waits for those who write at this moment, and
# looks for the newest number before the next does: then every number up to it was committed, or never will be. He reads up to it when nobody waits for him
# any more: a reading may take seconds, and whoever writes holds a connection that all projects share
_READING: Final = "SELECT pg_advisory_xact_lock(hashtextextended('said ' || $1::text, 0))"
_PATIENCE: Final = "500ms"  # for those who write; they take about one
FAILED: Final = "failed"
_SAID: Final = {"error", "trace", "state", "next_state"}
"""What of a run is the bot's own words."""
_RUN: Final = (
    "event_id",
    "version",
    "attempt",
    "state",
    "next_state",
    "outcome",
    "replies",
    "duration_ms",
    "error",
    "trace",
    "started_at",
    "conversation_id",
    "queries",
)


class Run(BaseModel):
    """One call of bot code, or why there was none."""

    id: UUID
    event_id: UUID
    conversation_id: UUID | None
    version: str | None
    attempt: int
    state: str | None
    next_state: str | None
    outcome: str
    replies: int
    queries: int | None
    duration_ms: float
    error: str | None
    trace: str | None
    started_at: datetime


class LogLine(BaseModel):
    """A line of a project's log."""

    id: int
    event_id: UUID | None
    level: str
    line: str
    at: datetime


@dataclass(frozen=True, slots=True)
class RunFilter:
    """Which runs; None: whatever it is. `outcome` may be FAILED: all but `handled`."""

    outcome: str | None = None
    version: str | None = None
    conversation: UUID | None = None
    event: UUID | None = None
    since: datetime | None = None


class StillWriting(Exception):
    """Somebody takes long to write: what is newest cannot be told yet."""


class Store:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool, redact: Callable[[str, str], str] = lambda _project, text: text) -> None:
        """`redact`: words of a project's bot without its secrets. None of them is kept before."""
        self._pool, self._redact = pool, redact
        self._drafts, self._versions, self._aside = Drafts(pool), Versions(pool), Aside()
        self._written: dict[str, int] = {}

    def said(self, project: str, text: str) -> str:
        """A bot's words as they are kept: as a whole, for a secret may have several lines, and without the character that no database keeps."""
        return self._redact(project, text.replace("\0", ""))

    async def files(self, project: str, version: str) -> dict[str, str] | None:
        """The files of a version."""
        return await self._versions.files(project, version)

    async def draft(self, project: str) -> str:
        """The version that the draft would be now; kept, so that a worker can load it.

        Raises:
            BotError: it is no bot.
            ProjectDatabaseAway: too many are being read.
        """
        files = (await self._drafts.read(project)).files
        try:
            version = await self._aside.checked(files)
        except BundleRefused as refused:
            raise BotError(f"the draft is no bot: {refused.reason}") from None
        if not await self._versions.is_kept(project, version):
            await self._versions.keep(project, version, files)
        return version

    async def projects(self) -> list[str]:
        """All that have a version, a draft or a row of the log."""
        query = (
            "SELECT project_id FROM versions UNION SELECT project_id FROM runs UNION SELECT project_id FROM logs"
            " UNION SELECT project_id FROM drafts UNION SELECT project_id FROM secrets UNION SELECT project_id FROM due"
            " UNION SELECT project_id FROM lapses"
        )
        return [r["project_id"] for r in await self._pool.fetch(query)]

    async def forget(self, project: str) -> None:
        """Drops all of a project that is gone."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            for query in (
                "DELETE FROM logs WHERE project_id = $1",
                "DELETE FROM runs WHERE project_id = $1",
                "DELETE FROM drafts WHERE project_id = $1",
                "DELETE FROM secrets WHERE project_id = $1",
                "DELETE FROM due WHERE project_id = $1",
                "DELETE FROM lapses WHERE project_id = $1",
                "DELETE FROM deployments WHERE project_id = $1",
                "DELETE FROM versions WHERE project_id = $1",
            ):
                await connection.execute(query, project)
        self._written.pop(project, None)

    async def forget_events(self, project: str, events: Sequence[UUID]) -> None:
        """What the bot said and where it failed at these events may hold a person's words: lines go, errors and traces too.

        Some events at a time; cut off, it is asked for again.
        """
        for start in range(0, len(events), _EVENTS):
            some = list(events[start : start + _EVENTS])
            await self._pool.execute("DELETE FROM logs WHERE project_id = $1 AND event_id = ANY ($2)", project, some)
            await self._pool.execute(
                "UPDATE runs SET error = NULL, trace = NULL, state = NULL, next_state = NULL WHERE project_id = $1 AND event_id = ANY ($2)"
                " AND num_nonnulls(error, trace, state, next_state) > 0",
                project,
                some,
            )

    async def forget_timers(self, project: str, conversations: Sequence[UUID]) -> None:
        """When timers and holds of these conversations are due: the rows have an address of the contact, by which their events are in order."""
        query = "DELETE FROM due WHERE project_id = $1 AND kind = 'timer' AND body->>'conversation_id' = ANY ($2)"
        await self._pool.execute(query, project, [str(c) for c in conversations], timeout=10)
        query = "DELETE FROM lapses WHERE project_id = $1 AND conversation_id = ANY ($2)"
        await self._pool.execute(query, project, list(conversations), timeout=10)

    async def record_run(self, project: str, run: Mapping[str, Any]) -> UUID | None:
        """Keeps a run; its id."""
        return await self._pool.fetchval(
            f"{_WRITING} INSERT INTO runs (project_id, {', '.join(_RUN)})"  # noqa: S608
            " SELECT $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14 FROM writing RETURNING id",
            project,
            *(self._redact(project, v) if k in _SAID and isinstance(v := run.get(k), str) else run.get(k) for k in _RUN),
        )

    async def runs(
        self, project: str, before: UUID | None, limit: int, chosen: RunFilter = RunFilter(), *, after: UUID | None = None
    ) -> list[Run]:
        """Newest first, below `before`; with `after`, those that follow it, the oldest first. As `logs`."""
        asked: list[tuple[str, Any]] = [
            ("id < ?", before),
            ("id > ?", after),
            ("version = ?", chosen.version),
            ("conversation_id = ?", chosen.conversation),
            ("event_id = ?", chosen.event),
            ("started_at >= ?", chosen.since),
            ("outcome = ?", chosen.outcome if chosen.outcome != FAILED else None),
        ]
        order = "DESC" if after is None else "ASC"

        async def read(last: UUID | None) -> list[asyncpg.Record]:
            given = [(condition, value) for condition, value in (*asked, ("id <= ?", last)) if value is not None]
            conditions = [condition.replace("?", f"${n}") for n, (condition, _) in enumerate(given, 3)]
            if chosen.outcome == FAILED:
                conditions.append("outcome <> 'handled'")
            query = f"SELECT * FROM runs WHERE {' AND '.join(['project_id = $1', *conditions])} ORDER BY id {order} LIMIT $2"  # noqa: S608
            return await self._pool.fetch(query, project, limit, *(value for _, value in given))

        rows = await (self._newest("runs", project, read) if before is None else read(None))
        return [Run.model_validate(dict(r)) for r in rows]

    async def run(self, project: str, run: UUID) -> Run | None:
        """One run."""
        row = await self._pool.fetchrow("SELECT * FROM runs WHERE project_id = $1 AND id = $2", project, run)
        return Run.model_validate(dict(row)) if row is not None else None

    async def log(self, project: str, event: UUID | None, level: str, lines: list[str]) -> None:
        """Adds lines, and now and then drops those beyond the limit."""
        await self._pool.execute(
            f"{_WRITING} INSERT INTO logs (project_id, event_id, level, line) SELECT $1, $2, $3, l FROM writing, unnest($4::text[]) AS l",  # noqa: S608
            project,
            event,
            level,
            [self._redact(project, line) for line in lines],
        )
        written = self._written[project] = self._written.get(project, 0) + len(lines)
        if written >= _LOG_LINES // 10:
            self._written[project] = 0
            await self._pool.execute(
                "DELETE FROM logs WHERE project_id = $1 AND id < (SELECT id FROM logs WHERE project_id = $1 ORDER BY id DESC OFFSET $2 LIMIT 1)",
                project,
                _LOG_LINES,
            )

    async def logs(
        self, project: str, before: int | None, limit: int, *, after: int | None = None, event: UUID | None = None
    ) -> list[LogLine]:
        """Newest first, below `before`; with `after`, those that follow it, oldest first: what a tail shows next.

        Whoever goes on behind the newest id that he was shown misses no line and sees none twice.

        Raises:
            StillWriting: in a moment.
        """
        order = "ASC" if after is not None else "DESC"
        query = (
            "SELECT * FROM logs WHERE project_id = $1 AND ($2::bigint IS NULL OR id < $2) AND ($4::bigint IS NULL OR id > $4)"  # noqa: S608
            f" AND ($5::uuid IS NULL OR event_id = $5) AND ($6::bigint IS NULL OR id <= $6) ORDER BY id {order} LIMIT $3"
        )

        async def read(last: int | None) -> list[asyncpg.Record]:
            return await self._pool.fetch(query, project, before, limit, after, event, last)

        rows = await (self._newest("logs", project, read) if before is None else read(None))
        return [LogLine.model_validate(dict(r)) for r in rows]

    async def of_event(self, project: str, event: UUID, limit: int) -> list[LogLine]:
        """The first lines of an event."""
        query = "SELECT * FROM logs WHERE project_id = $1 AND event_id = $2 ORDER BY id LIMIT $3"
        return [LogLine.model_validate(dict(r)) for r in await self._pool.fetch(query, project, event, limit)]

    async def reaches(self, project: str, line: int) -> bool:
        """Whether the log still holds this line or one before it: then none behind it was dropped for want of room."""
        query = "SELECT EXISTS (SELECT FROM logs WHERE project_id = $1 AND id <= $2)"
        return bool(await self._pool.fetchval(query, project, line))

    async def _newest(self, table: str, project: str, read: Callable[[Any], Awaitable[list[asyncpg.Record]]]) -> list[asyncpg.Record]:
        """What `read` finds up to the id that it is given. Whoever is shown nothing misses nothing; else see `_READING`."""
        found = await read(None)
        if not found:
            return found
        try:
            async with self._pool.acquire(timeout=10) as connection, connection.transaction():
                await connection.execute("SELECT set_config('lock_timeout', $1, true)", _PATIENCE)
                await connection.execute(_READING, project)
                last = await connection.fetchval(f"SELECT id FROM {table} WHERE project_id = $1 ORDER BY id DESC LIMIT 1", project)  # noqa: S608
        except asyncpg.LockNotAvailableError:
            raise StillWriting from None
        return await read(last) if last is not None else []

    async def sweep_runs(self, days: int) -> int:
        """Forgets one batch of runs older than that, the oldest first; how many. The id begins with the time: no other index is read."""
        done: str = await self._pool.execute(
            "DELETE FROM runs WHERE id IN (SELECT r.id FROM runs AS r ORDER BY r.id LIMIT $2)"
            " AND uuid_extract_timestamp(id) < now() - make_interval(days => $1)",
            days,
            BATCH,
        )
        return _count(done)

    async def sweep_logs(self, days: int) -> int:
        """The same for lines of logs."""
        done: str = await self._pool.execute(
            "DELETE FROM logs WHERE id IN (SELECT l.id FROM logs AS l ORDER BY l.id LIMIT $2) AND at < now() - make_interval(days => $1)",
            days,
            BATCH,
        )
        return _count(done)


def _count(tag: str) -> int:
    return int(tag.rpartition(" ")[2])
