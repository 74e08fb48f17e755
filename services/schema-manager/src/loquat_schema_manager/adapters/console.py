"""SQL of a project's owner, run as the project's editor: whatever that role may not do, Postgres refuses.

The limits are ours, for the role can set its own aside: rows by the protocol, bytes by counting them, time by ending the session from outside
(a block may catch a cancel; a termination it cannot).
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_common.problems import Problem

from loquat_schema_manager.adapters.databases import Open
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.refusals import refusal
from loquat_schema_manager.adapters.rows import Changed
from loquat_schema_manager.adapters.touched import SETTLED, TOUCHED, Touched, read
from loquat_schema_manager.adapters.wire import Lost, Result, TooMuch, Wire
from loquat_schema_manager.domain.script import Statement, line_of, split
from loquat_schema_manager.errors import UnknownCluster

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LATER_MS: Final = 250
"""By how much a transaction may outlast a statement: the statement's own error says more than the end of the session."""
_GRACE: Final = 0.75
"""Seconds beyond the time limit in which the server's own error may come. It says more than ours, unless the script set the limit aside."""
_ENDING: Final = 3.0  # seconds to end a session from outside
_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid = $1 AND datname = $2 AND usename = $3 AND backend_type = 'client backend'"
_START: Final = (  # new tables go to public, as on any connection of the project's own
    "SELECT pg_catalog.set_config('transaction_timeout', '{:d}', true), pg_catalog.set_config('search_path', 'public', false)"
)
_TYPES: Final = "SELECT pg_catalog.format_type(t.oid::pg_catalog.oid, t.modifier::pg_catalog.int4) FROM (VALUES {}) AS t (oid, modifier)"
_PLAN: Final = {"plan": "EXPLAIN (VERBOSE, FORMAT JSON) ", "analyze": "EXPLAIN (ANALYZE, VERBOSE, BUFFERS, FORMAT JSON) "}


@dataclass(frozen=True, slots=True)
class Request:
    """A script and its limits. `explain` is a key of `_PLAN`. Bytes are those of the whole answer as the database sends it."""

    sql: str
    read_only: bool
    explain: str | None
    rows: int
    milliseconds: int
    statements: int
    bytes: int

    @property
    def is_kept(self) -> bool:
        """Whether what it changes stays."""
        return not self.read_only and self.explain is None


@dataclass(slots=True)
class Ran:
    """What came of a script."""

    given: list[tuple[Statement, Result]] = field(default_factory=list[tuple[Statement, Result]])
    types: dict[tuple[int, int], str] = field(default_factory=dict[tuple[int, int], str])
    notices: list[dict[str, str]] = field(default_factory=list[dict[str, str]])
    touched: Touched = field(default_factory=Touched)
    committing: bool = False
    milliseconds: int = 0


Reshaped = Callable[[str, Sequence[str], str], None]
"""The shape of tables changed: project, those that are there, who. Called after the commit."""


class Console:
    """Runs scripts. `open_database(cluster, database)` opens as loquat_schema_manager, who may end tenants' sessions.

    `changed` and `reshaped` are told of what was committed, and of nothing else.
    """

    def __init__(self, editors: Editors, open_database: Open, changed: Changed, reshaped: Reshaped) -> None:
        self._editors, self._open, self._changed, self._reshaped = editors, open_database, changed, reshaped

    async def run(self, project: str, request: Request, actor: str) -> Ran:
        """Runs a script in one transaction.

        Raises:
            Problem: what Postgres refused, with statement, line and column; `too_slow`, `too_large`, `transaction_control`, `copy`.
        """
        statements = _statements(request)
        limits = Session(statement_ms=request.milliseconds, read_only=request.read_only)
        started, ran = time.perf_counter(), Ran()
        async with self._editors.session(project, limits, actor) as connection:
            pid, user = connection.get_server_pid(), await connection.fetchval(SETTLED)
            wire = Wire(connection, request.bytes)
            ran.notices = wire.notices
            try:
                async with asyncio.timeout(request.milliseconds / 1000 + _GRACE):
                    await _script(wire, request, statements, ran)
            except TimeoutError:
                raise _too_slow(request, ran) from None
            except TooMuch:
                raise Problem(422, "too_large", "The answer is too large", f"{request.bytes} bytes are the limit: ask for less") from None
            except Lost:
                raise Problem(409, "session_lost", "The database ended the session", _outcome(ran)) from None
            finally:
                connection.terminate()
                if wire.busy:
                    await self._end(project, pid, user)
        ran.milliseconds = int((time.perf_counter() - started) * 1000)
        self._tell(project, ran.touched, actor)
        return ran

    def _tell(self, project: str, touched: Touched, actor: str) -> None:
        for table, count in touched.rows.items():
            self._changed(project, table, count, actor)
        if touched.shapes is not None:
            self._reshaped(project, touched.shapes, actor)

    async def _end(self, project: str, pid: int, user: str) -> None:
        """Nothing of a script runs on when its time is over. If the cluster is away, the reaper does it later."""
        place = self._editors.place(project)
        try:
            async with asyncio.timeout(_ENDING):
                service = await self._open(place.cluster, "postgres")
                try:
                    await service.execute(_END, pid, place.database, user)
                finally:
                    await service.close()
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError, UnknownCluster) as error:
            if not is_gone(error) and not isinstance(error, UnknownCluster):
                raise
            get_logger().warning("console.session_not_ended", project=project, reason=type(error).__name__)


