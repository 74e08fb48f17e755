"""The records of change sets, in this service's schema of the control database."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, Literal
from uuid import UUID

import asyncpg
import orjson
from loquat_common.db import Place
from loquat_common.problems import Problem, not_found
from loquat_rest import changes as shapes
from pydantic import TypeAdapter

from loquat_schema_manager.adapters.execution import Outcome
from loquat_schema_manager.adapters.holder import HELD
from loquat_schema_manager.domain.orders import Order
from loquat_schema_manager.domain.steps import Step

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

State = Literal["applying", "applied", "failed", "unknown"]
_STEPS: Final = TypeAdapter(list[Step])
_STATEMENTS: Final = TypeAdapter(list[shapes.Statement])
_CHANGES: Final = TypeAdapter(list[shapes.Change])
_COLUMNS: Final = """
SELECT c.id, c.project_id, c.cluster, c.database, c.epoch, c.state, c.actor, c.message, c.xid, c.tables, c.statements, c.reverse, c.irreversible, c.reverts,
       c.created_at, c.applied_at, c.holder, (SELECT r.id FROM change_sets AS r WHERE r.reverts = c.id AND r.state IN ('applying', 'applied')) AS reverted_by FROM change_sets AS c """


_PAGE: Final = f"""
WITH p AS ({_COLUMNS} WHERE c.project_id = $1 AND ($2::timestamptz IS NULL OR (c.created_at, c.id) < ($2, $3::uuid))
           ORDER BY c.created_at DESC, c.id DESC LIMIT $4::int + 1),
     sized AS (SELECT p.*, octet_length(p.statements::text) + coalesce(octet_length(p.reverse::text), 0) AS size FROM p),
     summed AS (SELECT s.*, sum(s.size) OVER w - s.size AS before, row_number() OVER w AS n, count(*) OVER () AS found FROM sized AS s
                WINDOW w AS (ORDER BY s.created_at DESC, s.id DESC))
SELECT * FROM summed WHERE n <= $4 AND before < $5 ORDER BY n"""  # noqa: S608  (constants)
KEPT: Final = 1_000
"""Change sets of a project that are kept, and those that are not settled or announced yet."""
_PAGE_BYTES: Final = 4 << 20
# purpose: room for one more of project $1, where $3 is about to be undone by $4
_PRUNE: Final = """
WITH old AS (
  SELECT s.id FROM (SELECT id, state, announced_at FROM change_sets WHERE project_id = $1 ORDER BY created_at DESC, id DESC OFFSET $2) AS s
  WHERE (s.state IN ('failed', 'unknown') OR s.announced_at IS NOT NULL) AND s.id IS DISTINCT FROM $3::uuid
), freed AS (UPDATE change_sets SET reverts = NULL WHERE reverts IN (SELECT id FROM old) AND id NOT IN (SELECT id FROM old))
DELETE FROM change_sets WHERE id IN (SELECT id FROM old)"""


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
    holder: int | None = None

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


def under_way(change_set: UUID | None) -> Problem:
    """The same order is being carried out, or nobody knows yet."""
    more = {"change_set": str(change_set)} if change_set is not None else {}
    return Problem(409, "under_way", "The same order is under way", "Send it again in a moment, with the same Idempotency-Key", **more)


class Records:
    """Rows of `change_sets`."""

    def __init__(self, pool: Pool, holder: Callable[[], int | None] = lambda: None) -> None:
        """`holder`: the key of the lock that says that this process lives; None: nobody could tell."""
        self._pool, self._holder = pool, holder

    async def begin(
        self,
        change_set: UUID,
        place: Place,
        actor: str,
        message: str | None,
        changes: Sequence[shapes.Change],
        reverts: UUID | None,
        order: Order | None = None,
    ) -> None:
        """Writes the intent, and forgets the oldest of the project.

        Raises:
            Problem: 409 `already_reverted`, `under_way`; 404: the one to be undone was forgotten at this moment.
        """
        try:
            await self._pool.execute(
                "INSERT INTO change_sets (id, project_id, cluster, database, epoch, actor, message, changes, reverts, order_id, digest, holder)"
                " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)",
                change_set,
                place.project,
                place.cluster,
                place.database,
                place.epoch,
                actor,
                message,
                orjson.Fragment(
                    json.dumps(_CHANGES.dump_python(list(changes), mode="json"))
                ),  # whole numbers of any size, which orjson refuses
                reverts,
                order.id if order is not None else None,
                order.digest if order is not None else None,
                self._holder(),
            )
        except asyncpg.UniqueViolationError as error:
            if getattr(error, "constraint_name", None) == "change_sets_order":
                raise under_way(None) from None
            raise Problem(409, "already_reverted", "The change set has been undone already", change_set=str(reverts)) from None
        except asyncpg.ForeignKeyViolationError:
            raise not_found("change set") from None
        await self._pool.execute(_PRUNE, place.project, KEPT, reverts)

    async def ordered(self, project: str, order: Order) -> Record | None:
        """The change set of an order that took effect, or may have, or may yet.

        Raises:
            Problem: 422 `idempotency_key_reused`: the key was another order's.
        """
        query = "SELECT id, digest FROM change_sets WHERE order_id = $1 AND state IN ('applying', 'applied', 'unknown')"
        row = await self._pool.fetchrow(query, order.id)
        if row is None:
            return None
        if row["digest"] != order.digest:
            detail = f"It was that of the change set {row['id']}; take another key for other changes"
            raise Problem(
                422, "idempotency_key_reused", "The Idempotency-Key was used for something else", detail, change_set=str(row["id"])
            )
        return await self.get(project, row["id"])

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

    async def is_left(self, record: Record) -> bool:
        """Whether the process that began it is known to be gone."""
        return record.holder is not None and not await self._pool.fetchval(HELD, record.holder)

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

    async def page(self, project: str, before: tuple[datetime, UUID] | None, limit: int) -> tuple[list[Record], bool]:
        """A project's, newest first, older than `before`, until `limit` of them or 4 MB; and whether there are more."""
        at, change_set = before or (None, None)
        found = await self._pool.fetch(_PAGE, project, at, change_set, limit, _PAGE_BYTES)
        return [_record(r) for r in found], bool(found) and found[0]["found"] > len(found)

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
        holder=r["holder"],
    )
