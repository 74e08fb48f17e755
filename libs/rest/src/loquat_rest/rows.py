"""Shapes of the database API: rows. How values stand in JSON: `docs/adr/0005-the-database-api.md`."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Discriminator, Field, JsonValue, Tag

from loquat_rest.operation import OneProject, Operation

MOST: Final = 500
"""Rows of a page."""
MOST_WRITTEN: Final = 1000
"""Rows of one insert or upsert; more is an import."""
_CURSOR: Final = 20_000  # characters; the sort values of one row are in it
_NAMES: Final = 1600  # columns that a table can have

Name = Annotated[str, Field(min_length=1, max_length=63)]
Cells = Annotated[dict[str, JsonValue], Field(max_length=_NAMES)]
Op = Literal[
    "eq", "ne", "lt", "lte", "gt", "gte", "in", "not_in", "like", "ilike", "is_null", "not_null", "contains", "jsonpath"
]  # fmt: skip


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", populate_by_name=True)


class InTable(OneProject):
    """A table or view of schema public."""

    table: str = Field(max_length=200)


class Condition(_Strict):
    """One column compared with a value. As in SQL, a null is neither equal nor unequal to anything."""

    column: str = Field(max_length=200)
    op: Op
    value: JsonValue = Field(default=None, description="a list for `in` and `not_in`; nothing for `is_null` and `not_null`")
    path: list[str] | None = Field(default=None, min_length=1, max_length=20, description="keys and positions inside a jsonb column")


class AllOf(_Strict):
    """Every one of them holds; of none: true."""

    and_: list[Filter] = Field(alias="and", max_length=100)


class AnyOf(_Strict):
    """At least one of them holds; of none: false."""

    or_: list[Filter] = Field(alias="or", max_length=100)


class Not(_Strict):
    """It does not hold. As in SQL: what is unknown because of a null stays unknown."""

    not_: Filter = Field(alias="not")


_WORDS: Final = {"and": "and", "and_": "and", "or": "or", "or_": "or", "not": "not", "not_": "not"}


def _kind(value: Any) -> str:
    if isinstance(value, dict):
        return next((_WORDS[w] for w in value if w in _WORDS), "condition")  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
    kinds: tuple[tuple[type[object], str], ...] = ((AllOf, "and"), (AnyOf, "or"), (Not, "not"))
    return next((word for kind, word in kinds if isinstance(value, kind)), "condition")


Filter = Annotated[
    Annotated[Condition, Tag("condition")] | Annotated[AllOf, Tag("and")] | Annotated[AnyOf, Tag("or")] | Annotated[Not, Tag("not")],
    Discriminator(_kind),
]
"""At most 10 deep and 100 conditions in all."""


class Sort(_Strict):
    """A column of the order. Without `nulls`: last when ascending, first when descending, as an index has them."""

    column: str = Field(max_length=200)
    direction: Literal["asc", "desc"] = "asc"
    nulls: Literal["first", "last"] | None = None


class Query(_Strict):
    """A page of rows. The order ends with the key, so that every row has its place."""

    filter: Filter | None = None
    sort: list[Sort] = Field(default=[], max_length=8)
    columns: list[str] | None = Field(default=None, min_length=1, max_length=_NAMES, description="which values; all of them if not said")
    search: str | None = Field(
        default=None, min_length=1, max_length=200, description="words in any text column, as in a search engine's box"
    )
    limit: int = Field(default=100, ge=1, le=MOST)
    cursor: str | None = Field(default=None, max_length=_CURSOR, description="`next_cursor` of the page before, with the same sort")
    count: bool = Field(default=False, description="also count what the filter and the search find, up to 100,000")


class FirstPage(BaseModel):
    """A page in the order of the key."""

    limit: int = Field(default=100, ge=1, le=MOST)
    cursor: str | None = Field(default=None, max_length=_CURSOR)


class Row(BaseModel):
    """A row."""

    key: Cells | None = Field(description="the primary key; null where there is none")
    version: str | None = Field(description="give it back with an update or a deletion; null for a view")
    values: Cells
    too_large: bool = Field(
        default=False, description="after a write: the row has too many bytes to be shown; `values` is empty, `key` may be null"
    )


class RowPage(BaseModel):
    """Rows in order. A page may end before its limit, after 8 MB: the cursor says whether there is more."""

    items: list[Row]
    next_cursor: str | None
    more: bool
    no_cursor: str | None = Field(default=None, description="why one cannot go on though there is more")
    count: int | None = None
    count_is_exact: bool | None = Field(default=None, description="false: there are more than `count`")


class Insert(_Strict):
    """Rows to add; a column that a row does not name gets its default. All or nothing."""

    rows: list[Cells] = Field(min_length=1, max_length=MOST_WRITTEN)


class Upsert(_Strict):
    """Rows to add, or to change where one with the same values of `on` is there: it gets the other columns of the given row."""

    rows: list[Cells] = Field(min_length=1, max_length=MOST_WRITTEN)
    on: list[Name] = Field(min_length=1, max_length=32, description="the columns of the primary key or of a unique constraint")


class Written(BaseModel):
    """The rows as they are now, with their defaults, in the order given."""

    items: list[Row]
    inserted: int
    updated: int


class Update(_Strict):
    """New values for one row, if it is still the one that was read."""

    key: Cells = Field(min_length=1)
    version: str = Field(pattern=r"^\d{1,10}$", description="as read")
    values: Cells = Field(min_length=1)


class Delete(_Strict):
    """One row. With a version: if it is still the one that was read."""

    key: Cells = Field(min_length=1)
    version: str | None = Field(default=None, pattern=r"^\d{1,10}$")


class DeleteMany(_Strict):
    """All rows that the filter and the search find. Without `expected` they are only counted; with it they go if there are as many."""

    filter: Filter | None = None
    search: str | None = Field(default=None, min_length=1, max_length=200)
    expected: int | None = Field(default=None, ge=0)


class Deleted(BaseModel):
    """How many rows there are to go, or have gone."""

    count: int
    deleted: bool


_TABLE: Final = "/database/tables/{table}"
_READ: Final = "database:read"
_WRITE: Final = "database:write"

FIRST: Final = Operation("GET", f"{_TABLE}/rows", "Rows in the order of the key", _READ, InTable, query=FirstPage, answer=RowPage)
QUERY: Final = Operation("POST", f"{_TABLE}/query", "Filter, search, sort and page rows", _READ, InTable, body=Query, answer=RowPage)
INSERT: Final = Operation("POST", f"{_TABLE}/rows", "Insert rows", _WRITE, InTable, body=Insert, answer=Written, status=201)
UPDATE: Final = Operation("PATCH", f"{_TABLE}/rows", "Change a row", _WRITE, InTable, body=Update, answer=Row)
DELETE: Final = Operation("DELETE", f"{_TABLE}/rows", "Delete a row", _WRITE, InTable, body=Delete)
DELETE_MANY: Final = Operation(
    "POST", f"{_TABLE}/rows/delete", "Count, then delete the rows that a filter finds", _WRITE, InTable, body=DeleteMany, answer=Deleted, seconds=60.0
)  # fmt: skip
UPSERT: Final = Operation(
    "POST", f"{_TABLE}/rows/upsert", "Insert rows, or change those that are there", _WRITE, InTable, body=Upsert, answer=Written
)
OPERATIONS: Final[tuple[Operation, ...]] = (FIRST, QUERY, INSERT, UPDATE, DELETE, DELETE_MANY, UPSERT)

for _model in (AllOf, AnyOf, Not, Query, DeleteMany):
    _model.model_rebuild()
