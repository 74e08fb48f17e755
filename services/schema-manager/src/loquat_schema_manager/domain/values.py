"""Values between JSON and PostgreSQL, by the type of their column (ADR 0005). Postgres reads the text; here only its kind is checked."""

from __future__ import annotations

import json
import math
import re
from typing import Any, Final, Protocol

import orjson
from loquat_common.sql import Ident

INTEGERS: Final = {"smallint": 15, "integer": 31, "bigint": 63}
"""Whole numbers, and the bits of their largest value."""
NUMBERS: Final = {*INTEGERS, "numeric", "real", "double precision"}
PLAIN: Final = {"smallint", "integer", "boolean", "jsonb", "text", "character varying", "uuid", "date", "timestamp with time zone"}
"""Types that Postgres writes into JSON just as the ADR wants them; of every other type its text is written."""
TEXTS: Final = {"text", "character varying", "bpchar"}
_MOMENTS: Final = {"timestamp with time zone", "timestamp without time zone", "date"}
_NUMBER: Final = re.compile(r"[+-]?(\d+(\.\d*)?|\.\d+)([eE][+-]?\d{1,5})?|[+-]?(NaN|Infinity|inf)", re.ASCII)
_SHOWN: Final = 100  # characters of a value in a message


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
    text = value if isinstance(value, str) else json.dumps(value, default=str)
    text = text.replace("\0", "\\0")
    return text if len(text) <= _SHOWN else text[:_SHOWN] + "…"


def as_json(column: Typed, value: Any) -> Any:
    """What goes into a JSON record that Postgres reads with the column's own type (`json_to_recordset`).

    Raises:
        Unfit: the JSON value is not of a kind that the type takes.
    """
    if value is None:
        return None
    if column.bare == "jsonb":
        return orjson.Fragment(json.dumps(value))
    text = as_text(column, value)
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
        return json.dumps(value)  # whole numbers of any size, which orjson refuses
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


def _number(column: Typed, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise unfit(column, value, "is not a number")
    if isinstance(value, str):
        if _NUMBER.fullmatch(value) is None:
            raise unfit(column, value, "is not a number")
        return value
    if column.bare not in INTEGERS:
        return repr(value)
    if not float(value).is_integer() if isinstance(value, float) and math.isfinite(value) else isinstance(value, float):
        raise unfit(column, value, "is not a whole number")
    whole = int(value)
    limit = 1 << INTEGERS[column.bare]
    if not -limit <= whole < limit:
        raise unfit(column, value, f"is out of the range of {column.bare}")
    return str(whole)


def shown(column: Typed, source: str) -> str:
    """The SQL expression of a column, as JSON shall show it. `source`: the alias of its table."""
    place = f"{source}.{Ident(column.name)}"
    return place if column.bare in PLAIN else f"{place}::pg_catalog.text"


def precise(type: str, place: str) -> str:
    """The SQL of a value's text that Postgres reads back as the same value, whatever the session's settings."""
    return f"(pg_catalog.to_json({place}) #>> '{{}}')" if type in _MOMENTS else f"{place}::pg_catalog.text"
