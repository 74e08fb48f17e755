"""People who are to be forgotten: what the send queue keeps of them."""

from __future__ import annotations

from aiohttp import web
from loquat_common.http import Api
from pydantic import BaseModel, Field

from loquat_connector.adapters.queue import SendQueue


class _Project(BaseModel):
    project_id: str


class Addresses(BaseModel):
    """A person's addresses, as messages are sent to them."""

    addresses: list[str] = Field(max_length=1000)


class PeopleApi:
    """Part of the internal API."""

    def __init__(self, queue: SendQueue) -> None:
        self._queue = queue

    def add_to(self, api: Api) -> None:
        """Adds the route."""
        path = "/internal/projects/{project_id}/people/forget"
        api.route("POST", path, self.forget, summary="Forget what is kept of a person", scope="contacts:write")

    async def forget(self, _request: web.Request, *, path: _Project, body: Addresses) -> None:
        """Texts and recipients of messages. It may be asked for again."""
        await self._queue.forget_people(path.project_id, body.addresses)
