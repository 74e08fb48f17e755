"""The login of a project's bot, asked of the provisioner and kept for an epoch."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.problems import Problem
from loquat_events.projects import ProjectListed

from loquat_bot_runner.errors import DoesNotStart, ProjectDatabaseAway

_KEPT: Final = 5_000
"""Logins kept: more than the workers of one replica."""


@dataclass(frozen=True, slots=True)
class Login:
    """How a bot connects to its project's database."""

    host: str
    port: int
    database: str
    user: str
    password: str = field(repr=False)


class Credentials:
    """Asks once per project and epoch."""

    def __init__(self, client: InternalClient) -> None:
        self._client = client
        self._known: OrderedDict[tuple[str, int], Login] = OrderedDict()

    async def of(self, project: ProjectListed, *, anew: bool = False) -> Login:
        """The bot's login; `anew`: the one that is kept was refused.

        Raises:
            ProjectDatabaseAway: the provisioner does not answer, or not as it should.
            DoesNotStart: there is none.
        """
        key = (project.project_id, project.epoch)
        if anew:
            self._known.pop(key, None)
        if key not in self._known:
            path = f"/internal/projects/{project.project_id}/credentials/bot"
            try:
                answer = await self._client.call("GET", path, actor=self._client.itself("credentials:read"))
            except ServiceUnavailable:
                raise ProjectDatabaseAway("the provisioner does not answer") from None
            except Problem as problem:
                if problem.status != HTTPStatus.NOT_FOUND:  # the platform's fault, whatever it is: no deployment would mend it
                    raise ProjectDatabaseAway(f"the provisioner answered {problem.code}") from None
                raise DoesNotStart("the project has no login for its bot") from None
            self._known[key] = Login(answer["host"], answer["port"], answer["database"], answer["user"], answer["password"])
            while len(self._known) > _KEPT:
                self._known.popitem(last=False)
        return self._known[key]
