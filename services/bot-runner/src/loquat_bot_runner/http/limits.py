"""What a project's bot may take of the machine."""

from __future__ import annotations

from dataclasses import asdict

from aiohttp import web
from loquat_common.bounds import OutOfBounds
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api
from loquat_common.problems import invalid, not_found
from loquat_rest import botlimits as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.limits import ChosenLimits
from loquat_bot_runner.domain.limits import LEAST, BotLimits
from loquat_bot_runner.http.versions import BELOW


class LimitsApi:
    """A change holds from the next call on: the bot's process is replaced before it."""

    def __init__(self, limits: ChosenLimits, directory: Directory) -> None:
        self._limits, self._directory = limits, directory

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.LIMITS, self.limits, below=BELOW)
        api.serve(shapes.CHANGE_LIMITS, self.change, below=BELOW)

    async def limits(self, _request: web.Request, *, path: OneProject) -> shapes.BotLimitsView:
        """In force."""
        self._there(path.project_id)
        return self._view(await self._limits.of(path.project_id))

    async def change(self, request: web.Request, *, path: OneProject, body: shapes.BotLimitsChange) -> shapes.BotLimitsView:
        """All of it or nothing."""
        self._there(path.project_id)
        try:
            after = await self._limits.change(path.project_id, body.model_dump(exclude_unset=True), request[ACTOR].subject)
        except OutOfBounds as error:
            raise invalid(f"body.{error.field}", str(error)) from None
        return self._view(after)

    def _view(self, limits: BotLimits) -> shapes.BotLimitsView:
        return shapes.BotLimitsView(
            limits=_shape(limits), plan=_shape(self._limits.plan), most=_shape(self._limits.most), least=_shape(LEAST)
        )

    def _there(self, project: str) -> None:
        if self._directory.get(project) is None:
            raise not_found("project")


def _shape(limits: BotLimits) -> shapes.BotLimits:
    return shapes.BotLimits(**asdict(limits))
