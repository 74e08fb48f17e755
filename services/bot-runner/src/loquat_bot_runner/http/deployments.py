"""Deployments: to everybody, to some, back again; what speaks against one; states."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

from aiohttp import web
from loquat_common.bus.port import BusUnavailable
from loquat_common.db import DatabaseAway, WrongDatabase
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_events.projects import ProjectListed
from loquat_rest import bots as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.canaries import Canaries
from loquat_bot_runner.adapters.deployments import Publisher
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.pointers import Deployment, Pointers, Step
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain import pointing
from loquat_bot_runner.domain.gate import INITIAL, Objection
from loquat_bot_runner.domain.pointer import DRAFT
from loquat_bot_runner.errors import ProjectDatabaseAway
from loquat_bot_runner.http.shelf import Shelf
from loquat_bot_runner.http.versions import BELOW

_AWAY = (DatabaseAway, WrongDatabase, ProjectDatabaseAway)


class DeploymentsApi:
    """The pointer, and every step that moves it."""

    def __init__(
        self,
        versions: Versions,
        pointers: Pointers,
        publisher: Publisher,
        canaries: Canaries,
        gate: Gate,
        shelf: Shelf,
        directory: Directory,
    ) -> None:
        self._versions, self._pointers, self._publisher, self._canaries = versions, pointers, publisher, canaries
        self._gate, self._shelf, self._directory = gate, shelf, directory
        self._asking = set[str]()

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.route("POST", BELOW + "/deployments", self.first, summary="Deploy the starter bot", status=201, scope="bots:write")
        for operation, handler in (
            (shapes.DEPLOY, self.deploy),
            (shapes.DEPLOYMENTS, self.list),
            (shapes.ROLLBACK, self.rollback),
            (shapes.PROMOTE, self.promote),
            (shapes.STOP, self.stop),
            (shapes.PAUSE, self.pause),
            (shapes.RESUME, self.resume),
            (shapes.TESTERS, self.testers),
            (shapes.STATUS, self.status),
            (shapes.STATES, self.states),
        ):
            api.serve(operation, handler, below=BELOW)

    async def first(self, request: web.Request, *, path: OneProject, body: shapes.Deploy) -> shapes.Deployment:
        """The provisioner's, while it makes the project."""
        return await self.deploy(request, path=path, body=body)

    async def deploy(self, request: web.Request, *, path: OneProject, body: shapes.Deploy) -> shapes.Deployment:
        """Points the project at a version, or a share of its contacts."""
        project, by = path.project_id, request[ACTOR].subject
        version = await self._version(project, body, by)

        def step(now: pointing.Here | None, at: Any) -> pointing.Pointing:
            if body.canary is None:
                return pointing.deployed(now, version)
            return pointing.tried(now, version, body.canary, at, opened=body.open)

        moves = body.canary is None or body.open
        forced = await self._passed(request, project, version, moves_conversations=moves, force=body.force)
        return await self._move(project, "deploy" if body.canary is None else "canary", step, by, body.message, forced)

    async def promote(self, request: web.Request, *, path: OneProject, body: shapes.Promote) -> shapes.Deployment:
        """The canary for everybody: now open conversations are its, too."""
        current = await self._pointers.current(path.project_id)
        forced: list[str] = []
        if current is not None and current.canary is not None:
            forced = await self._passed(request, path.project_id, current.canary.version, moves_conversations=True, force=body.force)

        def step(now: pointing.Here | None, _at: object) -> pointing.Pointing:
            seen = current.canary.version if current is not None and current.canary is not None else None
            if now is not None and now.canary is not None and now.canary.version != seen:
                raise pointing.CannotPoint("canary_changed", "the canary is another one by now")
            return pointing.promoted(now)

        return await self._move(path.project_id, "promote", step, request[ACTOR].subject, body.message, forced)

    async def stop(self, request: web.Request, *, path: OneProject, body: shapes.Why) -> shapes.Deployment:
        """The canary for nobody."""
        return await self._move(path.project_id, "stop", lambda now, _at: pointing.stopped(now), request[ACTOR].subject, body.message)

    async def rollback(self, request: web.Request, *, path: OneProject, body: shapes.Why) -> shapes.Deployment:
        """At once: nothing is asked, states that the older version does not know go to its fallback."""
        return await self._move(
            path.project_id, "rollback", lambda now, _at: pointing.rolled_back(now), request[ACTOR].subject, body.message
        )

    async def pause(self, request: web.Request, *, path: OneProject, body: shapes.Why) -> shapes.Deployment:
        """For nobody, whatever it is."""
        return await self._move(path.project_id, "pause", lambda now, _at: pointing.paused(now), request[ACTOR].subject, body.message)

    async def resume(self, request: web.Request, *, path: OneProject, body: shapes.Why) -> shapes.Deployment:
        """For all as before. What came meanwhile is not answered."""
        return await self._move(path.project_id, "resume", lambda now, _at: pointing.resumed(now), request[ACTOR].subject, body.message)

    async def testers(self, request: web.Request, *, path: OneProject, body: shapes.Testers) -> shapes.Deployment:
        """Test contacts."""
        for version in set(body.testers.values()) - {DRAFT}:
            if await self._versions.one(path.project_id, version) is None:
                raise not_found("version")
        chosen = {str(contact): version for contact, version in body.testers.items()}
        return await self._move(
            path.project_id, "testers", lambda now, _at: pointing.tested(now, chosen), request[ACTOR].subject, body.message
        )

    async def list(self, _request: web.Request, *, path: OneProject, query: shapes.DeploymentsQuery) -> shapes.DeploymentPage:
        """The history."""
        found = await self._pointers.history(path.project_id, query.cursor, query.limit + 1)
        items = [_deployment(d) for d in found[: query.limit]]
        return shapes.DeploymentPage(items=items, next_cursor=str(items[-1].id) if len(found) > query.limit else None)

    async def status(self, _request: web.Request, *, path: OneProject) -> shapes.BotStatus:
        """Where the pointer is."""
        current, newest = await self._pointers.current(path.project_id), await self._versions.newest(path.project_id)
        comparison = None
        if current is not None and current.canary is not None:
            canary, stable = await self._canaries.tallies(current)
            comparison = shapes.Comparison(
                canary=shapes.Tally(version=current.canary.version, **asdict(canary)),
                stable=shapes.Tally(version=current.version, **asdict(stable)),
            )
        answering = {current.version, current.canary.version if current.canary is not None else None} if current is not None else set[str]()
        return shapes.BotStatus(
            deployment=_deployment(current) if current is not None else None,
            paused=current is not None and current.paused,
            newest_version=newest,
            saved_not_deployed=newest is not None and newest not in answering,
            comparison=comparison,
        )

    async def states(self, _request: web.Request, *, path: OneProject) -> shapes.States:
        """Of the deployed version, and of open conversations."""
        project, current = self._ready(path.project_id), await self._pointers.current(path.project_id)
        try:
            used = await self._gate.in_use(project)
            declared = await self._gate.declared(project, current.version) if current is not None else ()
        except _AWAY as away:
            raise _away(away) from None
        known = {*declared, INITIAL}
        items = [shapes.State(state=s, declared=s in known, conversations=used.get(s, 0)) for s in sorted(known | used.keys())]
        unknown = [s.state for s in items if not s.declared]
        return shapes.States(version=current.version if current is not None else None, items=items, unknown=unknown)

    async def _version(self, project: str, body: shapes.Deploy, by: str) -> str:
        if body.files is not None:
            return (await self._shelf.save(project, body.files, author=by, message=body.message))[0]
        if body.draft:
            return (await self._shelf.save_draft(project, author=by, message=body.message))[0]
        if body.version is None or await self._versions.one(project, body.version) is None:
            raise not_found("version")
        return body.version

    async def _passed(self, request: web.Request, project: str, version: str, *, moves_conversations: bool, force: bool) -> list[str]:
        """Codes of what speaks against it and is overruled.

        A service deploys while it makes a project, which has no conversations and no tables yet: then nothing is asked.

        Raises:
            Problem: 409 `deployment_refused` with all reasons; 429 while another one is asked; 503 when nobody can know.
        """
        if request[ACTOR].kind == "service" and not self._is_ready(project):
            return []
        listed = self._ready(project)
        if project in self._asking:
            raise Problem(429, "busy", "Another deployment of this project is being checked", "One at a time: try again in a moment")
        self._asking.add(project)
        try:
            found = await self._gate.objections(listed, version, moves_conversations=moves_conversations)
        except _AWAY as away:
            if force:
                return ["unknown"]
            raise _away(away) from None
        finally:
            self._asking.discard(project)
        if found and not force:
            raise _refused(found)
        return [o.code for o in found]

    async def _move(
        self, project: str, kind: pointing.Kind, step: Step, by: str, message: str, forced: list[str] | None = None
    ) -> shapes.Deployment:
        try:
            deployment = await self._pointers.move(project, kind, step, by=by, message=message, forced=forced)
        except pointing.CannotPoint as refused:
            raise Problem(409, refused.code, "That is not possible from here", refused.reason) from None
        try:
            await self._publisher.publish(project)
        except BusUnavailable:
            raise Problem(
                503, "bus_unavailable", "The deployment is noted, but the bus does not answer", "It takes effect when it does"
            ) from None
        return _deployment(deployment)

    def _is_ready(self, project: str) -> bool:
        listed = self._directory.get(project)
        return listed is not None and listed.state == "ready"

    def _ready(self, project: str) -> ProjectListed:
        listed = self._directory.get(project)
        if listed is None:
            raise not_found("project")
        if listed.state != "ready":
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {listed.state}")
        return listed


def _deployment(row: Deployment) -> shapes.Deployment:
    canary = None
    if row.canary is not None:
        canary = {**row.canary.model_dump(), "percent": row.canary.steps[-1].percent}
    return shapes.Deployment.model_validate({**row.model_dump(exclude={"canary"}), "canary": canary})


def _refused(found: list[Objection]) -> Problem:
    reasons = [{k: v for k, v in asdict(o).items() if v} for o in found]
    for reason in reasons:
        if "states" in reason:
            reason["states"] = [{"state": state, "conversations": count} for state, count in reason["states"].items()]
    detail = "; ".join(o.detail for o in found)
    return Problem(409, "deployment_refused", "The bot was not deployed", detail, reasons=reasons, advice="Mend it, or deploy with force")


def _away(why: Exception) -> Problem:
    if isinstance(why, ProjectDatabaseAway):
        return Problem(503, "not_checked", "The bot cannot be checked now", f"{why.error}; try again in a moment")
    return Problem(503, "database_away", "The project's database does not answer", "Whether the bot fits it cannot be known; try again")
