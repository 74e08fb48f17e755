"""Deferred rows and dead letters in Postgres: in the reading service's own schema, whatever the engine of the bus."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from collections.abc import Set as AbstractSet
from contextlib import asynccontextmanager
from datetime import datetime
from importlib.resources import files
from typing import TYPE_CHECKING, Any

import asyncpg
from loquat_events.catalog import UnknownType, parse
from pydantic import BaseModel, ValidationError

from loquat_common.bus.items import Batch
from loquat_common.bus.log import EngineAway, Fenced, Row
from loquat_common.bus.record import Record
from loquat_common.db import is_gone
from loquat_common.migrate import Migration, load

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

COMPONENT = "bus"
_LIMIT = 10.0  # seconds for one statement; they take about a millisecond


def migrations() -> list[Migration]:
    """For the migrator, with component `bus`, in each reading service's schema."""
    return load(files("loquat_common.bus.sql"))


@asynccontextmanager
async def answering() -> AsyncGenerator[None]:
    """Names the two ways in which Postgres refuses: away, and fenced."""
    try:
        yield
    except asyncpg.PostgresError as error:
        if error.sqlstate == "LQ101":
            raise Fenced from None
        if is_gone(error):
            raise EngineAway(type(error).__name__) from error
        raise
    except Exception as error:
        if is_gone(error):
            raise EngineAway(type(error).__name__) from error
        raise


class PostgresStore:
    """The rows of one group. Times are by the database's clock, the only one that all members share."""

    def __init__(self, pool: Pool, group: str) -> None:
        self._pool, self._group = pool, group

    async def claim(self, partition: str) -> int:
        """See `DeferredStore`."""
        async with answering():
            epoch: int = await self._pool.fetchval("SELECT deferred_claim($1, $2)", self._group, partition, timeout=_LIMIT)
        return epoch

    async def lanes(self, partition: str) -> AbstractSet[str]:
        """See `DeferredStore`."""
        query = "SELECT lane FROM deferred WHERE group_name = $1 AND partition = $2 AND state = 'deferred' AND head"
        async with answering():
            return {r["lane"] for r in await self._pool.fetch(query, self._group, partition, timeout=_LIMIT)}

    async def settle(self, batch: Batch[Record]) -> AbstractSet[str]:
        """See `DeferredStore`."""
        w = batch.writes
        async with answering():
            filled: list[str] = await self._pool.fetchval(
                "SELECT deferred_settle($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13)",
                self._group,
                batch.partition,
                batch.epoch,
                [x.item.offset for x in w],
                [x.item.event.id for x in w],
                [x.item.lane for x in w],
                [x.item.project for x in w],
                [x.item.event.value if x.fresh else b"" for x in w],
                [x.state for x in w],
                [x.fresh for x in w],
                [x.attempts for x in w],
                [x.delay for x in w],
                [x.reason for x in w],
                timeout=_LIMIT,
            )
        return set(filled)

    async def due(self, partition: str, upto: int, projects: Sequence[str], lanes: Sequence[str], share: int, most: int) -> Sequence[Row]:
        """See `DeferredStore`."""
        query = "SELECT seq, event_id, lane, project, event, redriven, attempts FROM deferred_due($1, $2, $3, $4, $5, $6, $7)"
        async with answering():
            found = await self._pool.fetch(query, self._group, partition, upto, projects, lanes, share, most, timeout=_LIMIT)
        return [Row(r["seq"], _record(r), r["attempts"], r["redriven"]) for r in found]

    async def waiting(self) -> AbstractSet[str]:
        """See `DeferredStore`."""
        query = "SELECT DISTINCT partition FROM deferred WHERE group_name = $1 AND state = 'deferred' AND head AND next_at <= now()"
        async with answering():
            return {r["partition"] for r in await self._pool.fetch(query, self._group, timeout=_LIMIT)}


def _record(row: asyncpg.Record) -> Record:
    project: str = row["project"]
    return Record(row["event_id"], project, row["lane"].removeprefix(f"{project}:"), row["event"])


