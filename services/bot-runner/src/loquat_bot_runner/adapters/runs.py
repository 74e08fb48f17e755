"""The platform's functions in a project database, as loquat_bot_runner."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

import asyncpg
from loquat_common.db import DatabaseAway, ProjectPools
from loquat_events.projects import ProjectListed

from loquat_bot_runner.domain.holding import Conduct
from loquat_bot_runner.domain.outcomes import STALE
from loquat_bot_runner.errors import ProtocolViolated, Unsaid
from loquat_bot_runner.ports import Begun, Committed, Failed, Hold, Known, Spoken

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_CONTEXT: Final = "CASE b.todo WHEN 'run' THEN loquat.context_of(b.contact_id) END AS context"
_TIMED: Final = "CASE WHEN b.todo IN ('run', 'done', 'held') THEN loquat.timed_of(($1->>'id')::uuid, b.todo) END AS timed"
_BEGIN: Final = (
    f"SELECT b.*, {_CONTEXT}, {_TIMED} FROM loquat.begin_run($1, $2) AS b",  # noqa: S608
    f"SELECT b.*, {_CONTEXT}, NULL::jsonb AS timed FROM loquat.begin_run($1, $2) AS b",  # noqa: S608
    "SELECT b.*, NULL::jsonb AS context, NULL::jsonb AS timed FROM loquat.begin_run($1, $2) AS b",
)
"""The newest first: a database that the sweep has not brought forward yet knows an older one."""
_BEGIN_11: Final = (
    f"SELECT b.*, CASE WHEN b.todo IN ('run', 'observe') THEN loquat.context_of(b.contact_id) END AS context, {_TIMED},"  # noqa: S608
    " loquat.settings() AS settings, CASE b.todo WHEN 'run' THEN loquat.ask_of(b.conversation_id) END AS ask,"
    " CASE WHEN b.todo IN ('done', 'dead') THEN loquat.holder_of(($1->>'id')::uuid) END AS holder,"
    " CASE WHEN $6 AND b.todo = 'run' THEN loquat.following(($1->>'id')::uuid) END AS following"
    " FROM loquat.begin_event($1, $2, $3, $4, $5) AS b"
)
_UNSAID: Final = (
    "CASE WHEN b.todo IN ('run', 'observe', 'dead') OR b.todo = 'held' AND b.outbox IS NULL"
    " THEN loquat.unsaid(($1->>'id')::uuid) END AS unsaid"
)
_BEGIN_13: Final = _BEGIN_11.replace(" AS following", f" AS following, {_UNSAID}")
_FAIL: Final = (
    "SELECT f.*, loquat.holder_of($1) AS holder, loquat.unsaid($1) AS unsaid FROM loquat.fail_event($1, $2, $3) AS f",
    "SELECT f.*, loquat.holder_of($1) AS holder FROM loquat.fail_event($1, $2, $3) AS f",
)
_NO_RESULT: Final = "LQ001"
_HELD: Final = (
    "SELECT id, state, version, needs_attention, CASE WHEN holder <> 'bot' THEN held_until END AS held_until, held_until <= clock_timestamp() AS over"
    " FROM public.conversations WHERE id = ANY ($1) AND status = 'open'"
)
_TOUCHED: Final = "loquat.touched_by($1) AS touched"
_COMMIT: Final = (
    f"SELECT c.status, c.outbox, {_TOUCHED}, loquat.timed_of($1, 'done') AS timed, loquat.holder_of($1) AS holder FROM loquat.commit_run($1, $2, $3) AS c",  # noqa: S608
    f"SELECT c.status, c.outbox, {_TOUCHED}, loquat.timed_of($1, 'done') AS timed FROM loquat.commit_run($1, $2, $3) AS c",  # noqa: S608
    f"SELECT c.status, c.outbox, {_TOUCHED}, NULL::jsonb AS timed FROM loquat.commit_run($1, $2, $3) AS c",  # noqa: S608
    "SELECT c.status, c.outbox, NULL::jsonb AS touched, NULL::jsonb AS timed FROM loquat.commit_run($1, $2, $3) AS c",
)


class ProjectRuns:
    """See `ports.Runs`."""

    def __init__(self, pools: ProjectPools) -> None:
        self._pools = pools

    @asynccontextmanager
    async def _connection(self, project: ProjectListed) -> AsyncGenerator[Connection]:
        if project.cluster is None or project.database is None:
            raise DatabaseAway("the project has no database yet")
        async with self._pools.acquire(project.cluster, project.database, project=project.project_id, epoch=project.epoch) as connection:
            yield connection

    async def begin(
        self,
        project: ProjectListed,
        element: dict[str, Any],
        hold: Hold | None,
        *,
        age: timedelta | None = None,
        redriven: bool = False,
        observes: bool = False,
        gathers: bool = False,
    ) -> Begun:
        """See `ports.Runs`."""
        try:
            async with self._connection(project) as connection:
                try:
                    row = await _newest(connection, (_BEGIN_13, _BEGIN_11), element, hold, age, redriven, observes, gathers)
                except asyncpg.UndefinedFunctionError:
                    before = hold or ("expired" if age is not None and age > STALE else None)
                    row = await _newest(connection, _BEGIN, element, before)
        except asyncpg.LockNotAvailableError as error:
            raise DatabaseAway("the conversation is locked by the bot's own transaction") from error
        if row is None:
            raise DatabaseAway("begin_run gave no answer")
        return Begun(
            row["todo"],
            row["conversation_id"],
            row["contact_id"],
            row["state"] or "",
            row["version"] or 0,
            row["blocked_by"],
            row["outbox"] or [],
            _known(row["context"]),
            row["timed"],
            conduct=Conduct.of(row.get("settings")),
            ask=row.get("ask"),
            following=row.get("following"),
            holder=row.get("holder"),
            unsaid=row.get("unsaid") or [],
        )

    async def commit(self, project: ProjectListed, event: UUID, version: int | None, result: dict[str, Any] | None) -> Committed:
        """See `ports.Runs`."""
        try:
            async with self._connection(project) as connection:
                row = await _newest(connection, _COMMIT, event, version, result)
        except asyncpg.LockNotAvailableError as error:  # a bot sits on its own open transaction: its own conversation waits, nobody else
            raise DatabaseAway("the conversation is locked by the bot's own transaction") from error
        except asyncpg.PostgresError as error:  # what `replies.checked` let through is the bot's fault, not ours
            if error.sqlstate == _NO_RESULT or isinstance(error, asyncpg.DataError):
                raise ProtocolViolated(f"the database does not take the result: {error}") from None
            raise
        if row is None:
            raise DatabaseAway("commit_run gave no answer")
        return Committed(row["status"], row["outbox"] or [], row["touched"] or {}, row["timed"] or {}, row.get("holder"))

    async def fail(self, project: ProjectListed, event: UUID, run: UUID | None, kind: str) -> Failed | None:
        """See `ports.Runs`."""
        try:
            async with self._connection(project) as connection:
                row = await _newest(connection, _FAIL, event, run, kind)
        except asyncpg.UndefinedFunctionError:  # a database that the sweep has not brought forward yet
            return None
        except asyncpg.LockNotAvailableError as error:
            raise DatabaseAway("the conversation is locked by the bot's own transaction") from error
        return Failed(row["status"], row["outbox"] or [], row["holder"], row.get("unsaid") or []) if row is not None else None

    async def touched(self, project: ProjectListed, event: UUID) -> dict[str, int]:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            try:
                return await connection.fetchval("SELECT loquat.touched_by($1)", event) or {}
            except asyncpg.UndefinedFunctionError:
                return {}

    async def clear(self, project: ProjectListed, events: list[UUID]) -> None:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.clear_outbox($1)", events)

    async def say(self, project: ProjectListed, event: UUID, version: int, answered: UUID, place: int, reply: dict[str, Any]) -> Spoken:
        """See `ports.Runs`."""
        try:
            async with self._connection(project) as connection:
                row = await connection.fetchrow("SELECT * FROM loquat.say_now($1, $2, $3, $4, $5)", event, answered, version, place, reply)
        except asyncpg.UndefinedFunctionError:
            raise Unsaid("the project's database is being brought forward to this release") from None
        except asyncpg.LockNotAvailableError as error:
            raise DatabaseAway("the conversation is locked") from error
        except asyncpg.PostgresError as error:
            if error.sqlstate == _NO_RESULT or isinstance(error, asyncpg.DataError):
                raise ProtocolViolated(f"the database does not take the reply: {error}") from None
            raise
        if row is None:
            raise DatabaseAway("say_now gave no answer")
        return Spoken(row["status"], row["outbox"] or [])

    async def clear_said(self, project: ProjectListed, messages: list[UUID]) -> None:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.clear_said($1)", messages)

    async def armed(self, project: ProjectListed, timers: list[dict[str, Any]]) -> None:
        """See `handlers.timed.TimedRows`."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.timers_armed($1)", timers)

    async def clear_sends(self, project: ProjectListed, event: UUID) -> None:
        """See `handlers.timed.TimedRows`."""
        async with self._connection(project) as connection:
            await connection.execute("SELECT loquat.clear_sends($1)", event)

    async def opened_at(self, project: ProjectListed, conversation: UUID) -> datetime | None:
        """See `ports.Runs`."""
        async with self._connection(project) as connection:
            return await connection.fetchval("SELECT opened_at FROM public.conversations WHERE id = $1", conversation)

    async def held(self, project: ProjectListed, conversations: Sequence[UUID]) -> dict[UUID, dict[str, Any]]:
        """See `handlers.lapsing.Held`."""
        async with self._connection(project) as connection:
            try:
                rows = await connection.fetch(_HELD, list(conversations))
            except asyncpg.UndefinedColumnError as error:  # a backup of an older release was restored
                raise DatabaseAway("the project's database is behind this release") from error
        return {r["id"]: dict(r) for r in rows}

    async def events_of(self, project: ProjectListed, contact: UUID) -> list[UUID]:
        """The events of a person.

        Raises:
            DatabaseAway: also while the database has not been brought to this release.
        """
        return await self._of_person(project, "SELECT loquat.events_of($1)", contact)

    async def conversations_of(self, project: ProjectListed, contact: UUID) -> list[UUID]:
        """The conversations of a person.

        Raises:
            DatabaseAway: as above.
        """
        return await self._of_person(project, "SELECT loquat.conversations_of($1)", contact)

    async def _of_person(self, project: ProjectListed, query: str, contact: UUID) -> list[UUID]:
        async with self._connection(project) as connection:
            try:
                return list(await connection.fetchval(query, contact))
            except asyncpg.UndefinedFunctionError as error:
                raise DatabaseAway("the project's database is behind this release") from error

    async def ledger(self, project: ProjectListed) -> dict[str, int]:
        """The markers of P7, and `open`: what has none yet."""
        async with self._connection(project) as connection:
            row = await connection.fetchrow("SELECT * FROM loquat.ledger()")
        return dict(row) if row else {}


async def _newest(connection: Connection, queries: Sequence[str], *arguments: Any) -> asyncpg.Record | None:
    *newer, oldest = queries
    for query in newer:
        try:
            return await connection.fetchrow(query, *arguments)
        except asyncpg.UndefinedFunctionError:
            continue
    return await connection.fetchrow(oldest, *arguments)


def _known(context: dict[str, Any] | None) -> Known | None:
    if context is None:
        return None
    mark = context["secrets"]
    return Known(context["contact"] or {}, context["config"], UUID(mark) if mark is not None else None)
