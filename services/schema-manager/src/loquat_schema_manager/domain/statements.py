"""The SQL of rows. Names are quoted, types are the server's own words for them, values are parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loquat_common.sql import Ident

from loquat_schema_manager.domain.pages import LONGEST, Key
from loquat_schema_manager.domain.values import Typed, shown

STORED: Final = "t.xmin::pg_catalog.text"
"""A row's version where it was read."""
_NONE: Final = "'null'"
_LONGEST_KEY: Final = 16 << 10  # bytes
FRESH: Final = "pg_catalog.pg_current_xact_id()::pg_catalog.xid::pg_catalog.text"
"""A row's version where this transaction wrote it: a partitioned table does not return xmin."""


def record(columns: Sequence[Typed], source: str = "t") -> str:
    """The JSON text of a row's columns. The inner SELECT gives the names; a function takes at most 100 arguments, a SELECT all columns."""
    return f"(SELECT pg_catalog.row_to_json(r.*)::pg_catalog.text FROM (SELECT {_named(columns, source)}) AS r)"  # noqa: S608  (quoted names)


def line(columns: Sequence[Typed], key: Sequence[Typed], version: str | None) -> str:
    """The JSON text of a row as the API gives it: key, version, values."""
    return _line(record(key) if key else "'null'", version, record(columns))


def written(columns: Sequence[Typed], key: Sequence[Typed], version: str, most_bytes: int) -> str:
    """As `line`; of a row with more bytes only the key, unless that is long too, the version and `too_large`. OFFSET keeps it from being made twice."""
    of_key = f"CASE WHEN pg_catalog.octet_length(l.k) <= {_LONGEST_KEY} THEN l.k ELSE 'null' END"
    small = f'\'{{"key":\' || {of_key} || \',"version":"\' || {version} || \'","values":{{}},"too_large":true}}\''
    whole = f"SELECT {line(columns, key, version)} AS v, {record(key) if key else _NONE} AS k OFFSET 0"
    return f"(SELECT CASE WHEN pg_catalog.octet_length(l.v) <= {most_bytes} THEN l.v ELSE {small} END FROM ({whole}) AS l)"  # noqa: S608  (quoted names)


def _line(key: str, version: str | None, values: str) -> str:
    of_version = f"'\"' || {version} || '\"'" if version else "'null'"
    return f"'{{\"key\":' || {key} || ',\"version\":' || {of_version} || ',\"values\":' || {values} || '}}'"


def _named(columns: Sequence[Typed], source: str = "t") -> str:
    return ", ".join(f"{shown(c, source)} AS {Ident(c.name)}" for c in columns)


def given(columns: Sequence[Typed], alias: str) -> str:
    """The column list of `json_to_record(set)`: Postgres reads each value by its column's type, length and all."""
    return f"{alias}({', '.join(f'{Ident(c.name)} {c.type}' for c in columns)})"


def names(columns: Sequence[Typed], source: str | None = None) -> str:
    """A list of quoted names."""
    prefix = f"{source}." if source else ""
    return ", ".join(f"{prefix}{Ident(c.name)}" for c in columns)


def insert(table: Ident, columns: Sequence[Typed], returning: str, conflict: str = "") -> str:
    """Adds the rows of the JSON array $1, which all name these columns."""
    if not columns:
        return f"INSERT INTO {table} AS t DEFAULT VALUES{conflict} RETURNING {returning}"
    source = f"pg_catalog.json_to_recordset($1::pg_catalog.json) AS {given(columns, 'n')}"
    return f"INSERT INTO {table} AS t ({names(columns)}) SELECT {names(columns, 'n')} FROM {source}{conflict} RETURNING {returning}"  # noqa: S608  (quoted names)


def on_conflict(columns: Sequence[Typed], unique: Sequence[Typed]) -> str:
    """What an upsert does with a row that is there: its other columns become the given ones. Without any, the row stays as it is."""
    taken = {c.name for c in unique}
    changed = [c for c in columns if c.name not in taken] or list(unique[:1])
    sets = ", ".join(f"{Ident(c.name)} = excluded.{Ident(c.name)}" for c in changed)
    return f" ON CONFLICT ({names(unique)}) DO UPDATE SET {sets}"


