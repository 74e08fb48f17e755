"""The records of change sets, in this service's schema of the control database."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import asyncpg
from loquat_common.db import Place
from loquat_common.problems import Problem
from loquat_rest import changes as shapes
from pydantic import TypeAdapter

from loquat_schema_manager.adapters.execution import Outcome
from loquat_schema_manager.domain.steps import Step

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

State = Literal["applying", "applied", "failed", "unknown"]
_STEPS: Final = TypeAdapter(list[Step])
_STATEMENTS: Final = TypeAdapter(list[shapes.Statement])
_CHANGES: Final = TypeAdapter(list[shapes.Change])
_COLUMNS: Final = """
SELECT c.*, (SELECT r.id FROM change_sets AS r WHERE r.reverts = c.id AND r.state IN ('applying', 'applied')) AS reverted_by FROM change_sets AS c """


class Fenced(Exception):
    """Somebody has given this change set up meanwhile: it must not take effect."""


@dataclass(frozen=True, slots=True)
class Record:
    """A change set as it is remembered. `place` is where its database was."""

    id: UUID
    place: Place
    state: State
    actor: str
    message: str | None
    xid: str | None
    tables: list[str]
    statements: list[shapes.Statement]
    reverse: list[Step] | None
    irreversible: str | None
    reverts: UUID | None
    reverted_by: UUID | None
    created_at: datetime
    applied_at: datetime | None

    def view(self) -> shapes.ChangeSet:
        """As the API shows it."""
        return shapes.ChangeSet(
            id=self.id,
            state=self.state,
            actor=self.actor,
            message=self.message,
            created_at=self.created_at,
            applied_at=self.applied_at,
            tables=self.tables,
            statements=self.statements,
            reverse=[s.sql for s in self.reverse] if self.reverse is not None else None,
            irreversible=self.irreversible,
            reverts=self.reverts,
            reverted_by=self.reverted_by,
            failures=[],
        )


class Records:
    """Rows of `change_sets`."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def begin(
        self, change_set: UUID, place: Place, actor: str, message: str | None, changes: Sequence[shapes.Change], reverts: UUID | None
    ) -> None:
        """Writes the intent.

        Raises:
            Problem: 409 `already_reverted`.
        """
        try:
            await self._pool.execute(
                "INSERT INTO change_sets (id, project_id, cluster, database, epoch, actor, message, changes, reverts)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
                change_set,
                place.project,
                place.cluster,
                place.database,
                place.epoch,
                actor,
                message,
                _CHANGES.dump_python(list(changes), mode="json"),
                reverts,
            )
        except asyncpg.UniqueViolationError:
            raise Problem(409, "already_reverted", "The change set has been undone already", change_set=str(reverts)) from None

    async def seal(self, change_set: UUID, xid: str, outcome: Outcome) -> None:
        """Writes what is about to be committed, and by which transaction it can be told whether it was.

        Raises:
            Fenced: the intent was given up.
        """
        undoable = outcome.irreversible is None
        sealed = await self._pool.fetchval(
            "UPDATE change_sets SET xid = $2, tables = $3, statements = $4, reverse = $5, irreversible = $6"
            " WHERE id = $1 AND state = 'applying' AND xid IS NULL RETURNING true",
            change_set,
            xid,
            outcome.tables,
            _STATEMENTS.dump_python(outcome.statements, mode="json"),
            _STEPS.dump_python(outcome.reverse, mode="json") if undoable else None,
            outcome.irreversible,
        )
        if sealed is None:
            raise Fenced

    async def withdraw(self, change_set: UUID) -> None:
        """Nothing was changed: there is nothing to remember."""
        await self._pool.execute("DELETE FROM change_sets WHERE id = $1 AND state = 'applying'", change_set)

    async def settle(self, record: UUID, state: Literal["applied", "failed", "unknown"], *, unsealed: bool = False) -> None:
        """What became of it. `unsealed`: only if it has no transaction yet, which the one who applies it may be about to write."""
        await self._pool.execute(
            "UPDATE change_sets SET state = $2, applied_at = CASE WHEN $2 = 'applied' THEN clock_timestamp() END"
            " WHERE id = $1 AND state = 'applying' AND (xid IS NULL OR NOT $3)",
            record,
            state,
            unsealed,
        )

    async def open(self, older: float, limit: int) -> list[Record]:
        """Those that were begun more than `older` seconds ago and have no end yet. By chance: those of a database that is away keep nobody."""
        return await self._fetch(
            "WHERE c.state = 'applying' AND c.created_at < clock_timestamp() - make_interval(secs => $1) ORDER BY random() LIMIT $2",
            older,
            limit,
        )

    async def unsaid(self, limit: int) -> list[Record]:
        """Those that took effect and are not on the bus yet, the oldest first."""
        return await self._fetch("WHERE c.state = 'applied' AND c.announced_at IS NULL ORDER BY c.applied_at LIMIT $1", limit)

    async def said(self, change_sets: Sequence[UUID]) -> None:
        """They are on the bus."""
        await self._pool.execute("UPDATE change_sets SET announced_at = clock_timestamp() WHERE id = ANY ($1)", list(change_sets))

    async def get(self, project: str, change_set: UUID) -> Record | None:
        """One of a project."""
        found = await self._fetch("WHERE c.project_id = $1 AND c.id = $2", project, change_set)
        return found[0] if found else None

    async def page(self, project: str, before: tuple[datetime, UUID] | None, limit: int) -> list[Record]:
        """A project's, newest first, older than `before`."""
        at, change_set = before or (None, None)
        return await self._fetch(
            "WHERE c.project_id = $1 AND ($2::timestamptz IS NULL OR (c.created_at, c.id) < ($2, $3::uuid))"
            " ORDER BY c.created_at DESC, c.id DESC LIMIT $4",
            project,
            at,
            change_set,
            limit,
        )

    async def _fetch(self, where: str, *values: Any) -> list[Record]:
        return [_record(r) for r in await self._pool.fetch(_COLUMNS + where, *values)]


def _record(r: asyncpg.Record) -> Record:
    return Record(
        id=r["id"],
        place=Place(r["project_id"], r["cluster"], r["database"], r["epoch"]),
        state=r["state"],
        actor=r["actor"],
        message=r["message"],
        xid=r["xid"],
        tables=r["tables"],
        statements=_STATEMENTS.validate_python(r["statements"]),
        reverse=_STEPS.validate_python(r["reverse"]) if r["reverse"] is not None else None,
        irreversible=r["irreversible"],
        reverts=r["reverts"],
        reverted_by=r["reverted_by"],
        created_at=r["created_at"],
        applied_at=r["applied_at"],
    )
