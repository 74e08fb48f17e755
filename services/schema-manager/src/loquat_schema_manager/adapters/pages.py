"""A page of rows, read in one statement, or two where nulls have a part of their own. Postgres writes the JSON."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import nullcontext
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import orjson
from loquat_common.problems import Problem
from loquat_common.sql import Ident
from loquat_rest.rows import Query, Sort

from loquat_schema_manager.adapters.relations import SEAL, Relation
from loquat_schema_manager.domain import filters, pages, statements
from loquat_schema_manager.domain.filters import Parameters
from loquat_schema_manager.domain.fragments import Text

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.transaction import Transaction

    Connection = asyncpg.Connection[asyncpg.Record]

Fetch = Callable[..., Awaitable[list["asyncpg.Record"]]]
"""As a connection's own."""
COUNTED: Final = 100_000
"""Rows that a page counts at most."""
_MOST_BYTES: Final = 8 << 20  # of a page; a page of 500 usual rows has 100 KB
_PLACES: Final = (
    pages.Key("t.tableoid", "pg_catalog.oid"),
    pages.Key("t.ctid", "pg_catalog.tid"),
)
"""Where a row without a key lies. It moves when it is changed, so a page may then miss it or show it again; a key does better."""
_NO_CURSOR: Final = "A {kind} without a key has no place to go on from: filter, or sort and raise the limit"
_KINDS: Final = {"v": "view", "f": "foreign table"}


@dataclass(slots=True)
class Page:
    """Rows as JSON texts of `loquat_rest.rows.Row`, in order."""

    lines: list[str] = field(default_factory=list[str])
    next_cursor: str | None = None
    more: bool = False
    no_cursor: str | None = None
    count: int | None = None
    count_is_exact: bool | None = None
    seal: str | None = None

    @property
    def rows(self) -> list[dict[str, Any]]:
        """As Python values: `key`, `version`, `values`."""
        return [orjson.loads(line) for line in self.lines]

    def json(self) -> bytes:
        """A `loquat_rest.rows.RowPage`."""
        rest = {
            "next_cursor": self.next_cursor,
            "more": self.more,
            "no_cursor": self.no_cursor,
            "count": self.count,
            "count_is_exact": self.count_is_exact,
        }
        return b'{"items":[' + ",".join(self.lines).encode() + b"]," + orjson.dumps(rest)[1:]


def keys_of(relation: Relation, sort: list[Sort]) -> tuple[list[pages.Key], str | None]:
    """The whole order of a page, and why it has no place to go on from, if so."""
    found, seen = list[pages.Key](), set[str]()
    for wish in (*sort, *(Sort(column=c) for c in relation.key)):
        column = relation.column(wish.column)
        if column.name in seen:
            continue
        seen.add(column.name)
        descending = wish.direction == "desc"
        nulls_first = descending if wish.nulls is None or column.not_null else wish.nulls == "first"
        found.append(pages.Key(f"t.{Ident(column.name)}", column.bare, not column.not_null, descending, nulls_first))
    if relation.key:
        return found, None
    if relation.kind in _KINDS:
        return found, _NO_CURSOR.format(kind=_KINDS[relation.kind])
    return [*found, *_PLACES], None


def reading(connection: Connection) -> Transaction:
    """For whatever a session that reads asks after its first statement: a function in that one may have set the session's own default aside."""
    return connection.transaction(readonly=True)


async def read(connection: Connection, relation: Relation, query: Query, *, sealed: Fetch | None = None) -> Page:
    """A page; `sealed` fetches it with the seal of the relation as it is now, unless there is no row. Errors of the statement are Postgres' own: wrap this with `refusals`.

    Raises:
        Unfit: a filter or cursor cannot be used.
        Problem: 422 `unknown_column`, `row_too_large`.
    """
    keys, no_cursor = keys_of(relation, query.sort)
    position = pages.decode(keys, query.cursor) if no_cursor is None else None
    columns = relation.columns if query.columns is None else [relation.column(c) for c in query.columns]
    key = [relation.column(c) for c in relation.key]
    version = None if relation.kind in _KINDS else statements.STORED
    page, last, size = Page(), list[str | None](), 0
    for number, part in enumerate(pages.parts(keys, position)):
        left = query.limit + 1 - len(page.lines)
        if left <= 0 or size >= _MOST_BYTES:
            break
        parameters = Parameters()
        condition = f"{_found(relation, query, parameters)} AND {part(parameters)}"
        seal = SEAL.format(name=Text(relation.name)) if sealed else ""
        sql = statements.page(relation.ident, columns, key, version, keys, condition, limit=left, most_bytes=_MOST_BYTES - size, seal=seal)
        async with reading(connection) if number else nullcontext():
            rows = await (sealed or connection.fetch)(sql, *parameters.values)
        for text, at, found in rows:
            if text is None and len(page.lines) < query.limit:
                return await _before_a_large_row(connection, relation, query, len(page.lines))
            page.lines.append(text or "")
            page.seal = page.seal or found
            last = at if at is not None and len(page.lines) <= query.limit else last
            size += len(page.lines[-1].encode())
    page.more = len(page.lines) > query.limit or size >= _MOST_BYTES
    del page.lines[query.limit :]
    if page.more:
        page.no_cursor = no_cursor
        page.next_cursor = None if no_cursor else pages.encode(keys, last)
    if query.count:
        await _count(connection, relation, query, page)
    return page


async def _before_a_large_row(connection: Connection, relation: Relation, query: Query, shown: int) -> Page:
    """A row has no room: the page ends before it, and the next one begins with it."""
    if not shown:
        raise Problem(422, "row_too_large", "A row is too large to be shown", f"{_MOST_BYTES} bytes are the limit; ask for some columns")
    async with reading(connection):
        return await read(connection, relation, query.model_copy(update={"limit": shown}))


async def _count(connection: Connection, relation: Relation, query: Query, page: Page) -> None:
    async with reading(connection):
        found = await count(connection, relation, query, COUNTED + 1)
    page.count, page.count_is_exact = min(found, COUNTED), found <= COUNTED


async def count(connection: Connection, relation: Relation, query: Query, most: int | None = None) -> int:
    """How many rows the filter and the search of `query` find, at most `most`."""
    parameters = Parameters()
    condition = _found(relation, query, parameters)
    limit = "" if most is None else f" LIMIT {most}"
    sql = f"SELECT count(*) FROM (SELECT FROM {relation.ident} AS t WHERE {condition}{limit}) AS c"  # noqa: S608  (names are quoted)
    return await connection.fetchval(sql, *parameters.values)


def _found(relation: Relation, query: Query, parameters: Parameters) -> str:
    condition = filters.where(query.filter, relation.column, parameters)
    words = filters.search(query.search, list(relation.columns), parameters)
    return f"{condition} AND {words}"
