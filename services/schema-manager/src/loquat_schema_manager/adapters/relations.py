"""What a table is, as far as its rows need to know: columns, key, whose it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from loquat_common.problems import Problem, not_found
from loquat_common.sql import Ident, NotAnIdentifier

if TYPE_CHECKING:
    import asyncpg

    Connection = asyncpg.Connection[asyncpg.Record]

PUBLIC: Final = Ident("public")
ALLOWED: Final = "It can be listed, described, read and exported; the platform alone writes it"
"""What one may do with a system table."""

_RELATION: Final = """
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, c.relowner = 'loquat_system'::regrole AS is_system, a.attname AS name,
       pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, pg_catalog.format_type(a.atttypid, -1) AS bare,
       t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AS builtin, a.attnotnull AS not_null, a.atthasdef OR a.attidentity <> '' AS has_default,
       a.attidentity = 'a' OR a.attgenerated <> '' AS generated, array_position(k.conkey, a.attnum) AS key_position,
       pg_catalog.concat_ws('/', c.oid, c.xmin, k.xmin) AS seal, a.xmin::text AS seal_of_column
FROM pg_catalog.pg_class AS c
LEFT JOIN pg_catalog.pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
LEFT JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conrelid = c.oid AND k.contype = 'p'
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f') ORDER BY a.attnum"""
"""One row per column, or one without a column: one question, not two, is a fifth of a page's time (measured)."""
SEAL: Final = """
SELECT pg_catalog.concat_ws('/', c.oid, c.xmin, (SELECT k.xmin FROM pg_catalog.pg_constraint AS k WHERE k.conrelid = c.oid AND k.contype = 'p'),
         (SELECT pg_catalog.string_agg(a.xmin::text, '/' ORDER BY a.attnum) FROM pg_catalog.pg_attribute AS a
          WHERE a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped))
FROM pg_catalog.pg_class AS c
WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = {name} AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
"""`Relation.seal` of what has the name now: whatever changes a table's shape writes one of these catalog rows anew."""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` as Postgres writes it, such as `character varying(20)`, `bare` without its length; `builtin`: not the tenant's own."""

    name: str
    type: str
    bare: str
    builtin: bool
    not_null: bool
    has_default: bool
    generated: bool

    @property
    def base(self) -> str:
        """The type without its length or precision."""
        return self.type.partition("(")[0]


@dataclass(frozen=True, slots=True)
class Relation:
    """A table, view or foreign table of schema public. `key`: the primary key's columns, in its order; `seal`: another shape, another seal."""

    oid: int
    name: str
    kind: str
    is_system: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    seal: str = ""

    @property
    def ident(self) -> Ident:
        """Its name in SQL."""
        return PUBLIC.dot(self.name)

    def column(self, name: str) -> Column:
        """A column by its name.

        Raises:
            Problem: 422 `unknown_column`, with the columns there are.
        """
        for column in self.columns:
            if column.name == name:
                return column
        raise Problem(
            422, "unknown_column", "There is no such column", f"{self.name} has no column {name!r}", columns=[c.name for c in self.columns]
        )

    def writable(self) -> None:
        """Its rows may be changed.

        Raises:
            Problem: 403 `system_table`, 409 `not_a_table`.
        """
        if self.is_system:
            raise Problem(403, "system_table", f"{self.name} is a system table", ALLOWED)
        if self.kind not in {"r", "p"}:
            raise Problem(409, "not_a_table", f"{self.name} is not a table", "It can be read and exported")

    def keyed(self) -> None:
        """Its rows can be told apart.

        Raises:
            Problem: 409 `no_key`.
        """
        if not self.key:
            raise Problem(
                409,
                "no_key",
                f"{self.name} has no primary key",
                "Its rows can be read and inserted; give it a key to change or delete single ones",
            )


async def find(connection: Connection, name: str) -> Relation:
    """The relation of this name in schema public.

    Raises:
        Problem: 404 when there is none.
    """
    try:
        Ident(name)
    except NotAnIdentifier:
        raise not_found("table") from None
    rows = await connection.fetch(_RELATION, name)
    if not rows:
        raise not_found("table")
    of_columns = [r for r in rows if r["name"] is not None]
    columns = tuple(
        Column(r["name"], r["type"], r["bare"], r["builtin"], r["not_null"], r["has_default"], r["generated"]) for r in of_columns
    )
    in_key = sorted((r for r in of_columns if r["key_position"] is not None), key=lambda r: r["key_position"])
    seal = "/".join((rows[0]["seal"], *(r["seal_of_column"] for r in of_columns)))
    return Relation(rows[0]["oid"], name, rows[0]["kind"], rows[0]["is_system"], columns, tuple(r["name"] for r in in_key), seal)
