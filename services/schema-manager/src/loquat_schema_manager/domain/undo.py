"""The SQL that takes a noted change back. Images stay in the database: `h` is the change, its key reads as `k`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from loquat_common.sql import Ident

from loquat_schema_manager.domain.statements import given, names, same_key
from loquat_schema_manager.domain.values import Typed

CHANGE: Final = "public.row_history AS h"
_IT: Final = "h.history = $1 AND h.id = $2"


def _key(key: Sequence[Typed]) -> str:
    return f"pg_catalog.jsonb_to_record(h.key) AS {given(key, 'k')}"


def differing(table: Ident, key: Sequence[Typed], compared: Sequence[Typed]) -> str:
    """The row as it is, locked: which of the columns $3 are not as the change left them. No row: it is gone."""
    if not compared:
        columns = "'{}'::pg_catalog.text[]"
    else:
        columns = (
            "ARRAY(SELECT c.name FROM pg_catalog.unnest($3::pg_catalog.text[]) AS c(name)"
            " WHERE h.new ? c.name AND h.new -> c.name <> pg_catalog.to_jsonb(t.*) -> c.name)"
        )
    return f"SELECT {columns} FROM {CHANGE}, {_key(key)}, {table} AS t WHERE {_IT} AND {same_key(key)} FOR UPDATE OF t"  # noqa: S608  (quoted names)


def update(table: Ident, key: Sequence[Typed], changed: Sequence[Typed]) -> str:
    """Gives the row its old values of the columns that the change changed."""
    sets = ", ".join(f"{Ident(c.name)} = n.{Ident(c.name)}" for c in changed)
    old = f"pg_catalog.jsonb_to_record(h.old) AS {given(changed, 'n')}"
    return f"UPDATE {table} AS t SET {sets} FROM {CHANGE}, {_key(key)}, {old} WHERE {_IT} AND {same_key(key)}"  # noqa: S608  (quoted names)


def insert(table: Ident, columns: Sequence[Typed]) -> str:
    """Puts the deleted row back."""
    old = f"pg_catalog.jsonb_to_record(h.old) AS {given(columns, 'n')}"
    target = f"{table} ({names(columns)}) OVERRIDING SYSTEM VALUE"
    return f"INSERT INTO {target} SELECT {names(columns, 'n')} FROM {CHANGE}, {old} WHERE {_IT}"  # noqa: S608  (quoted names)


def delete(table: Ident, key: Sequence[Typed]) -> str:
    """Takes the added row away."""
    return f"DELETE FROM {table} AS t USING {CHANGE}, {_key(key)} WHERE {_IT} AND {same_key(key)}"  # noqa: S608  (quoted names)
