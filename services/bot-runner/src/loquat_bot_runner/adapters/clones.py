"""Throw-away copies of projects' databases, asked of the provisioner; and the logins by which bots reach them."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loquat_common.client import InternalClient
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.credentials import Credentials, Login

_MAKING: Final = 70.0  # seconds: the provisioner's own limit and its answer
_SCOPE: Final = "previews:write"


@dataclass(frozen=True, slots=True)
class Clone:
    """The project as it stands in its copy, and how its bot gets in."""

    project: ProjectListed
    login: Login
    expires_at: datetime


class Clones:
    """Its problems are the provisioner's, for people: `too_large`, `preview_gone`, `database_busy`, ..."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client

    async def make(self, project: ProjectListed, preview: UUID) -> Clone:
        """One that is new; the project's last one goes.

        Raises:
            Problem: there is none to be had.
        """
        path = f"/internal/projects/{project.project_id}/previews"
        actor = self._client.itself(_SCOPE)
        return _clone(project, await self._client.call("POST", path, actor=actor, json={"preview_id": str(preview)}, timeout=_MAKING))

    async def use(self, project: ProjectListed, preview: UUID) -> Clone:
        """One that was made before.

        Raises:
            Problem: 404 `preview_gone`; another.
        """
        path = f"/internal/projects/{project.project_id}/previews/{preview}/use"
        return _clone(project, await self._client.call("POST", path, actor=self._client.itself(_SCOPE)))

    async def drop(self, project: str, preview: UUID) -> None:
        """It goes.

        Raises:
            Problem: 404; another.
        """
        path = f"/internal/projects/{project}/previews/{preview}"
        await self._client.call("DELETE", path, actor=self._client.itself(_SCOPE))

    async def drop_all(self, project: str) -> None:
        """All of a project go.

        Raises:
            Problem: nobody knows.
        """
        await self._client.call("DELETE", f"/internal/projects/{project}/previews", actor=self._client.itself(_SCOPE))


def _clone(project: ProjectListed, answer: Any) -> Clone:
    place = {"cluster": answer["cluster"], "database": answer["database"], "epoch": answer["epoch"]}
    login = Login(answer["host"], answer["port"], answer["database"], answer["user"], answer["password"])
    return Clone(project.model_copy(update=place), login, datetime.fromisoformat(answer["expires_at"]))


class StagedCredentials(Credentials):
    """A project's own login where its own database is meant, a clone's where that is."""

    def __init__(self, client: InternalClient) -> None:
        super().__init__(client)
        self._clones: dict[str, Login] = {}

    @contextmanager
    def letting_in(self, clone: Clone) -> Generator[None]:
        """For as long as the block lasts."""
        self._clones[clone.login.database] = clone.login
        try:
            yield
        finally:
            self._clones.pop(clone.login.database, None)

    async def of(self, project: ProjectListed, *, anew: bool = False) -> Login:
        """See `Credentials.of`. A clone's login never changes."""
        known = self._clones.get(project.database or "")
        return known if known is not None else await super().of(project, anew=anew)
