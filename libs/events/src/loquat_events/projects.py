"""Projects: orders, facts, the directory."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal
from uuid import UUID

from pydantic import AwareDatetime, Field, StringConstraints

from loquat_events.envelope import Payload

ProjectName = Annotated[str, StringConstraints(min_length=1, max_length=100)]
ProjectState = Literal["creating", "ready", "failed", "deleting", "deleted"]


class CreateProject(Payload):
    """Make a project with its database and its starter bot."""

    TYPE: ClassVar[str] = "project.create.v1"
    project_id: str
    organization_id: str
    name: ProjectName
    ordered_by: str
    origin: UUID | None = Field(
        default=None, description="the copy of another project's database that it begins as, in place of the template"
    )


class RetryProject(Payload):
    """Go on with a project whose creation failed, at the step that failed."""

    TYPE: ClassVar[str] = "project.retry.v1"
    project_id: str
    ordered_by: str


class DeleteProject(Payload):
    """Delete a project; its database goes after the grace."""

    TYPE: ClassVar[str] = "project.delete.v1"
    project_id: str
    grace_seconds: int = Field(ge=0)
    ordered_by: str


class TakeBackup(Payload):
    """Keep a copy of the project's database as it is now. With `clone_id`: as the beginning of that new project, and then no longer."""

    TYPE: ClassVar[str] = "backup.take.v1"
    project_id: str
    backup_id: UUID
    note: str | None = None
    clone_id: str | None = None
    clone_name: ProjectName | None = None
    ordered_by: str


class RestoreBackup(Payload):
    """Make the project's database what it was when the backup was taken. The epoch is raised; nothing of the past is done again."""

    TYPE: ClassVar[str] = "backup.restore.v1"
    project_id: str
    restore_id: UUID
    backup_id: UUID
    ordered_by: str


class DropBackup(Payload):
    """Forget a backup."""

    TYPE: ClassVar[str] = "backup.drop.v1"
    project_id: str
    backup_id: UUID
    ordered_by: str


class BackupChanged(Payload):
    """A backup is kept, could not be made, or is gone. `reason` is for people."""

    TYPE: ClassVar[str] = "backup.changed.v1"
    project_id: str
    backup_id: UUID
    state: Literal["kept", "failed", "dropped"]
    reason: str | None = None
    actor: str
    at: AwareDatetime


class ProjectRestored(Payload):
    """A project's database is what it was when the backup was taken, from this epoch on; or that could not be done."""

    TYPE: ClassVar[str] = "project.restored.v1"
    project_id: str
    restore_id: UUID
    backup_id: UUID
    state: Literal["done", "failed"]
    epoch: int
    reason: str | None = None
    actor: str
    at: AwareDatetime


class ProjectStepped(Payload):
    """One step of a project's life ended."""

    TYPE: ClassVar[str] = "project.stepped.v1"
    project_id: str
    step: str
    status: Literal["done", "failed"]
    reason: str | None = None
    at: AwareDatetime


class ProjectReady(Payload):
    """The project's database is open and its starter bot deployed."""

    TYPE: ClassVar[str] = "project.ready.v1"
    project_id: str
    at: AwareDatetime


class ProjectFailed(Payload):
    """A step failed after its tries. `reason` is for people."""

    TYPE: ClassVar[str] = "project.failed.v1"
    project_id: str
    step: str
    reason: str
    at: AwareDatetime


class ProjectDeleted(Payload):
    """The project's database and roles are gone."""

    TYPE: ClassVar[str] = "project.deleted.v1"
    project_id: str
    at: AwareDatetime


class TemplateSealed(Payload):
    """A template database is built and sealed on a cluster; projects are cloned from it from now on."""

    TYPE: ClassVar[str] = "template.sealed.v1"
    cluster: str
    database: str
    schema_version: int
    at: AwareDatetime


class SchemaChanged(Payload):
    """The shape of a project's database changed, by a change set or the console's SQL. Names only, no values."""

    TYPE: ClassVar[str] = "schema.changed.v1"
    project_id: str
    change_set: UUID
    recorded: bool = Field(default=True, description="whether it is a change set that can be asked for; the console's SQL is none")
    tables: tuple[str, ...] = Field(
        description="the tables that were made or changed, by their name after it, and those that a change set dropped"
    )
    actor: str
    at: AwareDatetime


class TableChanged(Payload):
    """Rows of a project's own table changed: how many in all since the event before. A live view looks again. No values."""

    TYPE: ClassVar[str] = "table.changed.v1"
    project_id: str
    table: str
    count: int = Field(ge=1)
    actor: str = Field(description="the key that asked, or `bot`")
    at: AwareDatetime


class AccessChanged(Payload):
    """The owner's direct connection was made, got a new password, or was closed. No secrets."""

    TYPE: ClassVar[str] = "access.changed.v1"
    project_id: str
    open: bool
    actor: str
    at: AwareDatetime


class LimitsChanged(Payload):
    """The limits of a project's database are these now."""

    TYPE: ClassVar[str] = "limits.changed.v1"
    project_id: str
    size_bytes: int = Field(ge=1)
    connections: dict[str, int] = Field(description="by login: bot, editor, direct")
    statement_seconds: int = Field(ge=1)
    transaction_seconds: int = Field(ge=1)
    actor: str
    at: AwareDatetime


class ProjectListed(Payload):
    """The directory entry of a project: where its database is and in what state. No secrets. Compacted by project."""

    TYPE: ClassVar[str] = "project.listed.v1"
    project_id: str
    organization_id: str
    name: ProjectName
    state: ProjectState
    cluster: str | None = None
    database: str | None = None
    epoch: int = 1
