"""Shapes of the database API: a database that its owner owns."""

from __future__ import annotations

from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field

from loquat_rest.operation import KEYED, OneProject, Operation

LoginKind = Literal["bot", "editor", "direct"]


class Limits(BaseModel):
    """What a project's database may take. The reaper of its cluster is who enforces it, each second; the size, each minute."""

    size_bytes: int = Field(
        description="of all tables and indexes; above it only the API reads and deletes (507 `over_limit` for the rest) until it is below 90 %"
    )
    bot_connections: int
    editor_connections: int = Field(description="the API's own: rows, tables, dumps")
    direct_connections: int
    statement_seconds: int = Field(description="a session whose statement runs longer is ended")
    transaction_seconds: int = Field(description="a session whose transaction is open longer is ended")


class LimitsView(BaseModel):
    """The limits in force, and how far they can be raised here."""

    limits: Limits
    most: Limits
    least: Limits


class LimitsChange(BaseModel):
    """What is left out stays as it is."""

    model_config = ConfigDict(extra="forbid")

    size_bytes: int | None = None
    bot_connections: int | None = None
    editor_connections: int | None = None
    direct_connections: int | None = None
    statement_seconds: int | None = None
    transaction_seconds: int | None = None


class TableUsage(BaseModel):
    """One table. The rows are what the statistics say, not a count."""

    name: str
    rows_estimate: int
    size_bytes: int | None = Field(description="with its indexes; null while somebody holds it locked")
    system: bool


class LoginUsage(BaseModel):
    """Connections of one login."""

    login: LoginKind
    connections: int
    limit: int
    share: float = Field(description="connections by limit: 1 is full")


class Usage(BaseModel):
    """How much there is, and how near the limits are."""

    size_bytes: int
    size_share: float = Field(description="size by limit: above 1 the project is closed at the next look")
    closed_for_size: bool = Field(
        description="over its size: bot and direct login are shut out, writes are refused (507); delete rows, clear or drop tables here, then all comes back"
    )
    rows_estimate: int
    tables: list[TableUsage] = Field(description="the 500 largest")
    logins: list[LoginUsage]
    limits: Limits


class Access(BaseModel):
    """The owner's direct connection, without its password: nobody here knows it."""

    exists: bool
    host: str | None = None
    port: int | None = None
    database: str | None = None
    user: str | None = None
    since: datetime | None = Field(default=None, description="when its password was made")


class NewAccess(BaseModel):
    """The owner's direct connection. The password is shown this once."""

    url: str = Field(description="postgresql://user:password@host:port/database")
    host: str
    port: int
    database: str
    user: str
    password: str
    since: datetime


class DumpQuery(BaseModel):
    """Which form."""

    format: Literal["custom", "plain"] = Field(default="custom", description="custom: for pg_restore; plain: SQL for psql")


class Restored(BaseModel):
    """What of an uploaded dump is there now."""

    objects: int
    tables: int
    left_out: int = Field(description="the system's tables and their rows, rights, schemas, extensions")


class NewBackup(BaseModel):
    """What to call it."""

    model_config = ConfigDict(extra="forbid")

    note: str | None = Field(default=None, max_length=200)


class Backup(BaseModel):
    """A point that the platform keeps: everything, system tables too."""

    id: UUID
    state: Literal["taking", "kept", "failed", "dropped"]
    note: str | None
    size_bytes: int | None
    reason: str | None = Field(description="why it could not be made")
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None


class BackupList(BaseModel):
    """Newest first, the 100 last. `most` are kept; the oldest goes when another is taken."""

    items: list[Backup]
    most: int


class OneBackup(OneProject):
    """A backup in the path."""

    backup_id: UUID


class Restore(BaseModel):
    """A return to a backup. The numbers that were attached stay; nothing of the past is sent again."""

    id: UUID
    backup_id: UUID
    state: Literal["running", "done", "failed"]
    epoch: int | None = Field(description="that begins with it; null while the order waits")
    reason: str | None
    ordered_by: str
    ordered_at: datetime
    ended_at: datetime | None


