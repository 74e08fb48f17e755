"""Shapes of the database API: history."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import AwareDatetime, BaseModel, Field

from loquat_rest.operation import OneProject, Operation

PAGE: Final = 100
"""Changes of a page."""
KEPT: Final = 365
"""Days that a change is kept unless said otherwise."""
LONGEST: Final = 3_650
"""Days that a change can be kept."""


class HistoryOfTable(OneProject):
    """A table in the path."""

    table: str = Field(max_length=300)


class OneChange(HistoryOfTable):
    """A change of a row in the path."""

    change: str = Field(pattern=r"^[0-9]{1,18}$")


class HistorySwitch(BaseModel):
    """Whether changes of a table's rows are noted. What was noted stays when it is switched off, until its time is over, the table goes or it is forgotten."""

    enabled: bool
    keep_days: int | None = Field(
        default=None,
        ge=1,
        le=LONGEST,
        description=f"days after which a change is forgotten, within another day; not given: as it was, at first {KEPT}",
    )


class HistoryState(BaseModel):
    """Whether changes of a table's rows are noted."""

    table: str
    enabled: bool
    keep_days: int | None = Field(description="days that a change is kept; null where nothing was ever noted")


class HistoryQuery(BaseModel):
    """A page of changes, the newest first."""

    key: str | None = Field(default=None, max_length=20_000, description='of one row alone: its key as JSON, such as `{"id": "7"}`')
    limit: int = Field(default=50, ge=1, le=PAGE)
    cursor: str | None = Field(default=None, pattern=r"^[0-9]{1,18}$", description="`next_cursor` of the page before")


class Change(BaseModel):
    """A change of one row, or a TRUNCATE of all. Values as in rows, but arrays and composites as JSON."""

    id: str
    operation: Literal["insert", "update", "delete", "truncate"]
    at: AwareDatetime
    login: Literal["bot", "editor", "direct"] | None = Field(
        description="through which of the project's logins; the API and the console are `editor`"
    )
    claimed: str | None = Field(description="the key that asked, as the session said: SQL of the console may say anything")
    transaction: str = Field(description="the same for all changes of one transaction")
    undoes: str | None = Field(description="the change that this one took back")
    key: dict[str, Any] | None = Field(description="null where the table had no primary key")
    old: dict[str, Any] | None
    new: dict[str, Any] | None
    too_large: bool = Field(description="key and values are left out; the change can be undone all the same")


class Changes(BaseModel):
    """Changes, the newest first. A page may end before its limit: the cursor says whether there is more."""

    enabled: bool
    keep_days: int | None = Field(description="days that a change is kept; null where nothing was ever noted")
    items: list[Change]
    next_cursor: str | None


class Undone(BaseModel):
    """A change was taken back."""

    change: str | None = Field(description="the change that this made in turn; null while history is switched off")
    left_out: list[str] = Field(description="columns of then that the table has no more")


class ForgetQuery(BaseModel):
    """Which changes."""

    before: AwareDatetime


class Forgotten(BaseModel):
    """How many changes were forgotten."""

    count: int


_HISTORY: Final = "/database/tables/{table}/history"
SWITCH: Final = Operation(
    "PUT", _HISTORY, "Switch the history of rows on or off", "database:write", HistoryOfTable, body=HistorySwitch, answer=HistoryState
)
LIST: Final = Operation("GET", _HISTORY, "List changes of rows", "database:read", HistoryOfTable, query=HistoryQuery, answer=Changes)
UNDO: Final = Operation("POST", _HISTORY + "/{change}/undo", "Take one change back", "database:write", OneChange, answer=Undone)
FORGET: Final = Operation("DELETE", _HISTORY, "Forget old changes", "database:write", HistoryOfTable, query=ForgetQuery, answer=Forgotten)
OPERATIONS: Final[tuple[Operation, ...]] = (SWITCH, LIST, UNDO, FORGET)
