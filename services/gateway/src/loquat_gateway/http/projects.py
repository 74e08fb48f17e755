"""`/v1/projects`: ordered by topic, asked of the provisioner."""

from __future__ import annotations

import hashlib
import secrets
from collections.abc import Callable
from datetime import datetime
from typing import Any
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.client import InternalClient
from loquat_common.http import ACTOR, Api, idempotency_key
from loquat_common.problems import Problem
from loquat_events.envelope import Event, Payload
from loquat_events.ids import order_id
from loquat_events.projects import CreateProject, DeleteProject, ProjectName, RetryProject
from pydantic import BaseModel, ConfigDict, Field

from loquat_gateway.adapters.people import People
from loquat_gateway.http.access import Access
from loquat_gateway.http.views import OneProject, Page, Project, ProjectList


class NewProject(BaseModel):
    """A project to be made, with its database and its starter bot."""

    model_config = ConfigDict(str_strip_whitespace=True)  # what events say already is read as it is

    name: ProjectName


class Grace(BaseModel):
    """How long a deleted project's database is kept."""

    grace_seconds: int = Field(default=0, ge=0, le=30 * 86_400)


class ProjectsPage(Page):
    """A page of projects."""

    limit: int = Field(default=100, ge=1, le=200)


class Projects:
    """The resource `projects`."""

    def __init__(self, people: People, access: Access, provisioner: InternalClient, bus: Bus, clock: Callable[[], datetime]) -> None:
        self._people, self._access, self._provisioner = people, access, provisioner
        self._bus, self._clock = bus, clock

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.route("POST", "/v1/projects", self.create, summary="Create a project", status=202, scope="projects:write", errors=(409, 503))
        api.route("GET", "/v1/projects", self.list, summary="List projects", scope="projects:read", errors=(400,))
        api.route(
            "GET",
            "/v1/projects/{project_id}",
            self.get,
            summary="A project with its provisioning steps",
            scope="projects:read",
            errors=(404,),
        )
        api.route(
            "POST",
            "/v1/projects/{project_id}/retry",
            self.retry,
            summary="Go on with a failed creation",
            status=202,
            scope="projects:write",
            errors=(404,),
        )
        api.route(
            "DELETE",
            "/v1/projects/{project_id}",
            self.delete,
            summary="Delete a project",
            status=202,
            scope="projects:write",
            errors=(404,),
        )

    async def create(self, request: web.Request, *, body: NewProject) -> Project:
        """The order is durable first; then it is noted, so that the caller sees its project at once."""
        actor = request[ACTOR]
        if actor.organization is None:
            raise Problem(403, "forbidden", "This key belongs to no organization")
        key = idempotency_key(request)
        project = "prj_" + (hashlib.sha256(f"{actor.organization}\x1f{key}".encode()).hexdigest()[:16] if key else secrets.token_hex(8))
        order = CreateProject(project_id=project, organization_id=actor.organization, name=body.name, ordered_by=actor.subject)
        await self._order(order, project, order_id(project, "create"))
        requested = await self._people.request_project(project, actor.organization, body.name)
        if self._access.gone(requested):
            raise Problem(409, "project_deleted", "The project of this order was deleted", "Use another Idempotency-Key for a new one")
        await self._people.audit(actor.organization, actor.subject, "project.create", project)
        return Project.requested(requested.project_id, requested.organization, requested.name, requested.at)

    async def list(self, request: web.Request, *, query: ProjectsPage) -> ProjectList:
        """The organization's projects, newest first."""
        actor = request[ACTOR]
        asked = {"organization_id": actor.organization or "", **{k: str(v) for k, v in query.model_dump(exclude_none=True).items()}}
        return ProjectList.model_validate(await self._provisioner.call("GET", "/internal/projects", actor=actor, query=asked))

    async def get(self, request: web.Request, *, path: OneProject) -> Project:
        """One project."""
        actor = await self._access.project(request, path.project_id, asking=("projects:read",))
        try:
            shown = Project.model_validate(await self._provisioner.call("GET", f"/internal/projects/{path.project_id}", actor=actor))
        except Problem as problem:
            requested = await self._access.requested(path.project_id)
            if problem.status != web.HTTPNotFound.status_code or requested is None or self._access.known(path.project_id):
                raise
            return Project.requested(requested.project_id, requested.organization, requested.name, requested.at)
        # What this gateway has not heard of yet it would still refuse: it does not call it ready.
        usable = shown.status != "ready" or self._access.ready(path.project_id)
        return shown if usable else shown.model_copy(update={"status": "creating"})

    async def retry(self, request: web.Request, *, path: OneProject) -> Project:
        """Goes on where it failed."""
        actor = await self._access.project(request, path.project_id)
        await self._order(RetryProject(project_id=path.project_id, ordered_by=actor.subject), path.project_id, uuid4())
        return await self.get(request, path=path)

    async def delete(self, request: web.Request, *, path: OneProject, query: Grace) -> Project:
        """Its database goes after the grace."""
        actor = await self._access.project(request, path.project_id)
        shown = await self.get(request, path=path)
        order = DeleteProject(project_id=path.project_id, grace_seconds=query.grace_seconds, ordered_by=actor.subject)
        await self._order(order, path.project_id, order_id(path.project_id, "delete"))
        await self._people.audit(actor.organization or "", actor.subject, "project.delete", path.project_id)
        return shown.model_copy(update={"status": "deleting"})

    async def _order(self, order: Payload, project: str, key: UUID) -> None:
        event = Event[Payload].of(order, id=key, source="/gateway", time=self._clock(), project=project, lane="project")
        await publish(self._bus, event)


async def publish(bus: Bus, event: Any) -> None:
    """Publishes for a caller who waits.

    Raises:
        Problem: 503 when it is not known to be durable.
    """
    try:
        await bus.publish(event)
    except BusUnavailable:
        raise Problem(503, "unavailable", "The order cannot be kept now", "Send it again with the same Idempotency-Key") from None
