"""Pages by key set: the order of rows, and the rows behind a cursor, found through an index and never by counting."""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from loquat_schema_manager.domain.filters import Parameters
from loquat_schema_manager.domain.values import Unfit, precise

LONGEST: Final = 12_000
"""Characters of a cursor. The sort values of a row are in it, and a text may be longer."""
_DIGEST: Final = 8  # bytes against typing errors; a cursor that is made up finds nothing a filter could not

Position = Sequence[str | None]
"""The text of each key of the last row seen."""
Part = Callable[[Parameters], str]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of the order. `place` is its SQL, `type` what reads its text."""

    place: str
    type: str
    nullable: bool = False
    descending: bool = False
    nulls_first: bool = False

    def written(self, place: str) -> str:
        """The SQL of the exact text of the value at `place`."""
        return precise(self.type, place)

    @property
    def order(self) -> str:
        """As ORDER BY has it. The usual place of nulls is left out: that is what an index has."""
        nulls = "" if self.nulls_first == self.descending else " NULLS FIRST" if self.nulls_first else " NULLS LAST"
        return f"{self.place}{' DESC' if self.descending else ''}{nulls}"

    @property
    def _sign(self) -> str:
        return "<" if self.descending else ">"

    def given(self, value: str | None, parameters: Parameters) -> str:
        """The value in SQL."""
        return f"{parameters.add(value)}::{self.type}"

    def past(self, value: str | None, parameters: Parameters) -> str | None:
        """Rows that this key alone puts behind `value`; None: there are none."""
        if value is None:
            return f"{self.place} IS NOT NULL" if self.nulls_first else None
        beyond = f"{self.place} {self._sign} {self.given(value, parameters)}"
        return f"({beyond} OR {self.place} IS NULL)" if self.nullable and not self.nulls_first else beyond

    def same(self, value: str | None, parameters: Parameters) -> str:
        """Rows with this value."""
        return f"{self.place} IS NULL" if value is None else f"{self.place} = {self.given(value, parameters)}"


def order_by(keys: Sequence[Key]) -> str:
    """The ORDER BY list."""
    return ", ".join(k.order for k in keys)


def parts(keys: Sequence[Key], position: Position | None) -> list[Part]:
    """The conditions of the rows behind `position`, one statement after the other until the page is full.

    Nulls of the first key are a part of their own: together with the values in one condition, no index could find the place.
    """
    if position is None:
        return [lambda _p: "true"]
    first, value = keys[0], position[0]
    if value is None:
        found: list[Part] = [lambda p: f"{first.place} IS NULL AND {_behind(keys[1:], position[1:], p)}"]
        return [*found, lambda _p: f"{first.place} IS NOT NULL"] if first.nulls_first else found
    found = [lambda p: _bounded(keys, position, p)]
    return [*found, lambda _p: f"{first.place} IS NULL"] if first.nullable and not first.nulls_first else found


def _bounded(keys: Sequence[Key], position: Position, parameters: Parameters) -> str:
    """Behind a value that is not null, among the rows that have one: as a range where Postgres can search one."""
    first = keys[0]
    plain = all(k.descending == first.descending and not k.nullable for k in keys[1:])
    if plain:
        places = ", ".join(k.place for k in keys)
        values = ", ".join(k.given(v, parameters) for k, v in zip(keys, position, strict=True))
        return f"({places}) {'<' if first.descending else '>'} ({values})"
    sign = "<" if first.descending else ">"
    edge = f"{first.place} {sign}= {first.given(position[0], parameters)}"
    behind = f"{first.place} {sign} {first.given(position[0], parameters)}"
    return f"{edge} AND ({behind} OR {_behind(keys[1:], position[1:], parameters)})"


def _behind(keys: Sequence[Key], position: Position, parameters: Parameters) -> str:
    if not keys:
        return "false"
    past = keys[0].past(position[0], parameters)
    if len(keys) == 1:
        return past or "false"
    equal = f"({keys[0].same(position[0], parameters)} AND {_behind(keys[1:], position[1:], parameters)})"
    return f"({past} OR {equal})" if past else equal


def encode(keys: Sequence[Key], position: Position) -> str:
    """The cursor behind this row; an empty `position` stands for one that was too long to be sent.

    Raises:
        Unfit: a sort value is too long.
    """
    body = orjson.dumps([_signature(keys), list(position)])
    cursor = base64.urlsafe_b64encode(hashlib.sha256(body).digest()[:_DIGEST] + body).decode().rstrip("=")
    if len(cursor) > LONGEST or not position:
        raise Unfit("sort_too_long", "A value is too long to page by", "Sort by a column of short values, or by the key", field="body.sort")
    return cursor


def decode(keys: Sequence[Key], cursor: str | None) -> Position | None:
    """The position; None for the first page.

    Raises:
        Unfit: `invalid_cursor`.
    """
    if cursor is None:
        return None
    refused = Unfit("invalid_cursor", "The cursor is none of ours", "Take it from `next_cursor` of the page before, with the same sort")
    try:
        raw = base64.b64decode(cursor + "=" * (-len(cursor) % 4), altchars=b"-_", validate=True)
        digest, body = raw[:_DIGEST], raw[_DIGEST:]
        if hashlib.sha256(body).digest()[:_DIGEST] != digest:
            raise refused
        signature, position = _read(orjson.loads(body))
    except (ValueError, binascii.Error):
        raise refused from None
    if signature != _signature(keys) or len(position) != len(keys):
        raise refused
    if any(v is None and not k.nullable for k, v in zip(keys, position, strict=True)):
        raise refused
    return position


def _read(body: Any) -> tuple[str, list[str | None]]:
    match body:
        case [str(signature), [*position]] if all(v is None or isinstance(v, str) for v in position):
            return signature, position
        case _:
            raise ValueError("not a cursor")


def _signature(keys: Sequence[Key]) -> str:
    """Another sort, another cursor."""
    return hashlib.sha256("\0".join(f"{k.order} {k.type}" for k in keys).encode()).hexdigest()[:12]