class RestoreList(BaseModel):
    """Newest first, the 100 last."""

    items: list[Restore]


class NewClone(BaseModel):
    """The name of the project that begins as a copy."""

    model_config = ConfigDict(extra="forbid", str_strip_whitespace=True)

    name: str = Field(min_length=1, max_length=100)


class CloneOrdered(BaseModel):
    """The new project: of the same organization, without a number, with nothing to send. `GET /v1/projects/{project_id}` shows its steps."""

    project_id: str


USAGE: Final = Operation("GET", "/database/usage", "Size, rows and connections", "database:read", answer=Usage, errors=(404, 409, 503))
LIMITS: Final = Operation("GET", "/database/limits", "The limits in force", "database:read", answer=LimitsView)
CHANGE_LIMITS: Final = Operation(
    "PATCH", "/database/limits", "Change limits", "database:own", body=LimitsChange, answer=LimitsView, errors=(404, 409, 503)
)
ACCESS: Final = Operation(
    "GET", "/database/access", "Whether there is a direct connection", "database:read", answer=Access, errors=(404, 409, 503)
)
GRANT: Final = Operation(
    "POST",
    "/database/access",
    "Make the direct connection URL, or a new password for it; ends its sessions",
    "database:own",
    answer=NewAccess,
    status=201,
    errors=(404, 409, 503),
)
REVOKE: Final = Operation(
    "DELETE", "/database/access", "Close the direct connection; ends its sessions", "database:own", errors=(404, 409, 503)
)
DUMP: Final = Operation(
    "GET",
    "/database/dump",
    "A dump by pg_dump: the project's own objects with their rows, and the rows of system tables",
    "database:own",
    query=DumpQuery,
    gives=("application/octet-stream", "application/sql"),
    errors=(404, 409, 429, 502, 503),
    seconds=90.0,
)
UPLOAD: Final = Operation(
    "POST",
    "/database/restore",
    "Restore an uploaded dump into a new project: its own objects, as its owner; all or nothing",
    "database:own",
    takes=("application/octet-stream",),
    answer=Restored,
    errors=(404, 408, 409, 413, 422, 429, 503),
    seconds=1900.0,
)
BACKUPS: Final = Operation("GET", "/database/backups", "List backups", "database:read", answer=BackupList, ready=False)
BACKUP: Final = Operation("GET", "/database/backups/{backup_id}", "One backup", "database:read", at=OneBackup, answer=Backup, ready=False)
TAKE: Final = Operation(
    "POST",
    "/database/backups",
    "Keep a copy of the database as it is; the project pauses for as long as that takes",
    "database:own",
    body=NewBackup,
    answer=Backup,
    status=202,
    headers=KEYED,
    errors=(404, 409, 503),
)
DROP: Final = Operation(
    "DELETE",
    "/database/backups/{backup_id}",
    "Forget a backup",
    "database:own",
    at=OneBackup,
    answer=Backup,
    status=202,
    errors=(404, 409, 503),
)
RESTORE: Final = Operation(
    "POST",
    "/database/backups/{backup_id}/restore",
    "Make the database what it was then; what came later is gone",
    "database:own",
    at=OneBackup,
    answer=Restore,
    status=202,
    ready=False,  # an order that is repeated while its restore runs
    headers=KEYED,
    errors=(404, 409, 503),
)
RESTORES: Final = Operation("GET", "/database/restores", "List restores", "database:read", answer=RestoreList, ready=False)
CLONE: Final = Operation(
    "POST",
    "/database/clone",
    "Make a new project that begins as a copy of this one's database",
    "database:own",
    body=NewClone,
    answer=CloneOrdered,
    status=202,
    headers=KEYED,
    errors=(404, 409, 503),
)
OPERATIONS: Final[tuple[Operation, ...]] = (
    USAGE,
    LIMITS,
    CHANGE_LIMITS,
    ACCESS,
    GRANT,
    REVOKE,
    DUMP,
    UPLOAD,
    BACKUPS,
    TAKE,
    BACKUP,
    DROP,
    RESTORE,
    RESTORES,
    CLONE,
)
