"""Rows of a project's tables: read in pages, written with the key and the version that were read. As the project's editor."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

import asyncpg
import orjson
from loquat_common.problems import Problem, not_found
from loquat_rest.rows import Delete, DeleteMany, Query, Update

from loquat_schema_manager.adapters import links, pages
from loquat_schema_manager.adapters.blame import Given, fitting, named
from loquat_schema_manager.adapters.editors import Editors, Session, committed
from loquat_schema_manager.adapters.known import Known
from loquat_schema_manager.adapters.pages import Page
from loquat_schema_manager.adapters.relations import Column, Relation, find
from loquat_schema_manager.domain import exact, filters, statements
from loquat_schema_manager.domain.filters import Parameters
from loquat_schema_manager.domain.values import Unfit, as_json, as_text

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_READ: Final = Session(statement_ms=10_000, read_only=True)
_WRITE: Final = Session(statement_ms=10_000)
_DELETE: Final = Session(statement_ms=10_000, frees=True)
_MANY: Final = Session(statement_ms=50_000, frees=True)
_MOST_BYTES: Final = 8 << 20
"""Of one row that is written."""
_MOST_WRITTEN: Final = 16 << 20
"""Of all rows of a request, in equal shares: a RETURNING knows nothing of the rows before."""
_CURRENT: Final = 1 << 20
"""Bytes of a row that changed since it was read."""
_NO_UNIQUE: Final = "42P10"

Changed = Callable[[str, str, int, str], None]
"""Rows of a table changed: project, table, how many, who. Called after the commit."""


@dataclass(frozen=True, slots=True)
class Inserted:
    """Rows as they are after an insert or upsert, as JSON texts of `loquat_rest.rows.Row`, in the order given."""

    lines: list[str]
    inserted: int
    updated: int

    @property
    def rows(self) -> list[dict[str, Any]]:
        """As Python values: `key`, `version`, `values`."""
        return [orjson.loads(line) for line in self.lines]

    def json(self) -> bytes:
        """A `loquat_rest.rows.Written`."""
        return b'{"items":[%s],"inserted":%d,"updated":%d}' % (",".join(self.lines).encode(), self.inserted, self.updated)


class Rows:
    """What one does with rows. `changed` is told of every change that became true."""

    def __init__(self, editors: Editors, changed: Changed) -> None:
        self._editors, self._changed = editors, changed
        self._known = Known()

    async def query(self, project: str, table: str, query: Query) -> Page:
        """A page.

        Raises:
            Problem: 400 `invalid_cursor`, 404, 422; see `refusals`.
        """
        place = self._editors.place(project)
        async with self._editors.session(project, _READ) as connection:
            if (known := self._known.get(place, table)) is not None and (
                page := await self._as_known(connection, known, query)
            ) is not None:
                return page
            relation = await find(connection, table)
            self._known.keep(place, relation)
            with fitting():
                async with pages.reading(connection) if known is not None else nullcontext():
                    return await pages.read(connection, relation, query)

    async def _as_known(self, connection: Connection, known: Relation, query: Query) -> Page | None:
        """A page of a relation that was looked at before, if it still has this shape: the page's own statement says so. Saves two round trips."""
        try:
            page = await pages.read(connection, known, query, sealed=partial(self._editors.fetch, connection))
        except (Unfit, Problem):
            return None
        except asyncpg.PostgresError as error:
            if not (error.sqlstate or "").startswith("42"):  # not what another shape causes
                with fitting():
                    raise
            return None
        return page if page.seal == known.seal else None

    async def insert(self, project: str, table: str, rows: Sequence[dict[str, Any]], actor: str) -> Inserted:
        """Adds all rows, or none.

        Raises:
            Problem: 403 `system_table`, 404, 409, 422 with column and value; 503 `outcome_unknown`.
        """
        return await self._write(project, table, rows, None, actor)

    async def upsert(self, project: str, table: str, rows: Sequence[dict[str, Any]], on: Sequence[str], actor: str) -> Inserted:
        """Adds each row, or changes the one that has the same values of the unique columns `on`. All, or none.

        Raises:
            Problem: as `insert`; 422 `no_unique` when no unique constraint has these columns.
        """
        return await self._write(project, table, rows, on, actor)

    async def _write(self, project: str, table: str, rows: Sequence[dict[str, Any]], on: Sequence[str] | None, actor: str) -> Inserted:
        lines, inserted, most = list[str](), 0, min(_MOST_BYTES, _MOST_WRITTEN // len(rows))
        async with self._editors.session(project, _WRITE, actor) as connection:
            relation = await _writable(connection, table)
            async with _checked(connection, relation, rows):
                unique = None if on is None else [relation.column(c) for c in on]
                async with committed(connection):
                    for names, group in groupby(rows, key=tuple[str, ...]):
                        columns = [relation.column(n) for n in names]
                        written = await _insert(connection, relation, columns, list(group), unique, most)
                        lines += [line for line, _ in written]
                        inserted += sum(fresh for _, fresh in written)
        self._tell(project, table, len(lines), actor)
        return Inserted(lines, inserted, len(lines) - inserted)

    async def update(self, project: str, table: str, change: Update, actor: str) -> str:
        """Changes one row; it as it is now, as a JSON text.

        Raises:
            Problem: 404; 409 `row_changed` with what was given and the row as it is; 409 `no_key`; as `insert`.
        """
        async with self._editors.session(project, _WRITE, actor) as connection:
            relation = await _writable(connection, table)
            key = _key(relation, change.key)
            async with _checked(connection, relation, [change.key, change.values]):
                columns = [relation.column(n) for n in change.values]
                given = (_record(key, change.key), change.version, _record(columns, change.values))
                returning = statements.written(relation.columns, key, statements.FRESH, _MOST_BYTES)
                async with committed(connection):
                    line = await connection.fetchval(statements.update(relation.ident, key, columns, returning), *given)
                    if line is None:
                        raise await _moved(connection, relation, key, change)
        self._tell(project, table, 1, actor)
        return line

    async def delete(self, project: str, table: str, wish: Delete, actor: str) -> None:
        """Deletes one row.

        Raises:
            Problem: 404; 409 `row_changed`, `no_key`.
        """
        async with self._editors.session(project, _DELETE, actor) as connection:
            relation = await _writable(connection, table)
            key = _key(relation, wish.key)
            async with _checked(connection, relation, [wish.key], writes=False), committed(connection):
                gone = await connection.fetchval(statements.delete(relation.ident, key), _record(key, wish.key), wish.version)
                if gone is None:
                    raise await _moved(connection, relation, key, wish)
        self._tell(project, table, 1, actor)

    async def delete_many(self, project: str, table: str, wish: DeleteMany, actor: str) -> int:
        """Counts the rows, or deletes them if they are as many as expected; how many.

        Raises:
            Problem: 409 `count_changed`: nothing was deleted.
        """
        query = Query(filter=wish.filter, search=wish.search)
        async with self._editors.session(project, _MANY, actor) as connection:
            relation = await _writable(connection, table)
            if wish.expected is None:
                with fitting():
                    return await pages.count(connection, relation, query)
            with fitting():
                async with committed(connection):
                    gone = await _delete_found(connection, relation, query)
                    if gone != wish.expected:
                        raise Problem(
                            409, "count_changed", "There are not as many rows as expected", f"{gone} instead of {wish.expected}; none was deleted",
                            expected=wish.expected, found=gone,
                        )  # fmt: skip
        self._tell(project, table, gone, actor)
        return gone

    def _tell(self, project: str, table: str, count: int, actor: str) -> None:
        if count:
            self._changed(project, table, count, actor)


async def _writable(connection: Connection, table: str) -> Relation:
    relation = await find(connection, table)
    relation.writable()
    return relation


@asynccontextmanager
async def _checked(
    connection: Connection, relation: Relation, rows: Sequence[dict[str, Any]], *, writes: bool = True
) -> AsyncGenerator[None]:
    """Columns are there and may be given, values are of the right kind, links lead somewhere; what Postgres refuses names its column."""
    with fitting():
        given = _given(relation, rows)
        if writes:
            await links.check(connection, relation, given)
    try:
        with fitting():
            yield
    except Problem as problem:
        raise await named(connection, problem, given) from None


def _given(relation: Relation, rows: Sequence[dict[str, Any]]) -> list[Given]:
    found = list[Given]()
    for n, row in enumerate(rows, 1):
        for name, value in row.items():
            column = relation.column(name)
            if column.generated:
                raise Unfit("generated", "Postgres itself fills this column", f"{name} cannot be given", column=name)
            found.append((n, column, as_text(column, value)))
    return found


def _key(relation: Relation, given: dict[str, Any]) -> list[Column]:
    relation.keyed()
    if set(given) != set(relation.key):
        raise Problem(
            422,
            "wrong_key",
            "The key does not name the columns of the primary key",
            f"They are {', '.join(relation.key)}",
            key=list(relation.key),
        )
    return [relation.column(c) for c in relation.key]


def _record(columns: Sequence[Column], values: dict[str, Any]) -> str:
    return orjson.dumps({c.name: as_json(c, values[c.name]) for c in columns}).decode()


async def _insert(
    connection: Connection, relation: Relation, columns: list[Column], rows: list[dict[str, Any]], unique: list[Column] | None, most: int
) -> list[tuple[str, bool]]:
    """Rows that name the same columns, in one statement; each as it is now, and whether it is new."""
    key = [relation.column(c) for c in relation.key]
    fresh = "old.tableoid IS NULL" if unique else "true"
    returning = f"{statements.written(relation.columns, key, statements.FRESH, most)}, {fresh}"
    sql = statements.insert(relation.ident, columns, returning, statements.on_conflict(columns, unique) if unique else "")
    try:
        if not columns:
            return [tuple(r) for _ in rows for r in await connection.fetch(sql)]
        records = orjson.dumps([{c.name: as_json(c, row[c.name]) for c in columns} for row in rows]).decode()
        return [tuple(r) for r in await connection.fetch(sql, records)]
    except asyncpg.PostgresError as error:
        if error.sqlstate != _NO_UNIQUE:
            raise
        raise Unfit("no_unique", "No unique constraint has just these columns", field="body.on") from None


async def _moved(connection: Connection, relation: Relation, key: list[Column], wish: Update | Delete) -> Problem:
    """Why no row was changed: it is gone, it is another one by now, or a trigger kept it."""
    sql = statements.by_key(
        relation.ident, key, f"{statements.written(relation.columns, key, statements.STORED, _CURRENT)}, {statements.STORED}"
    )
    row = await connection.fetchrow(sql, _record(key, wish.key))
    if row is None:
        return not_found("row")
    current, version = row
    if version == wish.version or wish.version is None:
        return Problem(422, "raised", "A trigger of the table kept the row as it was")
    return Problem(
        409,
        "row_changed",
        "The row changed since it was read",
        f"Version {wish.version} was read; it is {version} now",
        given=orjson.Fragment(exact.written(dict(wish))),
        current=orjson.Fragment(current),  # as Postgres wrote it: deeper, and with longer numbers, than orjson reads
    )


async def _delete_found(connection: Connection, relation: Relation, query: Query) -> int:
    parameters = Parameters()
    condition = filters.where(query.filter, relation.column, parameters)
    words = filters.search(query.search, list(relation.columns), parameters)
    tag = await connection.execute(f"DELETE FROM {relation.ident} AS t WHERE {condition} AND {words}", *parameters.values)  # noqa: S608  (names are quoted)
    return int(tag.rpartition(" ")[2])
