"""Versions, deployments, runs, logs, the ledger: asked by the gateway and by the provisioner."""

from __future__ import annotations

from typing import Annotated
from uuid import UUID

from aiohttp import web
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.port import BusUnavailable
from loquat_common.db import DatabaseAway
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api, Authenticate
from loquat_common.problems import Problem, not_found
from pydantic import BaseModel, Field, StringConstraints, model_validator

from loquat_bot_runner.adapters.deployments import Publisher
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.store import Deployment, LogLine, Run, Store
from loquat_bot_runner.domain.bundle import BundleRefused, checked

Message = Annotated[str, StringConstraints(max_length=500)]


class SaveVersion(BaseModel):
    """A bot's files by path."""

    files: dict[str, str] = Field(min_length=1)
    message: Message = ""


class Saved(BaseModel):
    """The version: sha-256 of the files, in hex."""

    version: str


class Deploy(BaseModel):
    """Files to save and deploy, or a version that was saved."""

    files: dict[str, str] | None = None
    version: Annotated[str, StringConstraints(pattern="^[0-9a-f]{64}$")] | None = None
    message: Message = ""

    @model_validator(mode="after")
    def _one_of_both(self) -> Deploy:
        if (self.files is None) == (self.version is None):
            raise ValueError("give files or a version, one of both")
        return self


class DeploymentList(BaseModel):
    """Newest first."""

    items: list[Deployment]


class RunList(BaseModel):
    """Newest first."""

    items: list[Run]


class LogList(BaseModel):
    """Newest first."""

    items: list[LogLine]


class Ledger(BaseModel):
    """P7: accepted = handled + held + expired + discarded + deferred + dead + waiting."""

    accepted: int
    handled: int
    held: int
    expired: int
    discarded: int
    deferred: int
    dead: int
    waiting: int


class _Project(BaseModel):
    project_id: str


class _Limit(BaseModel):
    limit: int = Field(default=50, ge=1, le=200)


class _RunPage(_Limit):
    before: UUID | None = None


class _LogPage(_Limit):
    before: int | None = Field(default=None, ge=1)


class Person(BaseModel):
    """Who is to be forgotten."""

    contact_id: UUID


class BotApi:
    """The internal API of this service."""

    def __init__(
        self, store: Store, publisher: Publisher, runs: ProjectRuns, letters: DeadLetters, directory: Directory, authenticate: Authenticate
    ) -> None:
        self._store, self._publisher, self._runs = store, publisher, runs
        self._letters, self._directory = letters, directory
        self.api = Api("Loquat bot-runner", "1", authenticate=authenticate, body_limit=3 << 20)
        base = "/internal/projects/{project_id}"
        self.api.route("POST", base + "/versions", self.save, summary="Save a version", status=201, scope="bots:write")
        self.api.route("POST", base + "/deployments", self.deploy, summary="Deploy", status=201, scope="bots:write")
        self.api.route("GET", base + "/deployments", self.deployments, summary="Deployments", scope="bots:read")
        self.api.route("GET", base + "/runs", self.runs, summary="Runs", scope="bots:read")
        self.api.route("GET", base + "/logs", self.logs, summary="Log lines", scope="bots:read")
        self.api.route("POST", base + "/people/forget", self.forget, summary="Forget what is kept of a person", scope="contacts:write")
        self.api.route("GET", base + "/ledger", self.ledger, summary="The ledger", scope="projects:read")

    async def save(self, request: web.Request, *, path: _Project, body: SaveVersion) -> Saved:
        """Saves without deploying."""
        return Saved(version=await self._save(path.project_id, body.files, request[ACTOR].subject, body.message))

    async def _save(self, project: str, files: dict[str, str], author: str, message: str) -> str:
        try:
            version = checked(files)
        except BundleRefused as refused:
            raise Problem(422, "bot_refused", "The bot cannot be deployed", refused.reason, file=refused.file, line=refused.line) from None
        if any("\0" in f for f in files.values()):
            raise Problem(422, "bot_refused", "The bot cannot be deployed", "a file holds a NUL character")
        await self._store.save(project, version, files, author, message)
        return version

    async def deploy(self, request: web.Request, *, path: _Project, body: Deploy) -> Deployment:
        """Points the project at a version."""
        by = request[ACTOR].subject
        version = body.version
        if body.files is not None:
            version = await self._save(path.project_id, body.files, by, body.message)
        if version is None or await self._store.files(path.project_id, version) is None:
            raise not_found("version")
        deployment = await self._store.deploy(path.project_id, version, by, body.message)
        try:
            await self._publisher.publish(deployment)
        except BusUnavailable:
            raise Problem(
                503, "bus_unavailable", "The deployment is noted, but the bus does not answer", "It takes effect when it does"
            ) from None
        return deployment

    async def deployments(self, _request: web.Request, *, path: _Project, query: _Limit) -> DeploymentList:
        """The history."""
        return DeploymentList(items=await self._store.deployments(path.project_id, query.limit))

    async def runs(self, _request: web.Request, *, path: _Project, query: _RunPage) -> RunList:
        """What the bot did."""
        return RunList(items=await self._store.runs(path.project_id, query.before, query.limit))

    async def logs(self, _request: web.Request, *, path: _Project, query: _LogPage) -> LogList:
        """What the bot said."""
        return LogList(items=await self._store.logs(path.project_id, query.before, query.limit))

    async def forget(self, _request: web.Request, *, path: _Project, body: Person) -> None:
        """Log lines, errors and traces of his events. It may be asked for again."""
        project = self._directory.get(path.project_id)
        if project is None:
            raise not_found("project")
        try:
            events = await self._runs.events_of(project, body.contact_id)
        except DatabaseAway:
            raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None
        await self._store.forget_events(path.project_id, events)

    async def ledger(self, _request: web.Request, *, path: _Project) -> Ledger:
        """Where every accepted event is. Rows first: an event that ends in between is then counted as done, never twice."""
        project = self._directory.get(path.project_id)
        if project is None:
            raise not_found("project")
        if project.state != "ready":
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {project.state}")
        rows = await self._letters.counts(path.project_id)
        try:
            marks = await self._runs.ledger(project)
        except DatabaseAway:
            raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None
        still = marks.pop("open")
        dead = min(rows["dead"], still)
        deferred = min(rows["deferred"], still - dead)
        return Ledger(**marks, deferred=deferred, dead=dead, waiting=still - dead - deferred)
