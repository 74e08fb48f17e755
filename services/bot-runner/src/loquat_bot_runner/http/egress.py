"""Where a bot may connect to, and where it did."""

from __future__ import annotations

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_rest import egress as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.policies import Allowed, Policies
from loquat_bot_runner.domain.destinations import Refused, policy_hosts
from loquat_bot_runner.http.versions import BELOW


class EgressApi:
    """A change holds for the next connection."""

    def __init__(self, policies: Policies, directory: Directory) -> None:
        self._policies, self._directory = policies, directory

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.EGRESS, self.egress, below=BELOW)
        api.serve(shapes.SET_EGRESS, self.set, below=BELOW)
        api.serve(shapes.DESTINATIONS, self.destinations, below=BELOW)

    async def egress(self, _request: web.Request, *, path: OneProject) -> shapes.Egress:
        """What is open."""
        self._there(path.project_id)
        return _shown(await self._policies.allowed(path.project_id))

    async def set(self, request: web.Request, *, path: OneProject, body: shapes.NewEgress) -> shapes.Egress:
        """Opens these hosts and closes all others."""
        self._there(path.project_id)
        try:
            hosts = policy_hosts(body.hosts)
        except Refused as refused:
            raise Problem(422, "host_refused", "This is no host that can be allowed", refused.reason) from None
        return _shown(await self._policies.set(path.project_id, hosts, request[ACTOR].subject))

    async def destinations(self, _request: web.Request, *, path: OneProject, query: shapes.DestinationPage) -> shapes.DestinationList:
        """By host and outcome."""
        self._there(path.project_id)
        found = await self._policies.destinations(path.project_id, query.limit)
        return shapes.DestinationList(items=[shapes.Destination.model_validate(f.model_dump()) for f in found])

    def _there(self, project: str) -> None:
        if self._directory.get(project) is None:
            raise not_found("project")


def _shown(allowed: Allowed | None) -> shapes.Egress:
    return (
        shapes.Egress(hosts=allowed.hosts, updated_at=allowed.updated_at)
        if allowed is not None
        else shapes.Egress(hosts=[], updated_at=None)
    )
