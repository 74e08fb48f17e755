"""Filters as SQL: names quoted, every value a parameter. Depth and size are bounded."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson
from loquat_common.sql import Ident
from loquat_rest.rows import AllOf, AnyOf, Condition, Filter, Not

from loquat_schema_manager.domain.values import TEXTS, Typed, Unfit, as_text, unfit

DEEPEST: Final = 10
MOST: Final = 100
"""Conditions of one filter."""
LISTED: Final = 1000
"""Values of one `in`."""
_LONGEST_SEARCHED: Final = 200_000  # characters of a row: to_tsvector refuses more than 1 MB of words
_COMPARED: Final = {"eq": "=", "ne": "<>", "lt": "<", "lte": "<=", "gt": ">", "gte": ">="}
_TEXT: Final = "pg_catalog.text"


class Parameters:
    """The values of a statement, in order."""

    def __init__(self) -> None:
        self.values: list[Any] = []

    def add(self, value: Any, type: str = _TEXT) -> str:
        """A value of a built-in type; its place in the SQL, with its type."""
        self.values.append(value)
        return f"${len(self.values)}::{type}"

    def typed(self, column: Typed, value: Any) -> str:
        """A value of a column's own type, which Postgres reads from its text."""
        return f"{self.add(as_text(column, value))}::{column.bare}"


class _Writer:
    def __init__(self, column: Callable[[str], Typed], parameters: Parameters, source: str) -> None:
        self._column, self._parameters, self._source = column, parameters, source
        self._count = 0

    def write(self, node: Filter, depth: int) -> str:
        if depth > DEEPEST:
            raise Unfit("filter_too_large", "The filter is too deep", f"{DEEPEST} levels are the limit", field="body.filter")
        match node:
            case AllOf():
                return self._joined(node.and_, " AND ", "true", depth)
            case AnyOf():
                return self._joined(node.or_, " OR ", "false", depth)
            case Not():
                return f"NOT {self.write(node.not_, depth + 1)}"
            case Condition():
                return self._condition(node)

    def _joined(self, nodes: list[Filter], word: str, nothing: str, depth: int) -> str:
        return f"({word.join(self.write(n, depth + 1) for n in nodes)})" if nodes else nothing

    def _condition(self, node: Condition) -> str:
        self._count += 1
        if self._count > MOST:
            raise Unfit("filter_too_large", "The filter has too many conditions", f"{MOST} are the limit", field="body.filter")
        column = self._column(node.column)
        if node.op not in {"is_null", "not_null"} and node.value is None:
            raise unfit(column, None, f"is not a value for {node.op}; is_null finds rows without one")
        place = f"{self._source}.{Ident(column.name)}"
        if node.path is not None:
            return self._inside(column, place, node, node.path)
        return self._whole(column, place, node)

    def _whole(self, column: Typed, place: str, node: Condition) -> str:  # noqa: PLR0911  (one per operator)
        p = self._parameters
        match node.op:
            case "is_null":
                return f"{place} IS NULL"
            case "not_null":
                return f"{place} IS NOT NULL"
            case "in" | "not_in":
                texts = [as_text(column, v) for v in _list(column, node)]
                return f"{place} {_MEMBER[node.op]}({p.add(texts, f'{_TEXT}[]')}::{column.bare}[])"
            case "like" | "ilike":
                text = place if column.bare in TEXTS else f"{place}::{_TEXT}"
                return f"{text} {node.op.upper()} {p.add(_pattern(column, node))}"
            case "contains":
                if column.bare != "jsonb" and not column.bare.endswith("[]"):
                    raise unfit(column, node.value, f"cannot be looked for inside {column.type}; contains is for jsonb and lists")
                return f"{place} @> {p.typed(column, node.value)}"
            case "jsonpath":
                return self._path_exists(column, place, node)
            case _:
                return f"{place} {_COMPARED[node.op]} {p.typed(column, node.value)}"

    def _path_exists(self, column: Typed, place: str, node: Condition) -> str:
        _jsonb(column)
        path = self._parameters.add(_pattern(column, node))
        return f"pg_catalog.jsonb_path_exists({place}, {path}::pg_catalog.jsonpath, '{{}}', true)"

    def _inside(self, column: Typed, place: str, node: Condition, path: list[str]) -> str:  # noqa: PLR0911  (one per operator)
        """Of a jsonb document: values are compared as JSON has them, numbers with numbers and texts with texts."""
        _jsonb(column)
        p = self._parameters
        at = p.add(path, f"{_TEXT}[]")
        whole, text = f"({place} #> {at})", f"({place} #>> {at})"
        match node.op:
            case "is_null":
                return f"{text} IS NULL"
            case "not_null":
                return f"{text} IS NOT NULL"
            case "eq" | "ne":
                return f"{whole} {_COMPARED[node.op]} {p.typed(column, node.value)}"
            case "in" | "not_in":
                texts = [as_text(column, v) for v in _list(column, node)]
                return f"{whole} {_MEMBER[node.op]}({p.add(texts, f'{_TEXT}[]')}::pg_catalog.jsonb[])"
            case "like" | "ilike":
                return f"{text} {node.op.upper()} {p.add(_pattern(column, node))}"
            case "contains":
                return f"{whole} @> {p.typed(column, node.value)}"
            case "jsonpath":
                return self._path_exists(column, whole, node)
            case _:
                return self._ordered(column, whole, text, node)

    def _ordered(self, column: Typed, whole: str, text: str, node: Condition) -> str:
        sign = _COMPARED[node.op]
        if isinstance(node.value, str):
            kind, cast, given = "string", "", self._parameters.add(node.value)
        elif isinstance(node.value, int | float) and not isinstance(node.value, bool):
            kind, cast = "number", "::pg_catalog.numeric"
            given = self._parameters.add(orjson.dumps(node.value).decode() if isinstance(node.value, float) else str(node.value)) + cast
        else:
            raise unfit(column, node.value, f"has no order; {node.op} takes a number or a string")
        return f"CASE WHEN pg_catalog.jsonb_typeof({whole}) = '{kind}' THEN {text}{cast} {sign} {given} END"


