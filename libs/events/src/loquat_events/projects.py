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
    """A change set was applied to the shape of a project's database. Names only, no values."""

    TYPE: ClassVar[str] = "schema.changed.v1"
    project_id: str
    change_set: UUID
    tables: tuple[str, ...] = Field(description="the tables that were made, changed or dropped, by their name after it")
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
