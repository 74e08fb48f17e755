"""One change set on one connection of the project's editor, inside a transaction that the caller opens and ends."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

from loquat_common.problems import Problem, not_found
from loquat_common.sql import compose
from loquat_rest import changes as shapes

from loquat_schema_manager.adapters import catalog
from loquat_schema_manager.adapters.refusals import refusals
from loquat_schema_manager.domain.changes import plan
from loquat_schema_manager.domain.expansion import expand, needs
from loquat_schema_manager.domain.refused import Refused
from loquat_schema_manager.domain.steps import BLOCKS, Bounds, Check, Lock, Plan, Step
from loquat_schema_manager.domain.tables import PUBLIC

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

_SET: Final = "SELECT pg_catalog.set_config('TimeZone', 'UTC', true), pg_catalog.set_config('DateStyle', 'ISO', true)"
"""What a text means as a date, or a date as a text, shall not depend on settings that the project keeps for its own sessions."""
_END: Final = "SELECT pg_catalog.set_config('synchronous_commit', 'on', true)"
_LONGEST: Final = 4 << 20
_STRENGTH: Final[dict[Lock, int]] = {lock: n for n, lock in enumerate(BLOCKS)}


@dataclass(slots=True)
class Outcome:
    """What was done, or would have been. `reverse` is in the order in which it undoes."""

    statements: list[shapes.Statement] = field(default_factory=list[shapes.Statement])
    reverse: list[Step] = field(default_factory=list[Step])
    irreversible: str | None = None
    tables: list[str] = field(default_factory=list[str])
    failures: list[shapes.Failure] = field(default_factory=list[shapes.Failure])


class Execution:
    """Runs the changes in order. A dry run goes on after a change that fails; each has a savepoint of its own."""

    def __init__(self, connection: Connection, bounds: Bounds, *, force: bool, dry_run: bool) -> None:
        self._connection, self._bounds, self._force, self._dry_run = connection, bounds, force, dry_run
        self._outcome = Outcome()

    async def changes(self, changes: Sequence[shapes.Change]) -> Outcome:
        """Changes of a request.

        Raises:
            Problem: what stands in the way, with `change`, the number of the change. A dry run keeps it in `failures`, but for `over_limit` of all.
        """
        await self._connection.execute(_SET)
        for number, change in enumerate(changes):
            await self._guarded(number, change)
            self._weigh(number)
        await self._end(len(changes) - 1)
        return self._outcome

    async def steps(self, steps: Sequence[Step]) -> Outcome:
        """Statements that were composed before: those that undo a set. Raises as `changes`, with the number of the statement."""
        await self._connection.execute(_SET)
        for number, step in enumerate(steps):
            await self._guarded(number, step)
        await self._end(len(steps) - 1)
        return self._outcome

    def _weigh(self, number: int) -> None:
        """A request has a bound; what undoes it has the texts that were there, of any number of tables."""
        if sum(len(s.sql) for s in (*self._outcome.statements, *self._outcome.reverse)) > _LONGEST:
            detail = f"{_LONGEST} characters of SQL are the limit, with those that undo it; make it in parts"
            raise Problem(422, "over_limit", "The change set is too large", detail, change=number)

    async def _guarded(self, number: int, work: shapes.Change | Step) -> None:
        try:
            if not self._dry_run:
                await self._work(number, work)
                return
            async with self._connection.transaction():
                await self._work(number, work)
        except (Problem, Refused) as error:
            problem = Problem(error.status, error.code, error.title, error.detail, **{**error.extra, "change": number})
            if not self._dry_run:
                raise problem from None
            extra = {k: v for k, v in problem.extra.items() if k != "change"}
            self._outcome.failures.append(
                shapes.Failure(change=number, code=problem.code, title=problem.title, detail=problem.detail, **extra)
            )

    async def _end(self, last: int) -> None:
        """Whatever the project's own triggers put off to the commit comes now, while it can still be said what failed."""
        if self._dry_run and self._outcome.failures:
            return
        step = Step("SET CONSTRAINTS ALL IMMEDIATE")
        try:
            await self._executed(step)
        except Problem as problem:
            problem.extra["change"] = last
            if not self._dry_run:
                raise
            self._outcome.failures.append(shapes.Failure(change=last, code=problem.code, title=problem.title, detail=problem.detail))
            return
        await self._connection.execute(_END)

    async def _work(self, number: int, work: shapes.Change | Step) -> None:
        if isinstance(work, Step):
            await self._lock((work,))
            await self._step(number, work)
            self._touched(work.tables, (work,))
            return
        for change in expand(work):
            made = await self._planned(change)
            for step in made.steps:
                await self._step(number, step)
            self._outcome.reverse[:0] = made.reverse
            self._outcome.irreversible = self._outcome.irreversible or made.irreversible
            self._touched(made.tables, made.steps)

    def _touched(self, tables: Sequence[str], steps: Sequence[Step]) -> None:
        """Tables by the name that they have now."""
        renamed = {step.tables[0]: step.becomes for step in steps if step.becomes}
        self._outcome.tables = list(dict.fromkeys(renamed.get(t, t) for t in (*self._outcome.tables, *tables)))

    async def _planned(self, change: shapes.Change) -> Plan:
        """Made twice: what the first look saw may have changed before the lock was had, and the reverse must be that of what is there."""
        first = await self._seen(change)
        if not await self._lock(first.steps):
            return first
        return await self._seen(change)

    async def _seen(self, change: shapes.Change) -> Plan:
        names = needs(change)
        with refusals():
            tables = await catalog.whole(self._connection, names)
            taken = await catalog.taken(self._connection)
        if missing := [n for n in names if n not in tables]:
            problem = not_found("table")
            problem.detail, problem.extra["table"] = f"There is no table {missing[0]!r}", missing[0]
            raise problem
        return plan(change, tables, taken)

    async def _lock(self, steps: Sequence[Step]) -> bool:
        """Takes the strongest lock that these statements need on each table, in the order of their names. Whether any was needed."""
        wanted: dict[str, Lock] = {}
        for step in steps:
            for table in step.tables:
                if step.lock is not None and (table not in wanted or _STRENGTH[wanted[table]] < _STRENGTH[step.lock]):
                    wanted[table] = step.lock
        for table, lock in sorted(wanted.items()):
            try:
                with refusals():
                    await self._connection.execute(f"{compose('LOCK TABLE {table} IN', table=PUBLIC.dot(table))} {lock} MODE")
            except Problem as problem:
                problem.extra["table"] = table
                raise
        return bool(wanted)

    async def _step(self, number: int, step: Step) -> None:
        rows, size = await self._weight(step)
        self._outcome.statements.append(
            shapes.Statement(
                change=number,
                sql=step.sql,
                tables=list(step.tables),
                lock=step.lock,
                blocks=BLOCKS[step.lock] if step.lock else "nothing",
                rewrites=step.rewrites,
                scans=step.scans,
                rows=rows if step.counted else None,
            )
        )
        if not self._force and self._bounds.too_long(step, rows, size):
            raise self._too_long(step, rows, size)
        for check in step.checks:
            await self._check(step, check)
        await self._executed(step)

    async def _weight(self, step: Step) -> tuple[int, int]:
        if step.counted is None:
            return 0, 0
        with refusals():
            rows, size = await catalog.weight(self._connection, step.counted)
            if size <= self._bounds.count_bytes:
                rows = await self._connection.fetchval(compose("SELECT count(*) FROM {t}", t=PUBLIC.dot(step.counted)))
        return rows, size

    def _too_long(self, step: Step, rows: int, size: int) -> Problem:
        what = "writes every row anew" if step.rewrites else "reads every row"
        waits = BLOCKS[step.lock] if step.lock else "nothing"
        return Problem(
            409,
            "long_rewrite",
            f"{step.counted} is large, and this {what}",
            f"It has about {rows} rows and {size >> 20} MiB; until it is done, {waits} on it waits. `force` does it all the same",
            table=step.counted,
            rows=rows,
            size_bytes=size,
            statement=step.sql,
        )

    async def _check(self, step: Step, check: Check) -> None:
        if check.unless_forced and self._force:
            return
        with refusals():
            count = await self._connection.fetchval(check.count)
            found = await self._connection.fetch(check.sample) if count and check.sample else []
        if count:
            sample = [r[0] for r in found]
            shown = f"Such as {', '.join(repr(s) for s in sample)}" if sample else None
            title = check.title.replace("{n}", str(count))
            extra = {"table": step.tables[0], "rows": count} | ({"column": check.column} if check.column else {})
            raise Problem(409, check.code, title, shown, statement=step.sql, **extra, **({"sample": sample} if sample else {}))

    async def _executed(self, step: Step) -> None:
        try:
            with refusals():
                await self._connection.fetch(step.sql)  # not execute(): that would run several statements, and one is meant
        except Problem as problem:
            problem.extra["statement"] = step.sql
            if problem.code == "locked" and step.tables:
                problem.extra["table"] = step.tables[0]
            raise
