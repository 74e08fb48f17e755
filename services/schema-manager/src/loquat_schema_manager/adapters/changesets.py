"""Change sets: the one way in which tables change. `ChangeSets.apply` is the entry point for everybody.

**The truth after a crash.** The change and its record stand in two databases, and no commit reaches over both. The record cannot stand in the
project's database: whatever its role may write there, it may also forge or lose. So:

1. the intent is written to the control database (state `applying`);
2. the changes run in one transaction of the project's database;
3. before its commit, the record gets the SQL, the reverse SQL and the transaction's number (`pg_current_xact_id`);
4. the transaction commits; 5. the record says `applied`.

Whoever finds a record that is still `applying` asks the project's database what became of that number (`pg_xact_status`): committed or aborted, by
PostgreSQL's own log of commits, which no tenant can write. A record without a number never came to its commit. It is given up when its process is gone
(`Holder`), at the latest after `ABANDONED`: step 3 changes only a row that is still open and without a number, so one that was given up meanwhile (`Fenced`)
rolls back. A lost answer to COMMIT is the same case. `settle` does the asking; a loop calls it
(`handlers/announcements.py`), and so does every look at an open record.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final, TypeVar
from uuid import UUID, uuid4

import asyncpg
from loquat_common import metrics
from loquat_common.db import is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_common.problems import Problem, not_found
from loquat_rest import changes as shapes

from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.execution import Execution, Outcome
from loquat_schema_manager.adapters.records import Fenced, Record, Records, under_way
from loquat_schema_manager.adapters.refusals import refusals
from loquat_schema_manager.domain.changes import frees
from loquat_schema_manager.domain.orders import Order
from loquat_schema_manager.domain.steps import Bounds, Step
from loquat_schema_manager.errors import OutcomeUnknown

if TYPE_CHECKING:
    from asyncpg.transaction import Transaction

    Connection = asyncpg.Connection[asyncpg.Record]

T = TypeVar("T")

LIMIT: Final = 55.0
"""Seconds of one change set on the database: a little less than a tenant's transaction may last (cluster.conf, 60 s)."""
ABANDONED: Final = 180.0
"""Seconds after which an intent without a transaction is given up though nobody knows its process to be gone: twice as long as any request lives.

Being wrong costs a refusal, not the truth.
"""
_COMMIT: Final = 10.0  # seconds; whatever was put off to the commit has been done before (`Execution`)
_ROLLBACK: Final = 5.0  # seconds, with the cancelling of a statement
_RESTING: Final = 5.0  # seconds; before that, whoever applies it says himself what became of it
_CONNECTION: Final = Session(statement_ms=50_000, lock_ms=2_000)
_FREEING: Final = replace(_CONNECTION, frees=True)
_STATUS: Final = "SELECT pg_catalog.pg_xact_status($1::pg_catalog.text::pg_catalog.xid8)"

Work = Callable[[Execution], Awaitable[Outcome]]


