"""Shapes of the database API: changes of tables, many in one set or one at a time."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from loquat_rest.names import Name, NewName
from loquat_rest.operation import KEYED, OneProject, Operation
from loquat_rest.tables import Link, OneColumn, OneConstraint, OneIndex, OneTable

MOST: Final = 100
"""Changes of one set."""
COLUMNS: Final = 250
"""Columns of a new table in one request; PostgreSQL itself ends at 1,600."""
KEY: Final = 16
"""Columns of a key or an index; PostgreSQL itself ends at 32."""
SECONDS: Final = 90.0
"""A change set may take 60 s on the database (`Session`), and the record of it two more round trips."""

Type = Annotated[
    str,
    Field(max_length=40, description="text, varchar(n), integer, bigint, numeric(p,s), boolean, date, timestamptz, uuid, jsonb, serial"),
]
Comment = Annotated[str, Field(max_length=4000)]
OnDelete = Literal["no_action", "restrict", "cascade", "set_null"]


class _Strict(BaseModel):
    """A misspelt field of a change is a mistake, not a wish for the default."""

    model_config = ConfigDict(extra="forbid")


class Default(_Strict):
    """A column's default: a `value` of its type, or a `function` of Postgres'. jsonb takes any JSON value."""

    value: Any = None
    function: Literal["now", "today", "uuidv7", "uuidv4"] | None = None

    @model_validator(mode="after")
    def _one(self) -> Default:
        if ("value" in self.model_fields_set) == (self.function is not None):
            raise ValueError("a default is either a value or a function")
        return self


class Target(_Strict):
    """What a foreign key refers to: the table's primary key unless a `column` is named."""

    table: Name
    column: Name | None = None
    on_delete: OnDelete = "no_action"


class NewColumn(_Strict):
    """A column to be made."""

    name: NewName
    type: Type
    nullable: bool = True
    default: Default | None = None
    unique: bool = False
    references: Target | None = Field(default=None, description="a foreign key, with its index")
    link: Link | None = Field(default=None, description="a uuid column that holds ids of the platform's own tables, with its index")
    comment: Comment | None = None


class TableOptions(_Strict):
    """A table to be made. It gets a primary key `id` unless it has a column of this name, names another key, or `id` is `none`."""

    name: NewName
    columns: list[NewColumn] = Field(default=[], max_length=COLUMNS)
    id: Literal["uuid", "serial", "bigserial", "none"] = Field(default="uuid", description="uuid: version 7, made by the database")
    primary_key: list[Name] | None = Field(default=None, min_length=1, max_length=KEY)
    comment: Comment | None = None


class CreateTable(TableOptions):
    """A new table."""

    change: Literal["create_table"] = "create_table"


class _OnTable(_Strict):
    table: Name


class _OnColumn(_OnTable):
    column: Name


class RenameTable(_OnTable):
    """Another name."""

    change: Literal["rename_table"] = "rename_table"
    to: NewName


class DropTable(_OnTable):
    """The table and its rows are gone. What depends on it keeps it."""

    change: Literal["drop_table"] = "drop_table"


class ClearTable(_OnTable):
    """All rows are gone. `also`: tables that refer to it, to be cleared together with it."""

    change: Literal["clear_table"] = "clear_table"
    also: list[Name] = Field(default=[], max_length=20)
    restart_serials: bool = False


class CommentTable(_OnTable):
    """A comment; null takes it away."""

    change: Literal["comment_table"] = "comment_table"
    comment: Comment | None


class AddColumn(_OnTable):
    """A new column."""

    change: Literal["add_column"] = "add_column"
    column: NewColumn


class RenameColumn(_OnColumn):
    """Another name."""

    change: Literal["rename_column"] = "rename_column"
    to: NewName


class AlterType(_OnColumn):
    """Another type. Refused with a count and a sample when rows do not cast; `lossy`: digits are rounded and text is cut instead."""

    change: Literal["alter_type"] = "alter_type"
    type: Type
    lossy: bool = False


class DropColumn(_OnColumn):
    """The column and its values are gone."""

    change: Literal["drop_column"] = "drop_column"


class SetDefault(_OnColumn):
    """A default; null takes it away."""

    change: Literal["set_default"] = "set_default"
    default: Default | None


class SetNotNull(_OnColumn):
    """Whether a value must be there."""

    change: Literal["set_not_null"] = "set_not_null"
    not_null: bool = True


class CommentColumn(_OnColumn):
    """A comment; null takes it away. A link stays one."""

    change: Literal["comment_column"] = "comment_column"
    comment: Comment | None


class SetLink(_OnColumn):
    """Marks a uuid column as holding ids of contacts, conversations or messages; null takes the mark away."""

    change: Literal["set_link"] = "set_link"
    link: Link | None


class SetPrimaryKey(_OnTable):
    """The primary key of a table that has none."""

    change: Literal["set_primary_key"] = "set_primary_key"
    columns: list[Name] = Field(min_length=1, max_length=KEY)


