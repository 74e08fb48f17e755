"""What PostgreSQL's catalog says about tables of schema public, read as the project's editor.

Nothing of the tenant's runs here: names, types and expressions are written out by PostgreSQL itself.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Final, TypeVar

from loquat_common import estimates
from loquat_common.problems import Problem

from loquat_schema_manager.domain.tables import Constraint, Table, TableColumn, TableIndex

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]
    Record = asyncpg.Record

T = TypeVar("T")

# A partitioned table has the rows of its leaves.
_ROWS: Final = f"""
(SELECT coalesce(sum({estimates.rows("k", "(pg_catalog.pg_relation_size(k.oid) / pg_catalog.current_setting('block_size')::int8)")}), 0)::bigint
 FROM pg_catalog.pg_class AS k WHERE k.oid = ANY (CASE WHEN c.relkind <> 'p' THEN ARRAY[c.oid]
   ELSE ARRAY(SELECT p.relid::pg_catalog.oid FROM pg_catalog.pg_partition_tree(c.oid) AS p WHERE p.isleaf) END))"""  # noqa: S608  (constants)""
_RELATIONS: Final = f"""
SELECT c.oid::bigint AS oid, c.relname AS name, c.relkind::text AS kind, c.relowner = 'loquat_system'::pg_catalog.regrole AS is_system,
       pg_catalog."left"(pg_catalog.obj_description(c.oid, 'pg_class'), $1) AS comment, pg_catalog.pg_total_relation_size(c.oid) AS size,
       {_ROWS} AS rows
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p', 'v', 'm', 'f') AND """  # noqa: S608  (constants)
# purpose: a page of them by name; the names of a few
_PAGE: Final = _RELATIONS + "($2::text IS NULL OR c.relname > $2::text::name) ORDER BY c.relname LIMIT $3"
_NAMED: Final = _RELATIONS + "c.relname = ANY ($2::text[]::name[])"

_COLUMNS: Final = """
SELECT a.attrelid::bigint AS oid, a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS written, a.attnotnull AS not_null,
       CASE WHEN a.attidentity <> '' THEN 'GENERATED ' || CASE a.attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END || ' AS IDENTITY'
            ELSE pg_catalog."left"(pg_catalog.pg_get_expr(d.adbin, d.adrelid), $2) END AS default,
       a.attidentity = 'a' OR a.attgenerated <> '' AS generated, pg_catalog."left"(pg_catalog.col_description(a.attrelid, a.attnum), $2) AS comment,
       EXISTS (SELECT FROM pg_catalog.pg_depend AS s WHERE s.classid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.deptype = 'a'
               AND s.refclassid = 'pg_catalog.pg_class'::pg_catalog.regclass AND s.refobjid = a.attrelid AND s.refobjsubid = a.attnum)
         AND pg_catalog.starts_with(pg_catalog.pg_get_expr(d.adbin, d.adrelid), 'nextval(') AS serial
FROM pg_catalog.pg_attribute AS a
LEFT JOIN pg_catalog.pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
WHERE a.attrelid = ANY ($1::bigint[]::oid[]) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attrelid, a.attnum"""

_CONSTRAINTS: Final = """
SELECT k.conrelid::bigint AS oid, k.conname AS name, k.contype::text AS kind, pg_catalog."left"(pg_catalog.pg_get_constraintdef(k.oid), $2) AS definition,
       ARRAY(SELECT a.attname FROM pg_catalog.unnest(k.conkey) WITH ORDINALITY AS u(n, o)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.conrelid AND a.attnum = u.n ORDER BY u.o)::text[] AS columns,
       t.relname AS to_table, k.confdeltype::text AS on_delete,
       ARRAY(SELECT a.attname FROM pg_catalog.unnest(k.confkey) WITH ORDINALITY AS u(n, o)
             JOIN pg_catalog.pg_attribute AS a ON a.attrelid = k.confrelid AND a.attnum = u.n ORDER BY u.o)::text[] AS to_columns
FROM pg_catalog.pg_constraint AS k LEFT JOIN pg_catalog.pg_class AS t ON t.oid = k.confrelid
WHERE k.conrelid = ANY ($1::bigint[]::oid[]) AND k.contype IN ('p', 'u', 'f', 'c', 'x') ORDER BY k.conrelid, k.conname"""

