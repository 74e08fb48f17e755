"""Shapes of the database API: console."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, Field

from loquat_rest.operation import Operation

LONGEST: Final = 200_000
"""Characters of a script."""
STATEMENTS: Final = 100
"""Statements of a script."""
ROWS: Final = 10_000
"""Rows of one statement that can be asked for."""
BYTES: Final = 4 << 20
"""Bytes of one answer, as the database sends them."""
TIME_MS: Final = 30_000
"""Milliseconds of a script that can be asked for."""


class Script(BaseModel):
    """SQL for the console. It runs as the project's own role, in one transaction: all of it or nothing stays."""

    sql: str = Field(min_length=1, max_length=LONGEST, description=f"up to {STATEMENTS} statements, parted by semicolons")
    read_only: bool = Field(default=True, description="nothing is changed: the transaction may only read, and is rolled back")
    explain: Literal["plan", "analyze"] | None = Field(
        default=None, description="the plan of one statement instead of its rows; `analyze` runs the statement and takes it back"
    )
    limit: int = Field(default=1_000, ge=1, le=ROWS, description="rows of each statement at most; a SELECT is not run further")
    timeout_ms: int = Field(default=10_000, ge=1, le=TIME_MS, description="for all of it; whatever still runs then is ended")


class ResultColumn(BaseModel):
    """A column of a result. A domain shows as the type below it."""

    name: str
    type: str = Field(description="as Postgres writes it, such as `numeric(10,2)`")


class StatementResult(BaseModel):
    """What one statement gave."""

    line: int = Field(description="of the script, where the statement begins")
    command: str | None = Field(description="Postgres' command tag, such as `INSERT 0 3`; null where the rows were cut off")
    row_count: int | None = Field(description="rows that were given, changed or copied; null where the rows were cut off, or none can be")
    columns: list[ResultColumn] | None = Field(description="null where the statement gives no rows")
    rows: list[list[Any]] = Field(
        description="numbers of four bytes, booleans and JSON as themselves; timestamps with zone in ISO 8601; all else as Postgres' text"
    )
    truncated: bool = Field(description="whether there are more rows than the limit")


class Notice(BaseModel):
    """What the database had to say meanwhile. The first 100."""

    severity: str
    message: str


class ScriptResult(BaseModel):
    """What a script gave."""

    results: list[StatementResult]
    notices: list[Notice]
    transaction: Literal["committed", "rolled_back"]
    milliseconds: int


RUN: Final = Operation(
    "POST",
    "/database/sql",
    "Run SQL as the project's own role",
    "database:sql",
    body=Script,
    answer=ScriptResult,
    errors=(403, 404, 409),
    seconds=TIME_MS / 1000 + 10,
)
OPERATIONS: Final[tuple[Operation, ...]] = (RUN,)