class DeadLetter(BaseModel):
    """An event that a consumer gave up on."""

    id: str
    group: str
    topic: str
    type: str | None
    event_id: str
    reason: str
    attempts: int
    state: str
    created_at: datetime
    ended_at: datetime | None


class DeadLetterDetail(DeadLetter):
    """With the event itself, as JSON, or as text where it is none."""

    event: Any


class DeadLetters:
    """What an operator may do with the rows of one service: always of one project."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def list(self, project: str, *, before: int | None = None, limit: int = 50) -> list[DeadLetter]:
        """The newest first; `before` is the id of the last one seen."""
        query = "SELECT * FROM deferred WHERE project = $1 AND state = 'dead' AND ($2::bigint IS NULL OR id < $2) ORDER BY id DESC LIMIT $3"
        async with answering():
            return [DeadLetter.model_validate(_view(r)) for r in await self._pool.fetch(query, project, before, limit, timeout=_LIMIT)]

    async def show(self, project: str, number: int) -> DeadLetterDetail | None:
        """One of them with its event; None if the project has no such."""
        async with answering():
            row = await self._pool.fetchrow(
                "SELECT * FROM deferred WHERE project = $1 AND id = $2 AND state <> 'deferred'", project, number, timeout=_LIMIT
            )
        return None if row is None else DeadLetterDetail.model_validate({**_view(row), "event": _shown(row["event"])})

    async def redrive(self, project: str, number: int) -> bool:
        """Gives it to its consumer again. False: the project has no such dead letter."""
        async with answering():
            done: bool = await self._pool.fetchval(
                "SELECT deferred_redrive(id) FROM deferred WHERE project = $1 AND id = $2 AND state = 'dead'",
                project,
                number,
                timeout=_LIMIT,
            )
        return bool(done)

    async def discard(self, project: str, number: int, reason: str) -> bool:
        """Ends it for good, with a reason for those who come after."""
        query = "UPDATE deferred SET state = 'discarded', reason = reason || '; discarded: ' || $3, ended_at = now() WHERE project = $1 AND id = $2 AND state = 'dead' RETURNING true"
        async with answering():
            return bool(await self._pool.fetchval(query, project, number, reason, timeout=_LIMIT))

    async def forget(self, project: str) -> None:
        """Drops what ended, of a project that is gone. What is only deferred comes back to its handler, which knows what to do."""
        async with answering():
            await self._pool.execute("DELETE FROM deferred WHERE project = $1 AND state <> 'deferred'", project, timeout=_LIMIT)

    async def forget_lanes(self, project: str, lanes: Sequence[str]) -> int:
        """Drops what ended of some lanes of a project, the events too; how many. For people who are to be forgotten."""
        query = "DELETE FROM deferred WHERE project = $1 AND state <> 'deferred' AND lane = ANY ($2)"
        async with answering():
            tag = await self._pool.execute(query, project, [f"{project}:{lane}" for lane in lanes], timeout=_LIMIT)
        return int(tag.rpartition(" ")[2])

    async def counts(self, project: str) -> dict[str, int]:
        """`deferred` and `dead` of a project, events counted once each."""
        query = "SELECT count(*) FILTER (WHERE state = 'deferred') AS deferred, count(*) FILTER (WHERE state = 'dead') AS dead FROM deferred WHERE project = $1"
        async with answering():
            row = await self._pool.fetchrow(query, project, timeout=_LIMIT)
        return {"deferred": row["deferred"], "dead": row["dead"]} if row else {"deferred": 0, "dead": 0}


def _view(row: asyncpg.Record) -> dict[str, Any]:
    shown = _shown(row["event"])
    kind: object = shown.get("type") if isinstance(shown, dict) else None  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]
    topic: str = row["partition"].rpartition("/")[0]
    return {**dict(row), "id": str(row["id"]), "group": row["group_name"], "topic": topic, "type": kind}


def _shown(value: bytes) -> object:
    try:
        return parse(value).model_dump(mode="json", exclude_none=True)
    except (ValidationError, UnknownType):
        return value.decode(errors="replace")