_INDEXES: Final = """
SELECT i.indrelid::bigint AS oid, c.relname AS name, m.amname AS method, i.indisunique AS "unique", i.indpred IS NOT NULL AS partial,
       i.indisvalid AS valid, pg_catalog."left"(pg_catalog.pg_get_indexdef(i.indexrelid), $2) AS definition,
       (SELECT k.conname FROM pg_catalog.pg_constraint AS k WHERE k.conindid = i.indexrelid AND k.contype IN ('p', 'u', 'x') LIMIT 1) AS constraint,
       ARRAY(SELECT coalesce(a.attname::text, pg_catalog."left"(pg_catalog.pg_get_indexdef(i.indexrelid, n, true), $2)) FROM pg_catalog.generate_series(1, i.indnkeyatts) AS n
             LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0 ORDER BY n) AS columns,
       ARRAY(SELECT a.attname::text FROM pg_catalog.generate_series(1, i.indnkeyatts) AS n
             LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = i.indrelid AND a.attnum = i.indkey[n - 1] AND a.attnum > 0 ORDER BY n) AS names
FROM pg_catalog.pg_index AS i JOIN pg_catalog.pg_class AS c ON c.oid = i.indexrelid JOIN pg_catalog.pg_am AS m ON m.oid = c.relam
WHERE i.indrelid = ANY ($1::bigint[]::oid[]) ORDER BY i.indrelid, c.relname"""

_REFERENCES: Final = """
SELECT DISTINCT k.confrelid::bigint AS oid, c.relname AS name FROM pg_catalog.pg_constraint AS k JOIN pg_catalog.pg_class AS c ON c.oid = k.conrelid
WHERE k.confrelid = ANY ($1::bigint[]::oid[]) AND $2::int > 0 AND k.contype = 'f' AND k.conrelid <> k.confrelid ORDER BY 1, 2"""
_TAKEN: Final = "SELECT relname FROM pg_catalog.pg_class WHERE relnamespace = 'public'::pg_catalog.regnamespace"

_WEIGHT: Final = f"""
SELECT {_ROWS} AS rows, pg_catalog.pg_total_relation_size(c.oid) AS size
FROM pg_catalog.pg_class AS c WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = $1"""  # noqa: S608  (constants)

# purpose: the rows of one of the questions above until they have $3 bytes, and one more that says so
_BOUNDED: Final = """
SELECT w.* FROM (SELECT q.*, pg_catalog.sum(pg_catalog.octet_length(q::text)) OVER (ROWS UNBOUNDED PRECEDING) AS bytes,
                        pg_catalog.octet_length(q::text) AS own FROM ({question}) AS q) AS w WHERE w.bytes - w.own < $3"""
_SHOWN: Final = (2_000, 400, 40)
"""Characters of a comment, an expression or a definition that are shown, and what is tried where a table has too many of them."""
_PLANNED: Final = 1 << 20  # of what a change is planned from, and undone with: all of it, or nothing
_MOST_BYTES: Final = 4 << 20  # of an answer to one of the questions; a table of ten columns has 3 KB

_ON_DELETE: Final = {"a": "no_action", "r": "restrict", "c": "cascade", "n": "set_null", "d": "set_default"}


class TooLarge(Exception):
    """What the catalog says of these tables has more bytes than this process takes at once."""


