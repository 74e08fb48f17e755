"""People who are to be forgotten: what the send queue keeps of them."""

from __future__ import annotations

from collections.abc import Callable

from aiohttp import web
from loquat_common.http import Api
from pydantic import BaseModel, Field

from loquat_connector.adapters.people import ForgottenSends


class _Project(BaseModel):
    project_id: str


class Addresses(BaseModel):
    """A person's addresses, as messages are sent to them."""

    addresses: list[str] = Field(max_length=1000)


class PeopleApi:
    """Part of the internal API."""

    def __init__(self, sends: ForgottenSends, told: Callable[[], None]) -> None:
        self._sends, self._told = sends, told

    def add_to(self, api: Api) -> None:
        """Adds the route."""
        path = "/internal/projects/{project_id}/people/forget"
        api.route("POST", path, self.forget, summary="Forget what is kept of a person", scope="contacts:write")

    async def forget(self, _request: web.Request, *, path: _Project, body: Addresses) -> None:
        """Texts and recipients of messages; those that wait are not sent, and that is told. It may be asked for again."""
        await self._sends.forget_addresses(path.project_id, body.addresses)
        self._told()
