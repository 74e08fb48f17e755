"""The internal API of this service: its parts, and the ledger."""

from __future__ import annotations

from aiohttp import web
from loquat_common.bus.deferred import DeadLetters
from loquat_common.db import DatabaseAway
from loquat_common.directory import Directory
from loquat_common.http import Api, Authenticate
from loquat_common.problems import Problem, not_found
from loquat_rest.operation import OneProject
from pydantic import BaseModel

from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.http.versions import BELOW


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


class BotApi:
    """The application to which parts add their routes."""

    def __init__(self, runs: ProjectRuns, letters: DeadLetters, directory: Directory, authenticate: Authenticate) -> None:
        self._runs, self._letters, self._directory = runs, letters, directory
        self.api = Api("Loquat bot-runner", "1", authenticate=authenticate, body_limit=3 << 20)
        self.api.route("GET", BELOW + "/ledger", self.ledger, summary="The ledger", scope="projects:read")

    async def ledger(self, _request: web.Request, *, path: OneProject) -> Ledger:
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
