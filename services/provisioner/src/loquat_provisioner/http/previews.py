"""Throw-away copies of a project's database, for bot-runner, which tries bots out in them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from datetime import datetime
from typing import Final
from uuid import UUID

from aiohttp import web
from loquat_common.failpoints import Failpoints
from loquat_common.http import ACTOR, Api
from loquat_common.logs import get_logger
from loquat_common.problems import Problem, not_found
from loquat_common.settings import ClusterAddress
from pydantic import BaseModel, Field

from loquat_provisioner.adapters import throwaway
from loquat_provisioner.adapters.databases import ClusterRefused, ProjectDatabases
from loquat_provisioner.adapters.previews import MAKING, InTheWay, Preview, PreviewStore
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.adapters.throwaway import Clearing
from loquat_provisioner.domain.life import Names, StepFailed
from loquat_provisioner.http.places import BELOW, Places, answering

_LONGEST_REST: Final = 60.0  # seconds
_AT_ONCE: Final = 2  # copies that are made at the same time: each is a checkpoint's work for its cluster


class OneProject(BaseModel):
    """A project in the path."""

    project_id: str


class OnePreview(OneProject):
    """One of its previews."""

    preview_id: UUID


class NewPreview(BaseModel):
    """The caller's own id."""

    preview_id: UUID


class PreviewPlace(BaseModel):
    """Where the copy is, and how its bot connects."""

    cluster: str
    epoch: int
    host: str
    port: int
    database: str
    user: str
    password: str = Field(repr=False)
    expires_at: datetime


class Previews:
    """Part of the internal API. `largest`: bytes of a database that is still copied."""

    def __init__(
        self,
        places: Places,
        previews: PreviewStore,
        clusters: Mapping[str, ProjectDatabases],
        clearing: Clearing,
        failpoints: Failpoints,
        largest: int,
        rest: float = 5.0,
    ) -> None:
        """`rest`: times as long as its last copy took, a project waits for its next one: whoever asks for one after the other keeps no cluster busy."""
        self._rest, self._resting = rest, dict[str, float]()
        self._places, self._previews, self._clusters = places, previews, clusters
        self._clearing, self._failpoints, self._largest = clearing, failpoints, largest
        self._turns = asyncio.Semaphore(_AT_ONCE)

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        path, one = BELOW + "/previews", BELOW + "/previews/{preview_id}"
        api.route("POST", path, self.make, summary="Copy a project's database for a preview", status=201, scope="previews:write")
        api.route("POST", one + "/use", self.use, summary="Go on with a preview", scope="previews:write")
        api.route("DELETE", one, self.leave, summary="Throw a preview's copy away", scope="previews:write")
        api.route("DELETE", path, self.leave_all, summary="Throw all copies of a project away", scope="previews:write")

    async def make(self, request: web.Request, *, path: OneProject, body: NewPreview) -> PreviewPlace:
        """It takes the place of the project's last one. A minute at most."""
        _of_bot_runner(request)
        project, names, databases = await self._places.of(path.project_id)
        self._not_too_often(project.project_id)
        with answering():
            size = await throwaway.size(databases, names.database)
        if size > self._largest:
            raise Problem(
                409,
                "too_large",
                "The project's database is too large to be copied for a preview",
                f"It has {size} bytes, {self._largest} are the limit; with database: live the bot can be tried in the database itself",
                size_bytes=size,
                limit_bytes=self._largest,
            )
        try:
            preview = await self._previews.reserve(project, body.preview_id)
        except InTheWay as error:
            raise Problem(429, error.code, "There is no place for another preview now", str(error)) from None
        finally:
            self._clearing.soon()
        try:
            await self._made(project, preview)
        except BaseException:
            await asyncio.shield(self._previews.give_up(preview.preview_id))
            raise
        return self._view(preview)

    def _not_too_often(self, project: str) -> None:
        now = time.monotonic()
        self._resting = {p: until for p, until in self._resting.items() if until > now}
        if (left := self._resting.get(project, now) - now) > 0:
            raise Problem(
                429, "too_often", "That is one copy too soon", f"Go on with the preview that there is, or try again in {left:.1f} s"
            )

    async def _made(self, project: Project, preview: Preview) -> None:
        try:
            async with asyncio.timeout(MAKING), self._turns:
                began = time.monotonic()
                try:
                    with answering():
                        databases, password = self._clusters[preview.cluster], self._previews.password(preview)
                        await throwaway.make(databases, project, preview, password, 2 * self._largest, self._failpoints)
                finally:
                    now = time.monotonic()
                    self._resting[project.project_id] = now + min(self._rest * (now - began), _LONGEST_REST)
        except TimeoutError:
            raise Problem(504, "copy_too_slow", "The copy was not made in time", f"{MAKING:g} seconds are the limit; try again") from None
        except StepFailed as error:
            raise Problem(503, "database_busy", "The project's database cannot be copied now", str(error)) from None
        except ClusterRefused as error:
            get_logger().warning("preview.not_made", database=preview.database, error=type(error).__name__, sqlstate=error.sqlstate)
            raise Problem(503, "database_busy", "The project's database cannot be copied now", "Try again in a moment") from None
        if not await self._previews.ready(preview.preview_id):
            raise Problem(504, "copy_too_slow", "The copy was not made in time", "Try again")

    async def use(self, request: web.Request, *, path: OnePreview) -> PreviewPlace:
        """It stays for another while."""
        _of_bot_runner(request)
        await self._places.of(path.project_id)
        preview = await self._previews.use(path.project_id, path.preview_id)
        if preview is None:
            raise _gone()
        return self._view(preview)

    async def leave(self, request: web.Request, *, path: OnePreview) -> None:
        """It is dropped in a moment."""
        _of_bot_runner(request)
        if not await self._previews.leave(path.project_id, path.preview_id):
            raise not_found("preview")
        self._clearing.soon()

    async def leave_all(self, request: web.Request, *, path: OneProject) -> None:
        """For nobody's sake who uses one: a person is erased."""
        _of_bot_runner(request)
        await self._previews.leave_all(path.project_id)
        self._clearing.soon()

    def _view(self, preview: Preview) -> PreviewPlace:
        address: ClusterAddress = self._places.address(preview.cluster)
        return PreviewPlace(
            cluster=preview.cluster,
            epoch=preview.epoch,
            host=address.host,
            port=address.port,
            database=preview.database,
            user=Names(preview.database).login("bot"),
            password=self._previews.password(preview),
            expires_at=preview.used_at + self._previews.idle,
        )


def _of_bot_runner(request: web.Request) -> None:
    actor = request[ACTOR]
    if (actor.kind, actor.subject) != ("service", "bot-runner"):
        raise Problem(403, "forbidden", "Previews are bot-runner's affair")


def _gone() -> Problem:
    return Problem(404, "preview_gone", "The preview is gone", "It was thrown away, or nobody used it for a while; begin another one")
