"""The internal API for dead letters, the same in every service that consumes."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated

from aiohttp import web
from pydantic import BaseModel, Field, StringConstraints

from loquat_common.bus.deferred import DeadLetter, DeadLetterDetail, DeadLetters
from loquat_common.http import Api
from loquat_common.problems import not_found

Number = Annotated[int, Field(ge=1, le=2**63 - 1)]
Discarded = Callable[[str, DeadLetterDetail], Awaitable[None]]


class _Project(BaseModel):
    project_id: str


class _One(_Project):
    letter_id: Number


class _Page(BaseModel):
    before: Number | None = None
    limit: int = Field(default=50, ge=1, le=200)


class Discard(BaseModel):
    """Why it is given up for good."""

    reason: Annotated[str, StringConstraints(min_length=1, max_length=500)]


class Lanes(BaseModel):
    """Lanes of the project: a person's addresses."""

    lanes: list[str] = Field(max_length=1000)


class Forgotten(BaseModel):
    """How many are gone."""

    forgotten: int


class DeadLetterList(BaseModel):
    """Dead letters, newest first."""

    items: list[DeadLetter]


class Redriven(BaseModel):
    """It is on its way to its consumer again."""

    redriven: bool = True


class DeadLetterApi:
    """`discarded` lets the service mark the event after an operator gave it up."""

    def __init__(self, letters: DeadLetters, discarded: Discarded | None = None) -> None:
        self._letters, self._discarded = letters, discarded

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        base = "/internal/projects/{project_id}/dead-letters"
        api.route("GET", base, self.list, summary="Dead letters", scope="dead-letters:read")
        api.route("GET", base + "/{letter_id}", self.show, summary="A dead letter", scope="dead-letters:read")
        api.route("POST", base + "/forget", self.forget, summary="Forget those of some lanes", scope="dead-letters:write")
        api.route("POST", base + "/{letter_id}/redrive", self.redrive, summary="Try again", status=202, scope="dead-letters:write")
        api.route("POST", base + "/{letter_id}/discard", self.discard, summary="Give up", scope="dead-letters:write")

    async def list(self, _request: web.Request, *, path: _Project, query: _Page) -> DeadLetterList:
        """A page of them."""
        return DeadLetterList(items=await self._letters.list(path.project_id, before=query.before, limit=query.limit))

    async def show(self, _request: web.Request, *, path: _One) -> DeadLetterDetail:
        """One of them with its event."""
        found = await self._letters.show(path.project_id, path.letter_id)
        if found is None:
            raise not_found("dead letter")
        return found

    async def redrive(self, _request: web.Request, *, path: _One) -> Redriven:
        """Gives it to its consumer again."""
        if not await self._letters.redrive(path.project_id, path.letter_id):
            raise not_found("dead letter")
        return Redriven()

    async def forget(self, _request: web.Request, *, path: _Project, body: Lanes) -> Forgotten:
        """Drops them with their events. Their markers are the caller's to set."""
        return Forgotten(forgotten=await self._letters.forget_lanes(path.project_id, body.lanes))

    async def discard(self, _request: web.Request, *, path: _One, body: Discard) -> None:
        """Ends it."""
        letter = await self._letters.show(path.project_id, path.letter_id)
        if letter is None or letter.state != "dead":
            raise not_found("dead letter")
        if self._discarded is not None:
            await self._discarded(path.project_id, letter)  # first the marker, then the row: a repeat does no harm
        await self._letters.discard(path.project_id, path.letter_id, body.reason)
