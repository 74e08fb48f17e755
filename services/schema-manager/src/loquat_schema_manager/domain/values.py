"""Values between JSON and PostgreSQL, by the type of their column (ADR 0005). Postgres reads the text; here only its kind is checked."""

from __future__ import annotations

import json
import math
import re
from decimal import Decimal, InvalidOperation
from typing import Any, Final, Protocol

import orjson
from loquat_common.sql import Ident

from loquat_schema_manager.domain.exact import Number, written

INTEGERS: Final = {"smallint": 15, "integer": 31, "bigint": 63}
"""Whole numbers, and the bits of their largest value."""
NUMBERS: Final = {*INTEGERS, "numeric", "real", "double precision"}
PLAIN: Final = {"smallint", "integer", "boolean", "jsonb", "text", "character varying", "uuid", "date", "timestamp with time zone"}
"""Types that Postgres writes into JSON just as the ADR wants them; of every other type its text is written."""
TEXTS: Final = {"text", "character varying", "bpchar"}
_MOMENTS: Final = {"timestamp with time zone", "timestamp without time zone", "date"}
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,5})?|[+-]?(NaN|Infinity|inf)", re.ASCII)
_SHOWN: Final = 100  # characters of a value in a message
_SURE: Final = 15  # digits of any decimal number that a double keeps (DBL_DIG)


class Typed(Protocol):
    """A column, as far as its values need to know. `type` with its length, `bare` without."""

    @property
    def name(self) -> str:
        """Its name."""
        ...

    @property
    def type(self) -> str:
        """Such as `character varying(20)`."""
        ...

    @property
    def bare(self) -> str:
        """Such as `character varying`."""
        ...


class Unfit(Exception):
    """What the caller gave cannot be used: a stable code, a sentence, and what it is about."""

    def __init__(self, code: str, title: str, detail: str | None = None, **about: Any) -> None:
        super().__init__(title)
        self.code, self.title, self.detail, self.about = code, title, detail, about


def unfit(column: Typed, value: object, why: str) -> Unfit:
    """A value that its column's type does not take."""
    shown = shorten(value)
    return Unfit("wrong_type", "A value does not fit the column's type", f"{column.name}: {shown} {why}", column=column.name, value=shown)


def shorten(value: object) -> str:
    """A value as a message shows it."""
    text = str(value) if isinstance(value, str | Number) else json.dumps(value, default=str)
    text = text.replace("\0", "\\0")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def as_json(column: Typed, value: Any) -> Any:
    """What goes into a JSON record that Postgres reads with the column's own type (`json_to_recordset`).

    Raises:
        Unfit: the JSON value is not of a kind that the type takes.
    """
    if value is None:
        return None
    text = as_text(column, value)
    if column.bare == "jsonb" and text is not None:
        return orjson.Fragment(text)
    if column.bare != "json" or text is None:
        return text
    try:
        orjson.loads(text)
    except ValueError:
        raise unfit(column, value, "is not the text of a JSON document") from None
    return orjson.Fragment(text)


def as_text(column: Typed, value: Any) -> str | None:
    """What Postgres' input function of the column's type shall read.

    Raises:
        Unfit: the JSON value is not of a kind that the type takes.
    """
    if value is None:
        return None
    if column.bare == "jsonb":
        return _document(column, value)
    if column.bare == "boolean":
        if isinstance(value, bool) or value in ("true", "false"):
            return str(value).lower()
        raise unfit(column, value, "is neither true nor false")
    if column.bare in NUMBERS:
        return _number(column, value)
    if not isinstance(value, str):
        raise unfit(column, value, f"is not a string, as {column.type} needs")
    if "\0" in value:
        raise unfit(column, value, "has a NUL character, which PostgreSQL cannot keep")
    return value


def _document(column: Typed, value: Any) -> str:
    try:
        return written(value)
    except ValueError:
        raise _not_finite(column, value) from None


def _number(column: Typed, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str | Number):
        raise unfit(column, value, "is not a number")
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise unfit(column, value, "is not a number")
        return value
    if isinstance(value, float):
        _kept(column, value)
    text = value.text if isinstance(value, Number) else repr(value)
    return text if column.bare not in INTEGERS else _whole(column, value, text)


def _kept(column: Typed, value: float) -> None:
    """Refuses what is perhaps not what the caller wrote: its text is gone, and beyond 15 digits a double may be another number."""
    if not math.isfinite(value):
        raise _not_finite(column, value)
    if column.bare in INTEGERS or column.bare == "numeric":
        digits = repr(value).partition("e")[0].lstrip("-").replace(".", "").strip("0")
        if len(digits) > _SURE:
            why = f"has more digits than a JSON number surely keeps ({_SURE}); give it as a string"
            raise Unfit(
                "digits_lost", "A number would lose digits", f"{column.name}: {value!r} {why}", column=column.name, value=shorten(value)
            )


def _not_finite(column: Typed, value: object) -> Unfit:
    why = "is no number that JSON has, or is too large for a double; give it as a string"
    return Unfit("not_finite", "A number is not finite", f"{column.name}: {shorten(value)} {why}", column=column.name, value=shorten(value))


def _whole(column: Typed, value: object, text: str) -> str:
    """Without a power of ten written out: 1e999999999 is short as a text only."""
    limit = 1 << INTEGERS[column.bare]
    try:
        number = Decimal(text)
    except InvalidOperation:  # an exponent that no Decimal has
        raise unfit(column, value, f"is out of the range of {column.bare}") from None
    if not -limit <= number < limit:
        raise unfit(column, value, f"is out of the range of {column.bare}")
    if number != int(number):
        raise unfit(column, value, "is not a whole number")
    return str(int(number))


def shown(column: Typed, source: str) -> str:
    """The SQL expression of a column, as JSON shall show it. `source`: the alias of its table."""
    place = f"{source}.{Ident(column.name)}"
    return place if column.bare in PLAIN else f"{place}::pg_catalog.text"


def precise(type: str, place: str) -> str:
    """The SQL of a value's text that Postgres reads back as the same value, whatever the session's settings."""
    return f"(pg_catalog.to_json({place}) #>> '{{}}')" if type in _MOMENTS else f"{place}::pg_catalog.text"
