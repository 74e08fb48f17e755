"""Questions about projects, from the gateway and from services."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

from aiohttp import web
from loquat_common.http import ACTOR, Api, Authenticate
from loquat_common.problems import Problem, not_found
from loquat_common.settings import ClusterAddress
from loquat_events.projects import ProjectState
from pydantic import BaseModel, Field

from loquat_provisioner.adapters.store import Project, Step, Store
from loquat_provisioner.domain.life import Login, Names


class StepView(BaseModel):
    """One step of a project's creation."""

    name: str
    status: str
    attempts: int
    started_at: datetime
    ended_at: datetime | None
    reason: str | None


class ProjectView(BaseModel):
    """A project as people see it."""

    id: str
    organization_id: str
    name: str
    status: ProjectState
    failing_step: str | None
    reason: str | None
    created_at: datetime
    ready_at: datetime | None
    steps: list[StepView]


class ProjectList(BaseModel):
    """Projects, newest first; `next_cursor` is null on the last page."""

    items: list[ProjectView]
    next_cursor: str | None


class Credentials(BaseModel):
    """How a project's login connects."""

    host: str
    port: int
    database: str
    user: str
    password: str = Field(repr=False)


class OfOrganization(BaseModel):
    """Whose projects, how many at most, behind which one: its row stays when a project is deleted, so a page can always go on."""

    organization_id: str
    limit: int = Field(default=100, ge=1, le=500)
    cursor: str | None = None


class OneProject(BaseModel):
    """A project in the path."""

    project_id: str


class OneLogin(OneProject):
    """One of its logins."""

    login: Login


class ProjectApi:
    """The internal API of this service."""

    def __init__(self, store: Store, clusters: Mapping[str, ClusterAddress], authenticate: Authenticate) -> None:
        self._store, self._clusters = store, clusters
        self.api = Api("Loquat provisioner", "1", authenticate=authenticate)
        self.api.route("GET", "/internal/projects", self.list, summary="Projects of an organization", scope="projects:read")
        self.api.route("GET", "/internal/projects/{project_id}", self.get, summary="A project with its steps", scope="projects:read")
        self.api.route(
            "GET",
            "/internal/projects/{project_id}/credentials/{login}",
            self.credentials,
            summary="A login's credentials",
            scope="credentials:read",
        )

    async def list(self, request: web.Request, *, query: OfOrganization) -> ProjectList:
        """Of the caller's own organization."""
        actor = request[ACTOR]
        if actor.kind == "user" and actor.organization != query.organization_id:
            raise not_found("organization")
        after = None if query.cursor is None else await self._store.get(query.cursor)
        if query.cursor is not None and (after is None or after.organization_id != query.organization_id):
            raise Problem(400, "invalid_cursor", "The cursor is none of ours", "Take it from `next_cursor` of the page before")
        found = await self._store.of_organization(query.organization_id, query.limit + 1, after)
        projects = found[: query.limit]
        steps = await self._store.steps([p.project_id for p in projects])
        more = len(found) > query.limit
        return ProjectList(items=[_view(p, steps[p.project_id]) for p in projects], next_cursor=projects[-1].project_id if more else None)

    async def get(self, request: web.Request, *, path: OneProject) -> ProjectView:
        """One project."""
        project, actor = await self._store.get(path.project_id), request[ACTOR]
        if project is None or project.state == "deleted" or (actor.kind == "user" and actor.organization != project.organization_id):
            raise not_found("project")
        return _view(project, (await self._store.steps([project.project_id]))[project.project_id])

    async def credentials(self, request: web.Request, *, path: OneLogin) -> Credentials:
        """For services alone: bot-runner gives a bot its own connection, schema-manager works as the editor."""
        actor = request[ACTOR]
        if actor.kind != "service" or (actor.subject, path.login) not in {("bot-runner", "bot"), ("schema-manager", "editor")}:
            raise Problem(403, "forbidden", "This service has no use for that login")
        project = await self._store.get(path.project_id)
        password = (await self._store.passwords(path.project_id)).get(path.login)
        if project is None or project.cluster is None or project.database is None or password is None:
            raise not_found("project")
        address = self._clusters[project.cluster]
        user = Names(project.database).login(path.login)
        return Credentials(host=address.host, port=address.port, database=project.database, user=user, password=password)


def _view(project: Project, steps: list[Step]) -> ProjectView:
    failing = next((s for s in steps if s.status == "failed"), None)
    return ProjectView(
        id=project.project_id,
        organization_id=project.organization_id,
        name=project.name,
        status=project.state,
        failing_step=failing.name if failing else None,
        reason=project.reason or (failing.reason if failing else None),
        created_at=project.created_at,
        ready_at=project.ready_at,
        steps=[
            StepView(name=s.name, status=s.status, attempts=s.attempts, started_at=s.started_at, ended_at=s.ended_at, reason=s.reason)
            for s in steps
        ],
    )