class AddUnique(_OnTable):
    """Columns that are unique together."""

    change: Literal["add_unique"] = "add_unique"
    columns: list[Name] = Field(min_length=1, max_length=KEY)
    name: NewName | None = None


class AddForeignKey(_OnTable):
    """A foreign key to another table of the project; its columns get an index unless they have one."""

    change: Literal["add_foreign_key"] = "add_foreign_key"
    columns: list[Name] = Field(min_length=1, max_length=KEY)
    to_table: Name
    to_columns: list[Name] | None = Field(default=None, min_length=1, max_length=KEY, description="the primary key unless named")
    on_delete: OnDelete = "no_action"
    name: NewName | None = None


class DropConstraint(_OnTable):
    """A primary key, unique, foreign key or check goes."""

    change: Literal["drop_constraint"] = "drop_constraint"
    constraint: Name


class IndexOptions(_Strict):
    """An index to be made. `gin` is for one jsonb column."""

    columns: list[Name] = Field(min_length=1, max_length=KEY)
    descending: list[Name] = Field(default=[], max_length=KEY, description="of `columns`, those that are sorted the other way round")
    method: Literal["btree", "gin"] = "btree"
    unique: bool = False
    name: NewName | None = None


class CreateIndex(IndexOptions):
    """A new index. Writers wait while it is built."""

    change: Literal["create_index"] = "create_index"
    table: Name


class DropIndex(_OnTable):
    """An index goes."""

    change: Literal["drop_index"] = "drop_index"
    index: Name


Change = (
    CreateTable
    | RenameTable
    | DropTable
    | ClearTable
    | CommentTable
    | AddColumn
    | RenameColumn
    | AlterType
    | DropColumn
    | SetDefault
    | SetNotNull
    | CommentColumn
    | SetLink
    | SetPrimaryKey
    | AddUnique
    | AddForeignKey
    | DropConstraint
    | CreateIndex
    | DropIndex
)


class ChangeRequest(_Strict):
    """Changes that belong together: all or nothing, in this order."""

    changes: list[Annotated[Change, Field(discriminator="change")]] = Field(min_length=1, max_length=MOST)
    dry_run: bool = Field(default=False, description="does everything and takes it back")
    force: bool = Field(default=False, description="also what holds a large table up for long, or loses what a revert would lose")
    message: str | None = Field(default=None, max_length=500, description="why, for people")


class Statement(BaseModel):
    """One statement, and what it does to those who work on the table."""

    change: int = Field(description="the change it belongs to, counted from 0")
    sql: str
    tables: list[str] = Field(description="that are locked until the end of the set")
    lock: str | None = Field(description="the strongest lock, in PostgreSQL's words; null when no table that was there is locked")
    blocks: Literal["nothing", "writes", "everything"] = Field(description="what others wait with meanwhile")
    rewrites: bool = Field(description="every row is written anew")
    scans: bool = Field(description="every row is read")
    rows: int | None = Field(description="rows touched: counted, for a large table estimated; null when none are")


class Failure(BaseModel):
    """What would fail. `code`, `title` and `detail` are those of the problem."""

    model_config = ConfigDict(extra="allow")

    change: int
    code: str
    title: str
    detail: str | None = None


class ChangeSet(BaseModel):
    """A change set.

    `state`: `dry_run`; `applying` (or nobody knows yet; it is looked into); `applied`; `failed` (broken off before it took effect);
    `unknown` (broken off, and the database was replaced before anybody could look).
    """

    id: UUID | None = Field(description="null for a dry run, which is not recorded")
    state: Literal["dry_run", "applying", "applied", "failed", "unknown"]
    actor: str
    message: str | None
    created_at: datetime
    applied_at: datetime | None
    tables: list[str] = Field(description="made, changed or dropped, by their name after it")
    statements: list[Statement]
    reverse: list[str] | None = Field(description="the statements that undo it; null when it cannot be undone")
    irreversible: str | None = Field(description="why it cannot be undone")
    reverts: UUID | None = Field(description="the set that this one undid")
    reverted_by: UUID | None
    failures: list[Failure] = Field(description="of a dry run")


class ChangeSetList(BaseModel):
    """Newest first; `next_cursor` is null on the last page. The last 1,000 of a project are kept; large ones end a page before its limit."""

    items: list[ChangeSet]
    next_cursor: str | None


class ChangeSetQuery(BaseModel):
    """A page: `cursor` is the `next_cursor` of the page before."""

    limit: int = Field(default=50, ge=1, le=200)
    cursor: str | None = Field(default=None, max_length=200)


class OneChangeSet(OneProject):
    """A change set in the path."""

    change_set: UUID


class Manner(BaseModel):
    """How a single change is made; see `ChangeRequest`."""

    dry_run: bool = False
    force: bool = False


class TablePatch(_Strict):
    """What is given changes."""

    name: NewName | None = None
    comment: Comment | None = None


