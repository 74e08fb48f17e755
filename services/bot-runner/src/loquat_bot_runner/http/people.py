"""People who are to be forgotten: what this service keeps of their events."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from uuid import UUID

from aiohttp import web
from loquat_common.db import DatabaseAway
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_rest.operation import OneProject
from pydantic import BaseModel

from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.http.versions import BELOW


class Person(BaseModel):
    """Who is to be forgotten."""

    contact_id: UUID


class PeopleApi:
    """Part of the internal API. `drop_copies`: those of a project's database that previews have."""

    def __init__(self, store: Store, runs: ProjectRuns, directory: Directory, drop_copies: Callable[[str], Awaitable[None]]) -> None:
        self._store, self._runs, self._directory, self._drop_copies = store, runs, directory, drop_copies

    def add_to(self, api: Api) -> None:
        """Adds the route."""
        api.route("POST", BELOW + "/people/forget", self.forget, summary="Forget what is kept of a person", scope="contacts:write")

    async def forget(self, _request: web.Request, *, path: OneProject, body: Person) -> None:
        """Log lines, errors and traces of his events, timers of his conversations, copies of the database he is in. It may be asked for again."""
        project = self._directory.get(path.project_id)
        if project is None:
            raise not_found("project")
        try:
            events = await self._runs.events_of(project, body.contact_id)
            conversations = await self._runs.conversations_of(project, body.contact_id)
        except DatabaseAway:
            raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None
        await self._store.forget_events(path.project_id, events)
        await self._store.forget_timers(path.project_id, conversations)
        await self._drop_copies(path.project_id)
