"""The types a column of this API may have, exactly: spelling, limits, and what fits into them."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from datetime import date, datetime
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Literal, get_args
from uuid import UUID

Kind = Literal["text", "varchar", "integer", "bigint", "numeric", "boolean", "date", "timestamptz", "uuid", "jsonb", "serial"]
KINDS: Final[tuple[Kind, ...]] = get_args(Kind)
SPELLED: Final = "text, varchar(n), integer, bigint, numeric(p,s), boolean, date, timestamptz, uuid, jsonb, serial"
VARCHAR_MOST: Final = 10_485_760
"""Characters of a varchar (MaxAttrSize)."""
NUMERIC_MOST: Final = 1_000
"""Digits of a numeric with a declared precision."""
RANGES: Final[dict[str, int]] = {"integer": 2**31, "serial": 2**31, "bigint": 2**63}

_SPELLING: Final = re.compile(r"([a-z]+)(?:\s*\(\s*([0-9]{1,9})\s*(?:,\s*([0-9]{1,9})\s*)?\))?")
_CATALOG: Final[dict[str, Kind]] = {
    "character varying": "varchar",
    "timestamp with time zone": "timestamptz",
    "text": "text",
    "integer": "integer",
    "bigint": "bigint",
    "numeric": "numeric",
    "boolean": "boolean",
    "date": "date",
    "uuid": "uuid",
    "jsonb": "jsonb",
}
_OF_CATALOG: Final = re.compile(r"([a-z ]+?)(?:\(([0-9]+)(?:,([0-9]+))?\))?")
_SHOWN: Final = 60  # characters of a wrong value in a sentence


class NotAType(ValueError):
    """The text is no type of this API."""


class DoesNotFit(ValueError):
    """A value is none of the type."""


@dataclass(frozen=True, slots=True)
class ColumnType:
    """A type. `length` of a varchar; `precision` and `scale` of a numeric; None: without a limit, which only the project's own SQL makes."""

    kind: Kind
    length: int | None = None
    precision: int | None = None
    scale: int | None = None

    def __str__(self) -> str:
        match self.kind:
            case "varchar" if self.length is not None:
                return f"varchar({self.length})"
            case "numeric" if self.precision is not None:
                return f"numeric({self.precision},{self.scale})"
            case _:
                return self.kind

    @property
    def stored(self) -> ColumnType:
        """The type of the values: a serial is an integer with a sequence."""
        return ColumnType("integer") if self.kind == "serial" else self


def parse(text: str) -> ColumnType:
    """A type as a request spells it: upper case and spaces do not matter.

    Raises:
        NotAType: none of the list, or beyond its limits; the text says which.
    """
    found = _SPELLING.fullmatch(text.strip().lower())
    if found is None or found[1] not in KINDS:
        raise NotAType(f"{text[:_SHOWN]!r} is none of the types {SPELLED}")
    kind, first, second = found[1], found[2], found[3]
    if kind == "varchar":
        if first is None or second is not None or not 1 <= int(first) <= VARCHAR_MOST:
            raise NotAType(f"varchar is spelled varchar(n), with n from 1 to {VARCHAR_MOST}; text has no limit")
        return ColumnType("varchar", length=int(first))
    if kind == "numeric":
        if first is None or second is None or not 1 <= int(first) <= NUMERIC_MOST or int(second) > int(first):
            raise NotAType(f"numeric is spelled numeric(p,s), with p digits in all from 1 to {NUMERIC_MOST}, s of them behind the point")
        return ColumnType("numeric", precision=int(first), scale=int(second))
    if first is not None:
        raise NotAType(f"{kind} takes no number in brackets")
    return ColumnType(next(k for k in KINDS if k == kind))


