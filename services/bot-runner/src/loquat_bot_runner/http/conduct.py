"""How a project's bot behaves: kept in its own database, so that the next event's one round trip brings it along."""

from __future__ import annotations

from aiohttp import web
from loquat_common.db import DatabaseAway, WrongDatabase
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_events.projects import ProjectListed
from loquat_rest import botconduct as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.configurations import Configurations
from loquat_bot_runner.http.versions import BELOW


class ConductApi:
    """A change holds from the project's next event on, on every replica."""

    def __init__(self, configurations: Configurations, directory: Directory) -> None:
        self._configurations, self._directory = configurations, directory

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.CONDUCT, self.conduct, below=BELOW)
        api.serve(shapes.SET_CONDUCT, self.set, below=BELOW)

    async def conduct(self, _request: web.Request, *, path: OneProject) -> shapes.Conduct:
        """As it is set."""
        return await self._asked(self._ready(path.project_id), None)

    async def set(self, _request: web.Request, *, path: OneProject, body: shapes.Conduct) -> shapes.Conduct:
        """All of it."""
        return await self._asked(self._ready(path.project_id), body)

    async def _asked(self, project: ProjectListed, wanted: shapes.Conduct | None) -> shapes.Conduct:
        try:
            known = await self._configurations.conduct(project, wanted.model_dump() if wanted is not None else None)
        except (DatabaseAway, WrongDatabase):
            raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None
        return shapes.Conduct.model_validate({k: v for k, v in known.items() if k in shapes.Conduct.model_fields})

    def _ready(self, project_id: str) -> ProjectListed:
        listed = self._directory.get(project_id)
        if listed is None:
            raise not_found("project")
        if listed.state != "ready":
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {listed.state}")
        return listed
