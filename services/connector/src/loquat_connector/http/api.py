"""Numbers of projects: attach, list, detach, move."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated

from aiohttp import web
from loquat_common.http import Api, Authenticate
from loquat_common.problems import Problem, not_found
from pydantic import BaseModel, Field, StringConstraints

from loquat_connector.adapters import numbers
from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.numbers import Numbers

Identifier = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,80}$")]


class Attach(BaseModel):
    """A number with its token. `move_from` names the project that has it."""

    phone_number_id: Identifier
    waba_id: Identifier
    token: Annotated[str, StringConstraints(strip_whitespace=True, pattern=r"^[!-~]{1,2000}$")] = Field(repr=False)  # fits into a header
    display_phone_number: Annotated[str, StringConstraints(max_length=40)] | None = None
    move_from: str | None = None


class Number(BaseModel):
    """A number; never its token."""

    phone_number_id: str
    waba_id: str
    display_phone_number: str | None
    state: str
    attached_at: datetime | None


class NumberList(BaseModel):
    """A project's numbers."""

    items: list[Number]


class _Project(BaseModel):
    project_id: str


class _One(_Project):
    phone_number_id: Identifier


class Update(BaseModel):
    """An update of Meta's that names no person, raw as it came."""

    id: int
    waba_id: str
    number_id: str | None
    field: str
    raw: str
    received_at: datetime


class UpdateList(BaseModel):
    """Newest first."""

    items: list[Update]


class _Updates(BaseModel):
    before: int | None = Field(default=None, ge=1, le=2**63 - 1)
    limit: int = Field(default=50, ge=1, le=200)


class NumberApi:
    """The internal API of this service. `moving`: seconds a number that was let go is remembered."""

    def __init__(self, store: Numbers, accounts: Accounts, moving: float, changed: Callable[[], None], authenticate: Authenticate) -> None:
        self._store, self._accounts, self._moving, self._changed = store, accounts, moving, changed
        self.api = Api("Loquat connector", "1", authenticate=authenticate)
        base = "/internal/projects/{project_id}/numbers"
        self.api.route("POST", base, self.attach, summary="Attach a number", status=201, scope="numbers:write")
        self.api.route("GET", base, self.list, summary="A project's numbers", scope="numbers:read")
        self.api.route("DELETE", base + "/{phone_number_id}", self.detach, summary="Detach a number", scope="numbers:write")
        updates = "/internal/projects/{project_id}/account-updates"
        self.api.route("GET", updates, self.updates, summary="Meta's updates that name no person", scope="numbers:read")

    async def attach(self, _request: web.Request, *, path: _Project, body: Attach) -> Number:
        """At once if nobody has it; after a rest if it moves."""
        made = await self._store.attach(
            path.project_id, body.phone_number_id, body.waba_id, body.token, body.display_phone_number, move_from=body.move_from
        )
        if made is None:
            advice = "Detach it there first, or name that project in move_from (--move-from of `loquat number connect`)"
            raise Problem(409, "number_taken", "The number belongs to another project", advice)
        self._changed()
        return _view(made)

    async def list(self, _request: web.Request, *, path: _Project) -> NumberList:
        """All but those that are being let go."""
        return NumberList(items=[_view(n) for n in await self._store.of_project(path.project_id)])

    async def detach(self, _request: web.Request, *, path: _One) -> None:
        """Lets it go; what comes for it is kept."""
        if not await self._store.detach(path.project_id, path.phone_number_id, self._moving):
            raise not_found("number")
        self._changed()

    async def updates(self, _request: web.Request, *, path: _Project, query: _Updates) -> UpdateList:
        """Of its numbers and their accounts: quality, templates, reviews, and what nobody knows yet."""
        found = await self._accounts.of_project(path.project_id, query.before, query.limit)
        items = [
            Update(id=u.seq, waba_id=u.waba_id, number_id=u.number_id, field=u.field, raw=u.raw, received_at=u.received_at) for u in found
        ]
        return UpdateList(items=items)


def _view(number: numbers.Number) -> Number:
    return Number(
        phone_number_id=number.phone_number_id,
        waba_id=number.waba_id,
        display_phone_number=number.display_phone_number,
        state="parked" if number.state == "attached" and number.parked_until and number.parked_until > datetime.now(UTC) else number.state,
        attached_at=number.attached_at,
    )
