"""What the transaction of a script changed so far: rows by table, and whether the shape of tables. No values.

Nothing of the tenant's runs: each function, type and operator is named with its schema, for the search path is the script's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

from loquat_schema_manager.adapters.wire import Result

MOST: Final = 100
"""Tables that are told of one script."""
SETTLED: Final = "SELECT session_user::text, pg_catalog.pg_stat_force_next_flush()"
"""The server's counters of a session begin at zero only where the transaction before ended with handing them over. Asks for it, and for the user."""

_EQUAL: Final = "OPERATOR(pg_catalog.=)"
_PUBLIC: Final = f"c.relnamespace {_EQUAL} 'public'::pg_catalog.regnamespace::pg_catalog.oid"
_ROWS: Final = """pg_catalog.pg_stat_get_xact_tuples_inserted({0}) OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_updated({0})
  OPERATOR(pg_catalog.+) pg_catalog.pg_stat_get_xact_tuples_deleted({0})"""
_OF_THIS: Final = "pg_catalog.age({}.xmin) OPERATOR(pg_catalog.<=) 0"
"""Rows of the catalog that this transaction wrote, or one that began later and is over."""
_SHAPES: Final = " OR ".join(
    f"EXISTS (SELECT FROM pg_catalog.{catalog} AS x WHERE x.{column} {_EQUAL} c.oid AND {_OF_THIS.format('x')})"
    for catalog, column in (
        ("pg_attribute", "attrelid"),
        ("pg_constraint", "conrelid"),
        ("pg_index", "indrelid"),
        ("pg_description", "objoid"),
    )
)
_CATALOGS: Final = ("pg_class", "pg_attribute", "pg_attrdef", "pg_constraint", "pg_index", "pg_description")
_RESHAPED: Final = " OPERATOR(pg_catalog.+) ".join(
    _ROWS.format(f"'pg_catalog.{c}'::pg_catalog.regclass::pg_catalog.oid") for c in _CATALOGS
)

# purpose: whether the shape of anything changed; the tables with most rows changed, a partition counts for its root; the tables of another shape
TOUCHED: Final = f"""
WITH reshaped AS MATERIALIZED (SELECT {_RESHAPED} OPERATOR(pg_catalog.>) 0 AS yes)
SELECT NULL::pg_catalog.text, r.yes::pg_catalog.text FROM reshaped AS r
UNION ALL (
  SELECT r.relname::pg_catalog.text, pg_catalog.sum(n.rows)::pg_catalog.int8::pg_catalog.text FROM pg_catalog.pg_class AS c
  JOIN pg_catalog.pg_class AS r ON r.oid {_EQUAL} coalesce(pg_catalog.pg_partition_root(c.oid)::pg_catalog.oid, c.oid), LATERAL (SELECT {_ROWS.format("c.oid")} AS rows) AS n
  WHERE {_PUBLIC} AND c.relkind {_EQUAL} 'r' AND n.rows OPERATOR(pg_catalog.>) 0 GROUP BY r.relname ORDER BY pg_catalog.sum(n.rows) DESC, r.relname LIMIT {MOST})
UNION ALL (
  SELECT c.relname::pg_catalog.text, NULL FROM pg_catalog.pg_class AS c, reshaped AS r
  WHERE r.yes AND {_PUBLIC} AND c.relkind {_EQUAL} ANY ('{{r,p,v,m,f}}'::pg_catalog."char"[]) AND ({_OF_THIS.format("c")} OR {_SHAPES}) ORDER BY c.relname LIMIT {MOST})"""  # noqa: S608  (constants)


@dataclass(frozen=True, slots=True)
class Touched:
    """Rows inserted, updated and deleted, by table; `shapes`: tables that were made or have another shape, None if nothing changed any shape."""

    rows: dict[str, int] = field(default_factory=dict[str, int])
    shapes: tuple[str, ...] | None = None


def read(result: Result) -> Touched:
    """The answer to `TOUCHED`."""
    rows, shapes, reshaped = dict[str, int](), list[str](), False
    for name, value in result.rows:
        if name is None:
            reshaped = value == b"true"
        elif value is None:
            shapes.append(name.decode(errors="replace"))
        else:
            rows[name.decode(errors="replace")] = int(value)
    return Touched(rows, tuple(shapes) if reshaped else None)
