"""Rows as lines of JSON, written by COPY as CSV: the same bytes as `row_to_json`, for half of its work.

`row_to_json` looks the type of every value up in the catalog. Here the parts of a line are columns of a CSV whose delimiter and quote are control
characters, which JSON has none of: the constants between the values, the values as their types write them, `null` as COPY's own word for it. COPY puts
quotes around those that are strings in JSON; `CLEAN` makes them JSON's and takes the delimiters away.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

import orjson
from loquat_common.sql import Ident

from loquat_schema_manager.domain.fragments import Text
from loquat_schema_manager.domain.values import Typed, shown

QUOTE: Final = "\x01"
DELIMITER: Final = "\x02"
NULL: Final = "null"
_QUOTES: Final = bytes.maketrans(QUOTE.encode(), b'"')
_MOST: Final = 800  # columns: each is two of a SELECT, which has at most 1,664
_BARE: Final = {"smallint", "integer"}
_SAFE: Final = {
    *("bigint", "numeric", "real", "double precision", "uuid", "date", "timestamp without time zone", "oid"),
    *("time without time zone", "time with time zone"),
}
"""Types whose text, which is a string in JSON, has nothing to be escaped, and is what a cast to text gives too (of an inet it is not)."""


class Source(Typed, Protocol):
    """A column of a relation."""

    @property
    def builtin(self) -> bool:
        """Whether its type is PostgreSQL's own."""
        ...


@dataclass(frozen=True, slots=True)
class Lines:
    """A query whose rows are the parts of lines, and the columns that COPY quotes."""

    sql: str
    quoted: tuple[str, ...]


def clean(piece: bytes) -> bytes:
    """What COPY wrote, as JSON."""
    return piece.translate(_QUOTES, DELIMITER.encode())


def select(table: Ident, columns: Sequence[Source], found: str = "true") -> Lines:
    """The rows of a table `t` for which `found` is true."""
    if len(columns) > _MOST:
        return _wide(table, columns, found)
    parts, quoted, lead = list[str](), list[str](), "{"
    for column in columns:
        name, place = lead + orjson.dumps(column.name).decode() + ":", f"t.{Ident(column.name)}"
        if column.bare == "boolean":
            words = [Text(name + word) for word in ("true", "false", NULL)]
            parts.append(f"CASE {place} WHEN true THEN {words[0]} WHEN false THEN {words[1]} ELSE {words[2]} END")
        elif column.bare == "jsonb":  # with its name, lest JSON's own null look like COPY's word and be quoted
            parts.append(f"coalesce({Text(name)} OPERATOR(pg_catalog.||) {place}::pg_catalog.text, {Text(name + NULL)})")
        else:
            parts += [str(Text(name)), _value(column, place)]
            if column.builtin and column.bare in _SAFE:
                quoted.append(f"c{len(parts) - 1}")
        lead = ","
    parts.append("'}'" if columns else "'{}'")
    listed = ", ".join(f"{part} AS c{n}" for n, part in enumerate(parts))
    return Lines(f"SELECT {listed} FROM {table} AS t WHERE {found}", tuple(quoted))  # noqa: S608  (names are quoted)


def _value(column: Source, place: str) -> str:
    if column.builtin and (column.bare in _BARE or column.bare in _SAFE):
        return place
    return f"JSON_SCALAR({shown(column, 't')})"


def _wide(table: Ident, columns: Sequence[Source], found: str) -> Lines:
    listed = ", ".join(f"{shown(c, 't')} AS {Ident(c.name)}" for c in columns)
    return Lines(f"SELECT pg_catalog.row_to_json(r.*)::pg_catalog.text FROM (SELECT {listed} FROM {table} AS t WHERE {found}) AS r", ())  # noqa: S608  (names are quoted)
