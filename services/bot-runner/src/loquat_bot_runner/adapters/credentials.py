"""The login of a project's bot, asked of the provisioner and kept for an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field

from loquat_common.client import InternalClient, ServiceUnavailable
from loquat_common.problems import Problem
from loquat_events.projects import ProjectListed

from loquat_bot_runner.errors import DoesNotStart, ProjectDatabaseAway


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
        self._known: dict[tuple[str, int], Login] = {}

    async def of(self, project: ProjectListed) -> Login:
        """The bot's login.

        Raises:
            ProjectDatabaseAway: the provisioner does not answer.
            DoesNotStart: there is none.
        """
        key = (project.project_id, project.epoch)
        if key not in self._known:
            path = f"/internal/projects/{project.project_id}/credentials/bot"
            try:
                answer = await self._client.call("GET", path, actor=self._client.itself("credentials:read"))
            except ServiceUnavailable:
                raise ProjectDatabaseAway("the provisioner does not answer") from None
            except Problem as problem:
                raise DoesNotStart(f"the project has no login for its bot: {problem.code}") from None
            self._known[key] = Login(answer["host"], answer["port"], answer["database"], answer["user"], answer["password"])
        return self._known[key]
