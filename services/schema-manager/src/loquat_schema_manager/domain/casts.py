"""Changing a column's type: how its values are converted, which rows would not be, whether each row is written anew, and whether it can be undone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from loquat_common.sql import Ident

from loquat_schema_manager.domain.columns import ColumnType
from loquat_schema_manager.domain.fragments import Deparsed, Text, sql

_TEXTS: Final = frozenset({"text", "varchar"})
_WHOLE: Final = frozenset({"integer", "bigint"})
_NUMBERS: Final = _WHOLE | {"numeric"}
_WIDTH: Final = {"integer": 0, "bigint": 1, "numeric": 2}


@dataclass(frozen=True, slots=True)
class Cast:
    """`using` gives the new value; `fits` is false for a row whose value does not become the same value of the new type."""

    using: str
    fits: str
    rewrites: bool
    undoable: bool


def cast_of(value: Ident | Deparsed, old: ColumnType | None, new: ColumnType, *, lossy: bool) -> Cast:
    """Of `value`, a column or an expression, from `old` (None: a type of PostgreSQL that this API does not make) to `new`. `lossy`: rounding and cutting are wanted."""
    kind = old.kind if old else ""
    same = new.kind == "text" or not _rewrites(old, new) or (kind, new.kind) == ("integer", "bigint")
    fits = "true" if same else _fits(value, kind, new, lossy=lossy)
    return Cast(_using(value, kind, new), fits, _rewrites(old, new), _undoable(old, new) and (same or not lossy))


def kin(old: ColumnType | None, new: ColumnType) -> bool:
    """Whether both are numbers or both are texts."""
    return old is not None and any({old.kind, new.kind} <= family for family in (_NUMBERS, _TEXTS))


def _using(value: Ident | Deparsed, kind: str, new: ColumnType) -> str:
    parts = {"c": value, "t": Deparsed(str(new))}
    match kind, new.kind:
        case old, wanted if old == wanted or {old, wanted} <= _TEXTS or {old, wanted} <= _NUMBERS:
            return sql("{c}::{t}", **parts)  # the direct cast: PostgreSQL sees where no row need be written
        case ("boolean", "integer") | ("date", "timestamptz") | ("timestamptz", "date"):
            return sql("{c}::{t}", **parts)
        case "boolean", "bigint":
            return sql("{c}::integer::bigint", **parts)
        case old, "jsonb" if old not in _TEXTS:
            return sql("pg_catalog.to_jsonb({c})", **parts)
        case _:
            return sql("{c}::text::{t}", **parts)


def _fits(value: Ident | Deparsed, kind: str, new: ColumnType, *, lossy: bool) -> str:
    parts = {"c": value, "t": Deparsed(str(new)), "name": Text(str(new))}
    valid = sql("pg_catalog.pg_input_is_valid({c}::text, {name})", **parts)
    exact = "true"
    match kind, new.kind:
        case ("boolean", "integer" | "bigint") | ("date", "timestamptz"):
            valid = "true"
        case "timestamptz", "date":
            valid, exact = "true", sql("{c} = {c}::date::timestamptz", **parts)
        case old, "jsonb" if old not in _TEXTS:
            valid = "true"
        case "numeric", "integer" | "bigint":
            valid = sql("pg_catalog.pg_input_is_valid(pg_catalog.round({c})::text, {name})", **parts)
            exact = sql("{c} = pg_catalog.trunc({c})", **parts)
        case _, "numeric":
            exact = sql("{c}::text::{t} = {c}::text::numeric", **parts)
        case _, "varchar" if new.length is not None:
            valid, exact = "true", sql("pg_catalog.length({c}::text) <= {n}", n=Deparsed(str(new.length)), **parts)
        case _:
            pass
    if lossy or exact == "true":
        return valid
    # CASE keeps the order: a value that is no number is not asked whether its digits would be lost.
    return sql("CASE WHEN {valid} THEN {exact} ELSE false END", valid=Deparsed(valid), exact=Deparsed(exact))


def _rewrites(old: ColumnType | None, new: ColumnType) -> bool:
    """As PostgreSQL decides (ATColumnChangeRequiresRewrite); a test compares each pair with what it did."""
    if old is None:
        return True
    match old.kind, new.kind:
        case _, "text" if old.kind in _TEXTS:
            return False
        case "varchar", "varchar":
            return new.length is not None and (old.length is None or new.length < old.length)
        case "numeric", "numeric":
            return new.precision is not None and (old.precision is None or new.scale != old.scale or new.precision < old.precision)
        case _:
            return old != new


def _undoable(old: ColumnType | None, new: ColumnType) -> bool:
    """Whether every value comes back as it was."""
    if old is None:
        return False
    match old.kind, new.kind:
        case before, after if before == after:
            return not _rewrites(old, new)
        case _, "text" | "varchar":
            return True
        case before, after if {before, after} <= _NUMBERS:
            return _WIDTH[before] < _WIDTH[after] and (new.kind != "numeric" or old.kind in _WHOLE)
        case ("date", "timestamptz") | ("boolean", "integer" | "bigint"):
            return True
        case _:
            return False
