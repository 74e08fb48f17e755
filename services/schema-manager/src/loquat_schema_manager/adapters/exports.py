"""Export: Postgres writes the file, this hands it on piece by piece. Nothing is kept but the piece under way."""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Any, Final

from loquat_common.sql import LONGEST, Ident
from loquat_rest.transfer import ExportOptions, ExportQuery

from loquat_schema_manager.adapters.blame import fitting
from loquat_schema_manager.adapters.editors import Editors, Session
from loquat_schema_manager.adapters.relations import Column, Relation, find
from loquat_schema_manager.domain import filters, jsonlines
from loquat_schema_manager.domain.csvtext import DELIMITERS
from loquat_schema_manager.domain.literals import Literals
from loquat_schema_manager.domain.values import TEXTS

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

SECONDS: Final = 300
"""Of a whole export; the project's own limits may come first."""
_SESSION: Final = Session(statement_ms=SECONDS * 1000, read_only=True)
_SAME_EVERYWHERE: Final = (
    "SET DateStyle = 'ISO, YMD'; SET TimeZone = 'UTC'; SET IntervalStyle = 'iso_8601'; SET bytea_output = 'hex'; SET extra_float_digits = 1"
)
"""Whatever the role's own settings are: a file is read elsewhere. DISCARD ALL ends it."""
_FORMULA: Final = r"'^[=+\-@\t\r\n]'"

Sink = Callable[[bytes], Coroutine[Any, Any, None]]


class Exports:
    """Files of rows, of system tables and views too."""

    def __init__(self, editors: Editors) -> None:
        self._editors = editors

    async def run(self, project: str, table: str, options: ExportOptions | ExportQuery, sink: Sink) -> None:
        """Gives the file to `sink`; a slow sink slows Postgres down. A query: the rows that it finds.

        Raises:
            Problem: 404, 422, before the first piece or after some: see `refusals`.
        """
        async with self._editors.session(project, _SESSION) as connection:
            relation = await find(connection, table)
            columns = relation.columns if options.columns is None else [relation.column(c) for c in options.columns]
            await connection.execute(_SAME_EVERYWHERE)
            with fitting():
                found = _found(relation, options)
                if options.format == "csv":
                    await _csv(connection, relation.ident, columns, found, options, sink)
                else:
                    await _jsonl(connection, relation.ident, columns, found, sink)


def _found(relation: Relation, options: ExportOptions | ExportQuery) -> str:
    if not isinstance(options, ExportQuery):
        return "true"
    condition = filters.where(options.filter, relation.column, Literals())
    return f"{condition} AND {filters.search(options.search, list(relation.columns), Literals())}"


async def _csv(connection: Connection, table: Ident, columns: Sequence[Column], found: str, options: ExportOptions, sink: Sink) -> None:
    listed = ", ".join(_cell(c, safe=options.for_spreadsheet) for c in columns)
    await connection.copy_from_query(
        f"SELECT {listed} FROM {table} AS t WHERE {found}", output=sink, format="csv", header=True, delimiter=DELIMITERS[options.delimiter], timeout=SECONDS + 5  # noqa: S608  (names are quoted)
    )  # fmt: skip


def _cell(column: Column, *, safe: bool) -> str:
    place, name = f"t.{Ident(column.name)}", Ident(column.name)
    if column.bare == "boolean":
        return f"CASE {place} WHEN true THEN 'true' WHEN false THEN 'false' END AS {name}"
    if not safe:
        return place
    header = Ident(("'" + column.name).encode()[:LONGEST].decode(errors="ignore")) if column.name[0] in "=+-@\t\r\n" else name
    if column.bare in TEXTS or not column.builtin:
        text = f"{place}::pg_catalog.text"
        return f"CASE WHEN {text} ~ {_FORMULA} THEN '''' || {text} ELSE {text} END AS {header}"
    return f"{place} AS {header}"


async def _jsonl(connection: Connection, table: Ident, columns: Sequence[Column], found: str, sink: Sink) -> None:
    lines = jsonlines.select(table, columns, found)

    async def clean(piece: bytes) -> None:
        await sink(jsonlines.clean(piece))

    await connection.copy_from_query(
        lines.sql, output=clean, format="csv", quote=jsonlines.QUOTE, delimiter=jsonlines.DELIMITER, null=jsonlines.NULL,
        force_quote=lines.quoted or None, timeout=SECONDS + 5,
    )  # fmt: skip