def same_key(key: Sequence[Typed]) -> str:
    """The row whose key is the JSON object $1, read as `k`."""
    return " AND ".join(f"t.{Ident(c.name)} = k.{Ident(c.name)}" for c in key)


def by_key(table: Ident, key: Sequence[Typed], returning: str) -> str:
    """Reads the row with the key $1."""
    source = f"pg_catalog.json_to_record($1::pg_catalog.json) AS {given(key, 'k')}"
    return f"SELECT {returning} FROM {source}, {table} AS t WHERE {same_key(key)}"  # noqa: S608  (quoted names)


def update(table: Ident, key: Sequence[Typed], changed: Sequence[Typed], returning: str) -> str:
    """Changes the row with the key $1 and the version $2 to the values $3."""
    sets = ", ".join(f"{Ident(c.name)} = n.{Ident(c.name)}" for c in changed)
    source = (
        f"pg_catalog.json_to_record($1::pg_catalog.json) AS {given(key, 'k')},"
        f" pg_catalog.json_to_record($3::pg_catalog.json) AS {given(changed, 'n')}"
    )
    return f"UPDATE {table} AS t SET {sets} FROM {source} WHERE {same_key(key)} AND {STORED} = $2::pg_catalog.text RETURNING {returning}"  # noqa: S608  (quoted names)


def delete(table: Ident, key: Sequence[Typed]) -> str:
    """Deletes the row with the key $1, if its version is $2 or $2 is null."""
    source = f"pg_catalog.json_to_record($1::pg_catalog.json) AS {given(key, 'k')}"
    version = f"($2::pg_catalog.text IS NULL OR {STORED} = $2::pg_catalog.text)"
    return f"DELETE FROM {table} AS t USING {source} WHERE {same_key(key)} AND {version} RETURNING true"  # noqa: S608  (quoted names)


def page(
    table: Ident, columns: Sequence[Typed], key: Sequence[Typed], version: str | None, order: Sequence[Key], condition: str,
    *, limit: int, most_bytes: int, seal: str = "",
) -> str:  # fmt: skip
    """Rows until `limit` or `most_bytes`; a row larger than that is null.

    The last but one of `limit`, and the one at which the bytes end, come with their place in the order, which is empty when it is too long for
    a cursor; the first one with `seal`, if asked.

    Lateral sub-selects, which the planner flattens, and places for few rows: each of both is a sixth of a page's time (measured).
    """
    of_key = "pg_catalog.row_to_json(k.*)::pg_catalog.text" if key else "'null'"
    text = _line(of_key, version, "pg_catalog.row_to_json(v.*)::pg_catalog.text")
    raw = "".join(f", {k.place} AS place{n}" for n, k in enumerate(order))
    parts = f"{table} AS t, LATERAL (SELECT {_named(columns)}) AS v" + (f", LATERAL (SELECT {_named(key)}) AS k" if key else "")
    ordered = f" ORDER BY {', '.join(k.order for k in order)}" if order else ""
    rows = f"SELECT {text} AS line{raw} FROM {parts} WHERE {condition}{ordered} LIMIT {limit}"  # noqa: S608  (quoted names)
    sized = f"SELECT q.*, pg_catalog.octet_length(q.line) AS size FROM ({rows}) AS q"  # noqa: S608
    windows = "sum(s.size) OVER w - s.size AS before, row_number() OVER w AS n"
    summed = f"SELECT s.*, {windows} FROM ({sized}) AS s WINDOW w AS (ROWS UNBOUNDED PRECEDING)"  # noqa: S608
    line_ = f"CASE WHEN p.size <= {most_bytes} THEN p.line END"
    values = [k.written(f"p.place{n}") for n, k in enumerate(order)]
    long = " + ".join(f"coalesce(pg_catalog.octet_length({v}), 0)" for v in values) or "0"
    place = f"CASE WHEN {long} <= {LONGEST} THEN ARRAY[{', '.join(values)}]::pg_catalog.text[] ELSE ARRAY[]::pg_catalog.text[] END"
    at = f"CASE WHEN p.n = {limit - 1} OR p.before + p.size >= {most_bytes} THEN {place} END"
    sealed = f"CASE WHEN p.n = 1 THEN ({seal}) END" if seal else "NULL"
    return f"SELECT {line_}, {at}, {sealed} FROM ({summed}) AS p WHERE p.before < {most_bytes}"  # noqa: S608
