"""Who calls, and which project they may see. A project of others and one that is not there look the same."""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from typing import Final

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import ACTOR
from loquat_common.problems import Problem, not_found
from loquat_common.tokens import Actor
from loquat_events.catalog import COMMANDS

from loquat_gateway.adapters.people import People, Requested
from loquat_gateway.domain.scopes import Scope

_LONGEST_KEY: Final = 200
_LOST: Final = timedelta(days=COMMANDS.retention_days)
"""An order that the directory has not answered by then is not on the bus any more: nobody will make that project."""


class Access:
    """API keys in, actors out."""

    def __init__(self, people: People, directory: Directory, clock: Callable[[], datetime]) -> None:
        self._people, self._directory, self._clock = people, directory, clock

    async def authenticate(self, request: web.Request) -> Actor:
        """The caller.

        Raises:
            Problem: 401 without a key that is known.
        """
        kind, _, key = request.headers.get("Authorization", "").partition(" ")
        holder = await self._people.holder(key) if kind == "Bearer" and len(key) <= _LONGEST_KEY else None
        if holder is None and key:
            raise Problem(
                401, "unauthenticated", "The API key is not known, or was revoked", "It is sent as `Authorization: Bearer lq_...`"
            )
        if holder is None:
            raise Problem(401, "unauthenticated", "An API key is needed", "Send it as `Authorization: Bearer lq_...`")
        return Actor("user", holder.key_id, holder.organization, scopes=holder.scopes)

    async def project(self, request: web.Request, project: str, *, ready: bool = False, asking: Collection[Scope] = ()) -> Actor:
        """The caller, bound to one of the projects of its organization.

        `asking` is what the route must ask other services to do what the key's own scope allows: the actor may ask it, too.

        Raises:
            Problem: 404 for a project that it may not see; 409 when it must be ready and is not.
        """
        actor, listed = request[ACTOR], self._directory.get(project)
        if listed is None:
            requested = await self.requested(project)
            if requested is None or requested.organization != actor.organization:
                raise not_found("project")
        elif listed.organization_id != actor.organization:
            raise not_found("project")
        if ready and (listed is None or listed.state != "ready"):
            state = listed.state if listed is not None else "creating"
            raise Problem(
                409, "project_not_ready", "The project is not ready", f"It is {state}; GET /v1/projects/{project} shows its steps"
            )
        return Actor("user", actor.subject, actor.organization, project, actor.scopes | frozenset(asking))

    async def requested(self, project: str) -> Requested | None:
        """The order of a project that is still to be made."""
        found = await self._people.requested(project)
        return None if found is None or self.gone(found) else found

    def gone(self, requested: Requested) -> bool:
        """Whether an ordered project was there and is no more. What a gateway before us heard counts, once our own directory is as new."""
        return self._directory.is_gone(requested.project_id, requested.listed_at or requested.at + _LOST, self._clock())

    def known(self, project: str) -> bool:
        """Whether the directory lists it."""
        return self._directory.get(project) is not None

    def ready(self, project: str) -> bool:
        """Whether the directory lists it as ready."""
        listed = self._directory.get(project)
        return listed is not None and listed.state == "ready"

    def projects(self, actor: Actor) -> list[str]:
        """The ready projects of the caller's organization."""
        return [p.project_id for p in self._directory.of_organization(actor.organization or "") if p.state == "ready"]
