"""How a project's bot behaves: kept in its own database, so that the next event's one round trip brings it along."""

from __future__ import annotations

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_rest import botconduct as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.configurations import Configurations
from loquat_bot_runner.http.ready import ready
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
        return await self._asked(path.project_id, None)

    async def set(self, _request: web.Request, *, path: OneProject, body: shapes.Conduct) -> shapes.Conduct:
        """All of it."""
        return await self._asked(path.project_id, body)

    async def _asked(self, project_id: str, wanted: shapes.Conduct | None) -> shapes.Conduct:
        with ready(self._directory, project_id) as project:
            known = await self._configurations.conduct(project, wanted.model_dump() if wanted is not None else None)
        return shapes.Conduct.model_validate({k: v for k, v in known.items() if k in shapes.Conduct.model_fields})
