"""Shapes of the database API: import and export. Both are streams: nothing here has a size, but the project's own limits."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from loquat_rest.operation import Operation
from loquat_rest.rows import Filter, InTable

CSV: Final = "text/csv"
JSONL: Final = "application/x-ndjson"
LISTED: Final = 100
"""Bad lines that a report lists; the others are counted."""
Delimiter = Literal["comma", "semicolon", "tab", "pipe"]


class ExportOptions(BaseModel):
    """CSV as PostgreSQL writes it: null is nothing, an empty text is `""`. JSONL: an object per row, values as everywhere in this API."""

    format: Literal["csv", "jsonl"] = Field(
        default="csv",
        description="in JSONL a `jsonb` column that holds JSON's own null and one that is SQL's NULL are both `null`, which an import reads as SQL's;"
        " in CSV the one is `null` and the other is nothing, and both are imported as they were",
    )
    columns: list[str] | None = Field(default=None, min_length=1, max_length=1600)
    delimiter: Delimiter = "comma"
    for_spreadsheet: bool = Field(
        default=False,
        description="CSV for Excel and its like: a text that begins with = + - @, a tab or a line end gets a ' in front, or they would run it as a"
        " formula. Such a file cannot be imported again as it was",
    )


class ExportQuery(ExportOptions):
    """The rows that a filter and a search find, as those of a page do."""

    model_config = ConfigDict(extra="forbid")

    filter: Filter | None = None
    search: str | None = Field(default=None, min_length=1, max_length=200)


class ImportOptions(BaseModel):
    """How a file is read: UTF-8, lines end with a line feed, each MiB within 60 s.

    A CSV column that is empty and not quoted is null; a `null` of JSONL is SQL's NULL in a `jsonb` column too. `columns` names the columns of a CSV
    without a header.
    """

    mode: Literal["all_or_nothing", "best_effort"] = Field(
        default="all_or_nothing",
        description="`all_or_nothing`: one transaction, within the project's limit for one. `best_effort`: the good lines become rows as they come",
    )
    delimiter: Delimiter = "comma"
    header: bool = Field(default=True, description="whether the first line of a CSV names its columns")
    columns: list[str] | None = Field(default=None, min_length=1, max_length=1600)


class BadLine(BaseModel):
    """A line that is no row, and why."""

    line: int = Field(description="from 1, as an editor counts; where a record has several lines, its first one")
    code: str
    reason: str
    column: str | None = None
    value: str | None = None


class ImportReport(BaseModel):
    """What became of a file. With `all_or_nothing`, bad lines are a problem `import_refused` that lists them the same way, and nothing is there."""

    inserted: int
    bad: int = Field(description="lines that are no rows")
    bad_lines: list[BadLine] = Field(description=f"the first {LISTED} of them")
    stopped_at_line: int | None = Field(default=None, description="there were too many bad lines: nothing was read from here on")


_TABLE: Final = "/database/tables/{table}"
EXPORT: Final = Operation(
    "GET", f"{_TABLE}/export", "Export rows as CSV or JSONL", "database:read", InTable, query=ExportOptions, gives=(CSV, JSONL)
)
EXPORT_FOUND: Final = Operation(
    "POST",
    f"{_TABLE}/export",
    "Export the rows that a filter finds as CSV or JSONL",
    "database:read",
    InTable,
    body=ExportQuery,
    gives=(CSV, JSONL),
    errors=(404, 409, 422),
)
IMPORT: Final = Operation(
    "POST",
    f"{_TABLE}/import",
    "Import rows from CSV or JSONL",
    "database:write",
    InTable,
    query=ImportOptions,
    takes=(CSV, JSONL),
    answer=ImportReport,
    errors=(404, 408, 409, 415, 422, 429),
    seconds=120.0,
)
OPERATIONS: Final[tuple[Operation, ...]] = (EXPORT, EXPORT_FOUND, IMPORT)