async def page(connection: Connection, after: str | None, limit: int) -> tuple[list[Table], bool]:
    """Tables and views by name, at most `limit` of them, behind the name `after`; and whether there are more. Long texts are cut, and so is a long page.

    Raises:
        Problem: 422 `over_limit`: the first one is too large to be shown, however short its texts.
    """
    found = await connection.fetch(_PAGE, _SHOWN[0], after, limit + 1)
    rows = found[:limit]
    while len(rows) > 1:
        try:
            return await _described(connection, rows, _SHOWN[0]), len(rows) < len(found)
        except TooLarge:
            rows = rows[: len(rows) // 2]
    return await _one(connection, rows), len(rows) < len(found)


async def one(connection: Connection, name: str) -> Table | None:
    """The table of this name, if it is there. Long texts are cut.

    Raises:
        Problem: as `page`.
    """
    if "\0" in name:
        return None
    found = await _one(connection, await connection.fetch(_NAMED, _SHOWN[0], [name]))
    return found[0] if found else None


async def _one(connection: Connection, rows: Sequence[Record]) -> list[Table]:
    for most in _SHOWN:
        try:
            return await _described(connection, rows, most)
        except TooLarge:
            continue
    raise Problem(422, "over_limit", f"{rows[0]['name']} is too large to be described", f"{_MOST_BYTES} bytes are the limit")


async def whole(connection: Connection, names: Collection[str]) -> dict[str, Table]:
    """Those of these names that are there, each text whole: changes are made and undone with them.

    Raises:
        Problem: 422 `over_limit`: a comment, an expression or a definition is too long, or all of them are.
    """
    rows = await connection.fetch(_NAMED, _PLANNED, [n for n in names if "\0" not in n])
    try:
        if any(len(r["comment"] or "") >= _PLANNED for r in rows):
            raise TooLarge
        return {t.name: t for t in await _described(connection, rows, _PLANNED, _PLANNED)}
    except TooLarge:
        detail = f"Its comments, expressions and definitions have more than {_PLANNED} bytes; SQL changes it"
        raise Problem(422, "over_limit", "The table is too large to be changed here", detail) from None


async def taken(connection: Connection) -> frozenset[str]:
    """Names of all relations of schema public, indexes and sequences too."""
    return frozenset(r["relname"] for r in await connection.fetch(_TAKEN))


async def weight(connection: Connection, name: str) -> tuple[int, int]:
    """Rows as PostgreSQL estimates them, and bytes with indexes; zeros for what is not there."""
    row = await connection.fetchrow(_WEIGHT, name)
    return (row["rows"], row["size"]) if row is not None else (0, 0)


async def _asked(connection: Connection, question: str, oids: list[int], longest: int, most: int) -> list[Record]:
    rows = await connection.fetch(_BOUNDED.replace("{question}", question), oids, longest, most)
    if rows and rows[-1]["bytes"] >= most:
        raise TooLarge
    return rows


async def _described(connection: Connection, relations: Sequence[Record], longest: int, most: int = _MOST_BYTES) -> list[Table]:
    oids = [r["oid"] for r in relations]
    if not oids:
        return []
    columns = _by_table(await _asked(connection, _COLUMNS, oids, longest, most), _column)
    constraints = _by_table(await _asked(connection, _CONSTRAINTS, oids, longest, most), _constraint)
    indexes = _by_table(await _asked(connection, _INDEXES, oids, longest, most), _index)
    references = _by_table(await _asked(connection, _REFERENCES, oids, longest, most), lambda r: str(r["name"]))
    return [
        Table(
            r["name"],
            r["kind"],
            r["is_system"],
            r["comment"],
            r["rows"] if r["kind"] in {"r", "p", "m"} else None,
            r["size"],
            tuple(columns.get(r["oid"], ())),
            tuple(constraints.get(r["oid"], ())),
            tuple(indexes.get(r["oid"], ())),
            tuple(references.get(r["oid"], ())),
        )
        for r in relations
    ]


def _by_table(rows: Sequence[Record], make: Callable[[Record], T]) -> Mapping[int, list[T]]:
    found: dict[int, list[T]] = defaultdict(list)
    for row in rows:
        found[row["oid"]].append(make(row))
    return found


def _column(r: Record) -> TableColumn:
    return TableColumn(r["name"], r["written"], r["not_null"], r["default"], r["generated"], bool(r["serial"]), r["comment"])


def _constraint(r: Record) -> Constraint:
    on_delete = _ON_DELETE.get(r["on_delete"].strip(), "no_action")
    return Constraint(r["name"], r["kind"], tuple(r["columns"]), r["definition"], r["to_table"], tuple(r["to_columns"]), on_delete)  # pyright: ignore[reportArgumentType]  (one of the five words)


def _index(r: Record) -> TableIndex:
    columns, names = tuple(r["columns"]), tuple(r["names"])
    return TableIndex(r["name"], r["method"], r["unique"], columns, names, r["partial"], r["valid"], r["constraint"], r["definition"])
