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
SELECT c.oid::bigint AS oid, c.relkind::text AS kind, c.relowner = 'loquat_system'::regrole AS is_system, c.relispartition AS is_partition
FROM pg_catalog.pg_class AS c WHERE c.relnamespace = 'public'::pg_catalog.regnamespace AND c.relname = $1 AND c.relkind IN ('r', 'p', 'v', 'm', 'f')"""
_COLUMNS: Final = """
SELECT a.attname AS name, pg_catalog.format_type(a.atttypid, a.atttypmod) AS type, t.typnamespace = 'pg_catalog'::pg_catalog.regnamespace AS builtin,
       a.attnotnull AS not_null, a.atthasdef OR a.attidentity <> '' AS has_default, a.attidentity = 'a' OR a.attgenerated <> '' AS generated,
       array_position(k.conkey, a.attnum) AS key_position
FROM pg_catalog.pg_attribute AS a JOIN pg_catalog.pg_type AS t ON t.oid = a.atttypid
LEFT JOIN pg_catalog.pg_constraint AS k ON k.conrelid = a.attrelid AND k.contype = 'p'
WHERE a.attrelid = $1::bigint::oid AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum"""


@dataclass(frozen=True, slots=True)
class Column:
    """A column. `type` as Postgres writes it, such as `character varying(20)`; `builtin`: not a type of the tenant's."""

    name: str
    type: str
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
    """A table, view or foreign table of schema public. `key` are the primary key's columns, in its order."""

    oid: int
    name: str
    kind: str
    is_system: bool
    columns: tuple[Column, ...]
    key: tuple[str, ...]

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
    row = await connection.fetchrow(_RELATION, name)
    if row is None:
        raise not_found("table")
    rows = await connection.fetch(_COLUMNS, row["oid"])
    columns = tuple(Column(r["name"], r["type"], r["builtin"], r["not_null"], r["has_default"], r["generated"]) for r in rows)
    key = tuple(r["name"] for r in sorted((r for r in rows if r["key_position"] is not None), key=lambda r: r["key_position"]))
    return Relation(row["oid"], name, row["kind"], row["is_system"], columns, key)
