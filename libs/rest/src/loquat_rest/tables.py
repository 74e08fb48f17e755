"""Shapes of the database API: tables."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, Field

from loquat_rest.names import Name
from loquat_rest.operation import OneProject, Operation

PAGE: Final = 500
"""Tables of one answer at most."""

Link = Literal["contact", "conversation", "message"]
"""What a link column's ids are of."""


class OneTable(OneProject):
    """A table in the path."""

    table: Name


class OneColumn(OneTable):
    """A column in the path."""

    column: Name


class OneIndex(OneTable):
    """An index in the path."""

    index: Name


class OneConstraint(OneTable):
    """A constraint in the path."""

    constraint: Name


class TableQuery(BaseModel):
    """A page of tables, by name."""

    limit: int = Field(default=200, ge=1, le=PAGE)
    after: Name | None = Field(default=None, description="the `next` of the page before")


class Reference(BaseModel):
    """What a column refers to."""

    constraint: str
    table: str
    column: str


class Column(BaseModel):
    """A column as it is."""

    name: str
    type: str = Field(description="one of the types of this API, such as varchar(20); else as PostgreSQL writes it, such as point")
    settable: bool = Field(description="the type is one of this API's; of another one values travel as text")
    nullable: bool
    default: str | None = Field(description="the expression, as PostgreSQL writes it; at most its first 2,000 characters")
    generated: bool = Field(description="the database alone writes it")
    primary_key: bool
    unique: bool = Field(description="alone, not together with others")
    references: Reference | None = Field(description="a foreign key of this column alone")
    link: Link | None = Field(description="its values are ids of contacts, conversations or messages; there is no foreign key")
    comment: str | None = Field(description="at most its first 2,000 characters")


class ForeignKey(BaseModel):
    """A foreign key; `columns` refer to `to_columns` of `to_table`, in this order."""

    name: str
    columns: list[str]
    to_table: str
    to_columns: list[str]
    on_delete: Literal["no_action", "restrict", "cascade", "set_null", "set_default"]


class Unique(BaseModel):
    """Columns that are unique together."""

    name: str
    columns: list[str]


class Index(BaseModel):
    """An index. One that a constraint made goes with the constraint."""

    name: str
    method: str
    unique: bool
    columns: list[str] = Field(description="columns, or expressions as PostgreSQL writes them")
    constraint: str | None
    valid: bool
    definition: str = Field(description="at most its first 2,000 characters")


class TableView(BaseModel):
    """A table, view or foreign table of schema public."""

    name: str
    kind: Literal["table", "partitioned table", "view", "materialized view", "foreign table"]
    system: bool = Field(description="the platform's; see `allowed`")
    allowed: str = Field(description="what one may do with it")
    comment: str | None = Field(description="at most its first 2,000 characters")
    rows: int | None = Field(description="PostgreSQL's estimate; null when it has none")
    size_bytes: int = Field(description="with indexes and large values")
    primary_key: list[str]
    columns: list[Column]
    unique: list[Unique]
    foreign_keys: list[ForeignKey]
    referenced_by: list[str] = Field(description="tables with foreign keys onto this one")
    indexes: list[Index]


class TableList(BaseModel):
    """Sorted by name. `next`: pass it as `after` for the next page; null on the last one. A page may end before its limit."""

    items: list[TableView]
    next: str | None


LIST: Final = Operation("GET", "/database/tables", "List tables", "database:read", query=TableQuery, answer=TableList)
DESCRIBE: Final = Operation(
    "GET", "/database/tables/{table}", "Describe a table", "database:read", at=OneTable, answer=TableView, errors=(404, 409)
)
OPERATIONS: Final[tuple[Operation, ...]] = (LIST, DESCRIBE)