def of_catalog(written: str) -> ColumnType | None:
    """A type as `format_type` writes it; None for one that this API does not make (the project's own SQL may)."""
    found = _OF_CATALOG.fullmatch(written)
    kind = _CATALOG.get(found[1]) if found else None
    if found is None or kind is None:
        return None
    match kind, found[2], found[3]:
        case "varchar", str(length), None:
            return ColumnType("varchar", length=int(length))
        case "numeric", str(precision), str(scale):
            return ColumnType("numeric", precision=int(precision), scale=int(scale))
        case (("varchar" | "numeric"), _, _):
            return None
        case _, None, None:
            return ColumnType(kind)
        case _:
            return None


def loosely(written: str) -> ColumnType | None:
    """As `of_catalog`, and a varchar or numeric without a limit too: their values convert as those of their kin."""
    match written:
        case "character varying":
            return ColumnType("varchar")
        case "numeric":
            return ColumnType("numeric")
        case _:
            return of_catalog(written)


def literal_of(value: Any, kind: ColumnType) -> str:
    """A JSON value as the text that PostgreSQL reads as this type.

    Raises:
        DoesNotFit: it is none; the text says why.
    """
    match kind.kind:
        case "jsonb":
            return _document(value)
        case "text" | "varchar":
            return _text(value, kind.length)
        case "integer" | "bigint" | "serial":
            return _whole(value, RANGES[kind.kind])
        case "numeric":
            return _digits(value, kind)
        case "boolean":
            if not isinstance(value, bool):
                raise _unfit(value, "true or false")
            return "true" if value else "false"
        case "date" | "timestamptz" | "uuid":
            return _spelled(value, kind.kind)


def _document(value: Any) -> str:
    """Whole numbers of any size, which orjson refuses."""
    try:
        text = json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        text.encode()
    except (ValueError, RecursionError):
        raise _unfit(value, "a JSON document") from None
    return text


def _text(value: Any, length: int | None) -> str:
    if not isinstance(value, str):
        raise _unfit(value, "text")
    if length is not None and len(value) > length:
        raise DoesNotFit(f"the text has {len(value)} characters; {length} are the limit")
    return value


def _whole(value: Any, limit: int) -> str:
    try:
        number = int(value) if isinstance(value, int | str) and not isinstance(value, bool) else None
    except ValueError:
        number = None
    if number is None or not -limit <= number < limit:
        raise _unfit(value, f"a whole number from {-limit} to {limit - 1}")
    return str(number)


def _digits(value: Any, kind: ColumnType) -> str:
    try:
        number = Decimal(str(value)) if isinstance(value, int | float | str) and not isinstance(value, bool) else Decimal("NaN")
    except InvalidOperation:
        number = Decimal("NaN")
    precision, scale = kind.precision or 0, kind.scale or 0
    if not number.is_finite() or number.adjusted() >= precision - scale or _behind_point(number) > scale:
        raise _unfit(value, f"a number with at most {precision - scale} digits before the point and {scale} behind it")
    return f"{number:f}"


def _behind_point(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


def _spelled(value: Any, kind: Literal["date", "timestamptz", "uuid"]) -> str:
    """Stricter than PostgreSQL, which also takes words such as `yesterday` that mean another value each day."""
    wanted = {"date": "a date such as 2026-01-31", "timestamptz": "a moment such as 2026-01-31T12:00:00Z", "uuid": "a uuid"}[kind]
    try:
        if not isinstance(value, str):
            raise _unfit(value, wanted)
        match kind:
            case "date":
                return date.fromisoformat(value).isoformat()
            case "uuid":
                return str(UUID(value))
            case "timestamptz":
                moment = datetime.fromisoformat(value)
                if moment.tzinfo is None:
                    raise _unfit(value, f"{wanted}, with its zone")
                return moment.isoformat()
    except DoesNotFit:
        raise
    except ValueError:
        raise _unfit(value, wanted) from None


def _unfit(value: Any, wanted: str) -> DoesNotFit:
    return DoesNotFit(f"{str(value)[:_SHOWN]!r} is not {wanted}")