class ColumnPatch(_Strict):
    """What is given changes, in the order: type, default, not null, unique, link, comment, name."""

    name: NewName | None = None
    type: Type | None = None
    lossy: bool = False
    default: Default | None = None
    nullable: bool | None = None
    unique: Literal[True] | None = Field(default=None, description="to end it, drop the constraint")
    link: Link | None = None
    comment: Comment | None = None


class ClearOptions(_Strict):
    """See `ClearTable`."""

    also: list[Name] = Field(default=[], max_length=20)
    restart_serials: bool = False


class KeyOptions(_Strict):
    """Columns of a key."""

    columns: list[Name] = Field(min_length=1, max_length=KEY)


class UniqueOptions(KeyOptions):
    """See `AddUnique`."""

    name: NewName | None = None


class ForeignKeyOptions(UniqueOptions):
    """See `AddForeignKey`."""

    to_table: Name
    to_columns: list[Name] | None = Field(default=None, min_length=1, max_length=KEY)
    on_delete: OnDelete = "no_action"


class RevertRequest(_Strict):
    """How a change set is undone."""

    dry_run: bool = False
    force: bool = Field(default=False, description="also when rows or values that came since are lost")
    message: str | None = Field(default=None, max_length=500)


def _one(
    method: Literal["POST", "PUT", "PATCH", "DELETE"], path: str, summary: str, at: type[BaseModel], body: type[BaseModel] | None = None
) -> Operation:
    return Operation(
        method,
        path,
        summary,
        "database:write",
        at=at,
        query=Manner,
        body=body,
        answer=ChangeSet,
        errors=(403, 404, 409, 503),
        headers=KEYED,
        seconds=SECONDS,
    )


APPLY: Final = Operation(
    "POST",
    "/database/changes",
    "Change tables: all or nothing",
    "database:write",
    body=ChangeRequest,
    answer=ChangeSet,
    errors=(403, 404, 409, 503),
    headers=KEYED,
    seconds=SECONDS,
)
HISTORY: Final = Operation("GET", "/database/changes", "List change sets", "database:read", query=ChangeSetQuery, answer=ChangeSetList)
ONE: Final = Operation("GET", "/database/changes/{change_set}", "Show a change set", "database:read", at=OneChangeSet, answer=ChangeSet)
REVERT: Final = Operation(
    "POST",
    "/database/changes/{change_set}/revert",
    "Undo a change set",
    "database:write",
    at=OneChangeSet,
    body=RevertRequest,
    answer=ChangeSet,
    errors=(403, 404, 409, 503),
    seconds=SECONDS,
)
CREATE_TABLE: Final = _one("POST", "/database/tables", "Create a table", OneProject, TableOptions)
PATCH_TABLE: Final = _one("PATCH", "/database/tables/{table}", "Rename a table, or comment it", OneTable, TablePatch)
DROP_TABLE: Final = _one("DELETE", "/database/tables/{table}", "Drop a table", OneTable)
CLEAR_TABLE: Final = _one("POST", "/database/tables/{table}/clear", "Delete all rows of a table", OneTable, ClearOptions)
ADD_COLUMN: Final = _one("POST", "/database/tables/{table}/columns", "Add a column", OneTable, NewColumn)
PATCH_COLUMN: Final = _one("PATCH", "/database/tables/{table}/columns/{column}", "Change a column", OneColumn, ColumnPatch)
DROP_COLUMN: Final = _one("DELETE", "/database/tables/{table}/columns/{column}", "Drop a column", OneColumn)
SET_KEY: Final = _one("PUT", "/database/tables/{table}/primary-key", "Set the primary key", OneTable, KeyOptions)
ADD_UNIQUE: Final = _one("POST", "/database/tables/{table}/unique", "Make columns unique", OneTable, UniqueOptions)
ADD_REFERENCE: Final = _one("POST", "/database/tables/{table}/foreign-keys", "Add a foreign key", OneTable, ForeignKeyOptions)
DROP_CONSTRAINT: Final = _one("DELETE", "/database/tables/{table}/constraints/{constraint}", "Drop a key or a check", OneConstraint)
CREATE_INDEX: Final = _one("POST", "/database/tables/{table}/indexes", "Create an index", OneTable, IndexOptions)
DROP_INDEX: Final = _one("DELETE", "/database/tables/{table}/indexes/{index}", "Drop an index", OneIndex)
OPERATIONS: Final[tuple[Operation, ...]] = (
    APPLY,
    HISTORY,
    ONE,
    REVERT,
    CREATE_TABLE,
    PATCH_TABLE,
    DROP_TABLE,
    CLEAR_TABLE,
    ADD_COLUMN,
    PATCH_COLUMN,
    DROP_COLUMN,
    SET_KEY,
    ADD_UNIQUE,
    ADD_REFERENCE,
    DROP_CONSTRAINT,
    CREATE_INDEX,
    DROP_INDEX,
)