def _statements(request: Request) -> list[Statement]:
    if "\0" in request.sql:
        raise Problem(422, "invalid_request", "The request is not valid", "body.sql has a NUL character; PostgreSQL has none in its text")
    found = split(request.sql)
    if not found:
        raise Problem(422, "invalid_request", "The request is not valid", "body.sql has no statement")
    if len(found) > request.statements:
        raise Problem(422, "over_limit", "The script is too long", f"{len(found)} statements; {request.statements} are the limit")
    if request.explain and len(found) > 1:
        raise Problem(422, "invalid_request", "The request is not valid", f"body.explain takes one statement; there are {len(found)}")
    for statement in found:
        if statement.ends_transaction:
            raise _at(
                request.sql,
                statement.start,
                Problem(
                    422,
                    "transaction_control",
                    "The console begins and ends the transaction itself",
                    f"{statement.words[0].upper()} is not possible here: a script is one transaction. Savepoints are possible",
                ),
            )
    return found


async def _script(wire: Wire, request: Request, statements: list[Statement], ran: Ran) -> None:
    await _ours(wire, "BEGIN READ ONLY" if request.read_only else "BEGIN READ WRITE")
    # Any query will do: until its first one a read-only transaction can be made a writing one.
    await _ours(wire, _START.format(request.milliseconds + _LATER_MS))
    prefix = _PLAN[request.explain] if request.explain else ""
    for statement in statements:
        result = await wire.run(prefix + statement.text, request.rows + 1)
        _check(request, statement, result, len(prefix))
        if not wire.in_transaction:
            raise Problem(422, "transaction_control", "The script ended the transaction", _outcome(ran))
        if len(result.rows) > request.rows:
            result.rows.pop()
            result.more = True
        ran.given.append((statement, result))
    await _name_types(wire, ran)
    if request.is_kept:
        ran.touched = read(await _ours(wire, TOUCHED))
    ran.committing = request.is_kept
    ended = await wire.run("COMMIT" if request.is_kept else "ROLLBACK")
    if ended.error is not None:  # a constraint or trigger that waited for the end
        ran.committing = False
        raise _refused(ended.error)


async def _ours(wire: Wire, sql: str) -> Result:
    result = await wire.run(sql)
    if result.error is not None:
        raise _refused(result.error)
    return result


async def _name_types(wire: Wire, ran: Ran) -> None:
    wanted = sorted({(oid, modifier) for _, result in ran.given for _, oid, modifier in result.columns or ()})
    if wanted:
        values = ", ".join(f"({oid:d}, {modifier:d})" for oid, modifier in wanted)
        named = await _ours(wire, _TYPES.format(values))
        ran.types = {pair: (row[0] or b"???").decode(errors="replace") for pair, row in zip(wanted, named.rows, strict=True)}


def _check(request: Request, statement: Statement, result: Result, prefix: int) -> None:
    if result.copied:
        problem = Problem(422, "copy", "The console copies no streams", "Import or export the table, or SELECT its rows")
        raise _at(request.sql, statement.start, problem)
    if result.error is not None:
        position = getattr(result.error, "position", None)
        offset = max(0, int(position) - 1 - prefix) if position else 0
        raise _at(request.sql, statement.start + offset, _refused(result.error))


def _refused(error: asyncpg.PostgresError) -> Problem:
    """What the server says of a script is an answer, of whatever class it is: even its farewell is the script's doing or tells of it."""
    if (problem := refusal(error)) is not None:
        return problem
    return Problem(422, "sql_error", "PostgreSQL refused the statement", str(error)[:2000], sqlstate=error.sqlstate)


def _at(sql: str, position: int, problem: Problem) -> Problem:
    line, column = line_of(sql, position)
    problem.extra |= {"position": position + 1, "line": line, "column_number": column}
    return problem


def _outcome(ran: Ran) -> str:
    if ran.committing:
        return "It was being committed: look whether it was"
    return "Nothing of the script stays"


def _too_slow(request: Request, ran: Ran) -> Problem:
    return Problem(
        422, "too_slow", "The script took longer than its limit", f"It was ended after {request.milliseconds} ms. {_outcome(ran)}"
    )