class ChangeSets:
    """Applies, records, undoes. `applied` is called after each that took effect: there is something to announce."""

    def __init__(
        self,
        editors: Editors,
        records: Records,
        applied: Callable[[], None] = lambda: None,
        *,
        bounds: Bounds | None = None,
        failpoints: Failpoints | None = None,
    ) -> None:
        self._editors, self._records, self._applied = editors, records, applied
        self._bounds, self._failpoints = bounds or Bounds(), failpoints or Failpoints(None)
        self._log = get_logger()

    async def apply(
        self,
        project: str,
        changes: Sequence[shapes.Change],
        *,
        actor: str,
        message: str | None = None,
        dry_run: bool = False,
        force: bool = False,
        key: str | None = None,
    ) -> shapes.ChangeSet:
        """All changes or none, in this order. A dry run does them, takes them back, and says what would fail in `failures`.

        `force`: also what holds a large table up for long. `key`: what took effect under it is not done again, but shown; one that was refused or broken off
        before its commit is tried anew. It holds for as long as the change set is kept, and means nothing to a dry run.

        Raises:
            Problem: what stood in the way, with `change`, the number of the change; nothing was changed. 503 `outcome_unknown` alone says that it may
                have been: `change_set` is then the id to ask for.
        """
        if dry_run:
            return await self._dry(project, lambda run: run.changes(changes), changes, actor, message, force=force)
        order = Order.of(project, key, changes, message, force=force) if key is not None else None
        if order is not None and (known := await self._ordered(project, order)) is not None:
            return known
        return await self._recorded(project, lambda run: run.changes(changes), changes, actor, message, None, order, force=force)

    async def _ordered(self, project: str, order: Order) -> shapes.ChangeSet | None:
        """What became of an order that was given before. None: nothing, so it may be done."""
        record = await self._records.ordered(project, order)
        if record is not None and record.state == "applying":
            await self._settle(record)
            record = await self._records.ordered(project, order)
        if record is not None and record.state == "applying":
            raise under_way(record.id)
        return record.view() if record is not None else None

    async def revert(
        self, project: str, change_set: UUID, *, actor: str, message: str | None = None, dry_run: bool = False, force: bool = False
    ) -> shapes.ChangeSet:
        """Undoes a change set, as a change set. `force`: also when rows or values that came since are lost by it.

        Raises:
            Problem: as `apply`; 404; 409 `not_applied`, `already_reverted`, `irreversible`.
        """
        steps = self._undoable(await self._record(project, change_set))
        if dry_run:
            return await self._dry(project, lambda run: run.steps(steps), (), actor, message, force=force)
        return await self._recorded(project, lambda run: run.steps(steps), (), actor, message, change_set, None, force=force)

    def _undoable(self, record: Record) -> list[Step]:
        if record.state != "applied":
            raise Problem(409, "not_applied", "Only a change set that took effect can be undone", f"Its state is {record.state}")
        if record.reverted_by is not None:
            raise Problem(409, "already_reverted", "The change set has been undone already", reverted_by=str(record.reverted_by))
        if record.place != self._editors.place(record.place.project):
            raise Problem(409, "irreversible", "The change set cannot be undone", "The database was replaced since")
        if record.reverse is None:
            raise Problem(409, "irreversible", "The change set cannot be undone", record.irreversible)
        return record.reverse

    async def get(self, project: str, change_set: UUID) -> shapes.ChangeSet:
        """A change set.

        Raises:
            Problem: 404.
        """
        return (await self._record(project, change_set)).view()

    async def page(self, project: str, before: tuple[datetime, UUID] | None, limit: int) -> tuple[list[shapes.ChangeSet], bool]:
        """A project's change sets, newest first, and whether there are more. Large ones end a page early."""
        found, more = await self._records.page(project, before, limit)
        return [r.view() for r in found], more

    async def _record(self, project: str, change_set: UUID) -> Record:
        record = await self._records.get(project, change_set)
        if record is not None and record.state == "applying":
            await self._settle(record)
            record = await self._records.get(project, change_set)
        if record is None:
            raise not_found("change set")
        return record

    async def _dry(
        self, project: str, work: Work, changes: Sequence[shapes.Change], actor: str, message: str | None, *, force: bool
    ) -> shapes.ChangeSet:
        async with self._editors.session(project, _session(changes)) as editor:
            outcome = await self._within(self._tried(editor, work, force=force))
        undoable = outcome.irreversible is None
        return shapes.ChangeSet(
            id=None,
            state="dry_run",
            actor=actor,
            message=message,
            created_at=datetime.now(UTC),
            applied_at=None,
            tables=outcome.tables,
            statements=outcome.statements,
            reverse=[s.sql for s in outcome.reverse] if undoable else None,
            irreversible=outcome.irreversible,
            reverts=None,
            reverted_by=None,
            failures=outcome.failures,
        )

    async def _tried(self, editor: Connection, work: Work, *, force: bool) -> Outcome:
        transaction = editor.transaction()
        await transaction.start()
        try:
            outcome = await work(Execution(editor, self._bounds, force=force, dry_run=True))
        except BaseException as error:
            await _rolled_back(editor, transaction, error)
            raise
        await transaction.rollback()
        return outcome

    async def _recorded(
        self,
        project: str,
        work: Work,
        changes: Sequence[shapes.Change],
        actor: str,
        message: str | None,
        reverts: UUID | None,
        order: Order | None,
        *,
        force: bool,
    ) -> shapes.ChangeSet:
        change_set = uuid4()
        await self._records.begin(change_set, self._editors.place(project), actor, message, changes, reverts, order)
        try:
            async with self._editors.session(project, _session(changes)) as editor:
                await self._committed(editor, change_set, work, reverts, force=force)
        except OutcomeUnknown:
            metrics.change_sets.labels("unknown").inc()
            detail = "Ask for the change set with this id in a moment: it will say"
            raise Problem(503, "outcome_unknown", "The change may have taken effect", detail, change_set=str(change_set)) from None
        except Problem:
            metrics.change_sets.labels("refused").inc()
            await asyncio.shield(self._records.withdraw(change_set))
            raise
        metrics.change_sets.labels("applied").inc()
        self._failpoints.hit("changes.committed")
        await asyncio.shield(self._mark(change_set))
        self._applied()
        record = await self._records.get(project, change_set)
        if record is None:
            raise not_found("change set")  # the project was deleted at this moment
        return record.view()

    async def _committed(self, editor: Connection, change_set: UUID, work: Work, reverts: UUID | None, *, force: bool) -> None:
        transaction = editor.transaction()
        await transaction.start()
        try:
            await self._within(self._sealed(editor, change_set, work, reverts, force=force))
        except BaseException as error:
            await _rolled_back(editor, transaction, error)
            if isinstance(error, Fenced):
                raise Problem(409, "locked", "The change took too long to begin", "Nothing was changed; try again") from None
            raise
        try:
            with refusals():
                async with asyncio.timeout(_COMMIT):
                    await transaction.commit()
        except Problem:
            raise  # PostgreSQL's own no: nothing was changed
        except Exception as error:
            editor.terminate()
            raise OutcomeUnknown from error

    async def _sealed(self, editor: Connection, change_set: UUID, work: Work, reverts: UUID | None, *, force: bool) -> None:
        outcome = await work(Execution(editor, self._bounds, force=force, dry_run=False))
        if reverts is not None:
            outcome.irreversible = "it undid another one; apply that one's changes anew"
        self._failpoints.hit("changes.done")
        await self._records.seal(change_set, await editor.fetchval("SELECT pg_catalog.pg_current_xact_id()::text"), outcome)
        self._failpoints.hit("changes.sealed")

    async def _within(self, work: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(LIMIT):
                return await work
        except TimeoutError:
            raise Problem(422, "too_slow", "The change took too long", f"{LIMIT:.0f} seconds are the limit; nothing was changed") from None

    async def _mark(self, change_set: UUID) -> None:
        """What is true already. If it cannot be written now, `settle` finds it out."""
        try:
            await self._records.settle(change_set, "applied")
        except Exception as error:
            if not is_gone(error):
                raise
            self._log.warning("changes.mark_later", change_set=str(change_set), error=type(error).__name__)

    async def settle(self) -> int:
        """Finds out what became of change sets that nobody ended; how many were open."""
        found = await self._records.open(_RESTING, 100)
        for record in found:
            try:
                await self._settle(record)
            except Problem as problem:  # that database is away: the others are not
                self._log.warning("changes.settle_later", change_set=str(record.id), code=problem.code)
        return len(found)

    async def _settle(self, record: Record) -> None:
        if record.xid is None:
            if (datetime.now(UTC) - record.created_at).total_seconds() > ABANDONED or await self._records.is_left(record):
                await self._records.settle(record.id, "failed", unsealed=True)
            return
        match await self._status(record):
            case "committed":
                await self._records.settle(record.id, "applied")
                self._applied()
            case "aborted":
                await self._records.settle(record.id, "failed")
            case "in progress":
                return
            case _:
                await self._records.settle(record.id, "unknown")

    async def _status(self, record: Record) -> str | None:
        """What the database says of the transaction; None: it is another database now, or it was too long ago."""
        try:
            if self._editors.place(record.place.project) != record.place:
                return None
        except Problem as problem:
            if problem.code == "not_found":
                return None
            raise
        async with self._editors.session(record.place.project, Session(statement_ms=5_000, read_only=True)) as editor:
            try:
                return await editor.fetchval(_STATUS, record.xid)
            except asyncpg.InvalidParameterValueError:  # a number that this database has not come to yet
                return None


def _session(changes: Sequence[shapes.Change]) -> Session:
    """What undoes a set has only its SQL: over its size, a project takes no undo."""
    return _FREEING if frees(changes) else _CONNECTION


async def _rolled_back(editor: Connection, transaction: Transaction, error: BaseException) -> None:
    """Nothing of it stays, whatever happened. A statement that still runs is cancelled first; a connection that cannot roll back is ended."""
    if is_gone(error):
        editor.terminate()
        return
    try:
        async with asyncio.timeout(_ROLLBACK):
            await transaction.rollback()
    except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
        editor.terminate()