_MEMBER: Final = {"in": "= ANY ", "not_in": "<> ALL "}


def _list(column: Typed, node: Condition) -> list[Any]:
    if not isinstance(node.value, list) or None in node.value:
        raise unfit(column, node.value, f"is not a list of values, which {node.op} takes")
    if len(node.value) > LISTED:
        raise Unfit("filter_too_large", "The filter lists too many values", f"{LISTED} are the limit of {node.op}", column=column.name)
    return node.value


def _pattern(column: Typed, node: Condition) -> str:
    if not isinstance(node.value, str) or "\0" in node.value:
        raise unfit(column, node.value, f"is not a text, which {node.op} takes")
    return node.value


def _jsonb(column: Typed) -> None:
    if column.bare != "jsonb":
        raise Unfit("wrong_type", "Only a jsonb column has an inside", f"{column.name} is {column.type}", column=column.name)


def where(node: Filter | None, column: Callable[[str], Typed], parameters: Parameters, source: str = "t") -> str:
    """The condition in SQL; `true` for no filter. `column` finds a column by its name; `source` is the alias of the table.

    Raises:
        Unfit: a value does not fit, or the filter is too large.
    """
    return "true" if node is None else _Writer(column, parameters, source).write(node, 1)


def search(words: str | None, columns: list[Typed], parameters: Parameters, source: str = "t") -> str:
    """Rows with these words in any text column. Every text is a valid search: `websearch_to_tsquery` refuses none.

    Raises:
        Unfit: there is no text column.
    """
    if words is None:
        return "true"
    texts = [f"{source}.{Ident(c.name)}" for c in columns if c.bare in TEXTS]
    if not texts:
        raise Unfit("no_text_column", "The table has no text column to search in", field="body.search")
    if "\0" in words:
        raise Unfit("wrong_type", "The search has a NUL character", field="body.search")
    text = " || ' ' || ".join(f"coalesce({t}::pg_catalog.text, '')" for t in texts)
    document = f"pg_catalog.to_tsvector('pg_catalog.simple', pg_catalog.left({text}, {_LONGEST_SEARCHED}))"
    return f"{document} @@ pg_catalog.websearch_to_tsquery('pg_catalog.simple', {parameters.add(words)})"
