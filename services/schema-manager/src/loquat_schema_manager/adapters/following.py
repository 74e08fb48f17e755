"""Link columns of a project's own tables follow merges and erases: batch by batch, as the project's editor. Whatever runs there is the tenant's."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final
from uuid import UUID

import asyncpg
from loquat_common.problems import Problem

from loquat_schema_manager.adapters import history
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.refusals import lives, refusals
from loquat_schema_manager.adapters.relations import find
from loquat_schema_manager.adapters.rows import Changed
from loquat_schema_manager.domain import followings
from loquat_schema_manager.domain.followings import BATCH, Following, LinkColumn, concerns
from loquat_schema_manager.domain.links import MARK, read

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

MOST: Final = 1_000
"""Link columns of a project that follow, by table and name; a bot's table has one or two."""
_LOOK: Final = Session(statement_ms=10_000, read_only=True)
_FOLLOW: Final = Session(statement_ms=10_000, lock_ms=2_000)
_ERASE: Final = Session(statement_ms=10_000, lock_ms=2_000, frees=True)

# purpose: the columns with a mark; a generated one follows what it is generated from
_MARKED: Final = """
SELECT c.relname AS table_name, a.attname AS column_name, a.attnotnull AS not_null, pg_catalog."left"(d.description, 200) AS comment
FROM pg_catalog.pg_description AS d
JOIN pg_catalog.pg_class AS c ON c.oid = d.objoid
JOIN pg_catalog.pg_attribute AS a ON a.attrelid = d.objoid AND a.attnum = d.objsubid
WHERE d.classoid = 'pg_catalog.pg_class'::pg_catalog.regclass AND d.objsubid > 0 AND pg_catalog.starts_with(d.description, $1)
  AND c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
  AND c.relowner <> 'loquat_system'::pg_catalog.regrole AND a.atttypid = 'pg_catalog.uuid'::pg_catalog.regtype AND a.attgenerated = ''
ORDER BY c.relname, a.attname LIMIT $2"""
# purpose: whom the one is now whom a merge was into: he may have been merged himself since
_INTO: Final = "SELECT coalesce(c.merged_into, c.id) FROM public.contacts AS c WHERE c.id = $1"


@contextmanager
def _refusing() -> Generator[None]:
    """Whatever a session that lives was told is the table's word, also under one of the server's own codes."""
    try:
        with refusals():
            yield
    except asyncpg.PostgresError as error:
        if not lives(error):
            raise
        raise Problem(422, "raised", "A function or trigger of the project refused it", f"SQLSTATE {error.sqlstate}") from None


@dataclass(frozen=True, slots=True)
class Step:
    """What one batch did: rows changed or deleted, and whether there may be more."""

    rows: int
    more: bool


class Follower:
    """Works at one column of one following at a time. `changed` is told of every batch."""

    def __init__(self, editors: Editors, changed: Changed) -> None:
        self._editors, self._changed = editors, changed

    def epoch(self, project: str) -> int:
        """Of the project's database now.

        Raises:
            Problem: 404 when the project is gone, 409 when it is not ready.
        """
        return self._editors.place(project).epoch

    async def answers(self, project: str) -> bool:
        """Whether a session of the project's can be had at all."""
        try:
            async with self._editors.session(project, _LOOK) as connection:
                await connection.fetchval("SELECT 1")
        except Problem:
            return False
        return True

    async def columns(self, following: Following) -> list[LinkColumn]:
        """The columns that follow it, by table and name.

        Raises:
            Problem: 404, 409, 503.
        """
        async with self._editors.session(following.project_id, _LOOK) as connection:
            rows = await connection.fetch(_MARKED, MARK, MOST)
        columns = list[LinkColumn]()
        for r in rows:
            if (link := read(r["comment"])[0]) is not None:
                columns.append(LinkColumn(r["table_name"], r["column_name"], link, r["not_null"]))
        return [c for c in columns if concerns(following, c)]

    async def step(self, following: Following, column: LinkColumn) -> Step:
        """One batch, in a session of its own: what a trigger set in the one before is gone.

        Raises:
            Problem: whatever the table says, or 409 `kept`: it keeps the ids.
        """
        limits = _FOLLOW if following.into is not None else _ERASE
        async with self._editors.session(following.project_id, limits, following.actor) as connection:
            with _refusing():
                rows = await self._changed_rows(connection, following, column)
                if not rows and await connection.fetchval(followings.any_left(column), following.people):
                    raise Problem(409, "kept", "The table keeps the ids", f"A trigger or rule of {column.table} leaves rows as they are")
                if not rows and following.into is None:
                    return Step(0, await self._history(connection, following, column))
        if rows:
            self._changed(following.project_id, column.table, rows, following.actor)
        return Step(rows, rows > 0)

    async def _changed_rows(self, connection: Connection, following: Following, column: LinkColumn) -> int:
        given: list[object] = [following.people]
        if following.into is not None:
            into: UUID | None = await connection.fetchval(_INTO, following.into)
            if into is None:
                raise Problem(409, "no_target", "The contact that they were merged into is not there")
            given.append(into)
        found = await connection.fetch(followings.batch(following, column), *given)
        gone: set[UUID] = set(following.people)
        if column.link == "contact" and any(r["holds"] in gone for r in found):
            raise Problem(409, "kept", "The table keeps the ids", f"A trigger of {column.table} puts them back")
        return len(found)

    async def _history(self, connection: Connection, following: Following, column: LinkColumn) -> bool:
        """Deletes a batch of what was noted of rows that held an id; whether there may be more."""
        identity = await history.identity(connection, await find(connection, column.table))
        if identity is None:
            return False
        noted = await connection.fetch(followings.from_history(column), following.people, identity, column.column)
        return len(noted) == BATCH
