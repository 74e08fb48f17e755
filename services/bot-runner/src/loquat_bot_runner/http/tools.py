"""Tools that a version declares."""

from __future__ import annotations

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_events.projects import ProjectListed
from loquat_rest import bottools as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.pointer import DRAFT
from loquat_bot_runner.errors import CallFailed, ProjectDatabaseAway
from loquat_bot_runner.http.ready import ready
from loquat_bot_runner.http.versions import BELOW


class ToolsApi:
    """What is noted of a version, or heard of it when it is loaded for the first time."""

    def __init__(self, pointers: Pointers, versions: Versions, gate: Gate, store: Store, directory: Directory) -> None:
        self._pointers, self._versions, self._gate = pointers, versions, gate
        self._store, self._directory = store, directory

    def add_to(self, api: Api) -> None:
        """Adds the route."""
        api.serve(shapes.TOOLS, self.tools, below=BELOW)

    async def tools(self, _request: web.Request, *, path: OneProject, query: shapes.ToolsQuery) -> shapes.BotTools:
        """Of the deployed version, unless another is named."""
        with ready(self._directory, path.project_id) as project:
            try:
                version = await self._chosen(project, query.version)
                found = await self._gate.tools(project, version)
            except ProjectDatabaseAway:
                raise
            except CallFailed as failure:
                more = {"trace": failure.trace} if failure.trace else {}
                raise Problem(409, "does_not_load", "The bot does not load, so nobody knows its tools", failure.error, **more) from None
        items = [shapes.BotTool(name=t.name, description=t.description, parameters=dict(t.parameters)) for t in found]
        return shapes.BotTools(version=version, items=items)

    async def _chosen(self, project: ProjectListed, named: str | None) -> str:
        if named == DRAFT:
            return await self._store.draft(project.project_id)
        if named is not None:
            if await self._versions.one(project.project_id, named) is None:
                raise not_found("version")
            return named
        current = await self._pointers.current(project.project_id)
        if current is None:
            raise Problem(409, "nothing_deployed", "No bot is deployed", "Deploy one, or name a version or the draft with query.version")
        return current.version
