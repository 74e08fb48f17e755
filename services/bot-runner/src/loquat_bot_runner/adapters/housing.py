"""Where a worker lives: a process behind walls, and what is served at its two doors."""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable
from pathlib import Path
from urllib.parse import quote

from loquat_common.client import InternalClient
from loquat_common.logs import get_logger
from loquat_events.projects import ProjectListed
from loquat_sandbox import ConfinementFailed, Level, Process, Sandbox, UsersSpent, ZygoteLost

from loquat_bot_runner.adapters.credentials import Credentials, Login
from loquat_bot_runner.adapters.egress import Egress, MediaOf, Outside, PolicyOf, See, closed, unseen
from loquat_bot_runner.adapters.layers import Layers
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.mediadoor import MediaDoor, Passed
from loquat_bot_runner.adapters.pgbridge import PostgresBridge
from loquat_bot_runner.adapters.worker import Worker, Write
from loquat_bot_runner.domain.limits import BotLimits
from loquat_bot_runner.errors import ProjectDatabaseAway

LimitsOf = Callable[[str], Awaitable[BotLimits]]
"""What a project's bot may take."""


class Housing:
    """Makes workers. `room` and `outside` are shared by all; `policy` says where a project's bot may connect to, `seen` takes note of where it did."""

    def __init__(
        self,
        sandbox: Sandbox,
        credentials: Credentials,
        limits: LimitsOf,
        room: Room,
        outside: Outside,
        policy: PolicyOf = closed,
        seen: See = unseen,
        layers: Layers | None = None,
        connector: InternalClient | None = None,
        statements: int = 0,
    ) -> None:
        self._sandbox, self._credentials, self.limits = sandbox, credentials, limits
        self._room, self._outside, self._policy, self._seen = room, outside, policy, seen
        self._layers, self._connector, self._statements = layers or Layers(), connector, statements
        self._log = get_logger()

    def beside(self, room: Room) -> Housing:
        """Another one for the same projects, whose workers take their connections from a room of their own and come to no files at Meta."""
        return Housing(self._sandbox, self._credentials, self.limits, room, self._outside, self._policy, self._seen, self._layers)

    async def worker(self, project: ProjectListed, folder: Path, write: Write) -> tuple[Worker, str]:
        """A worker in which no code of the bot has run yet, and the address of its database as it is told.

        Raises:
            CallFailed: there is no login, or no process: the second is the platform's fault and logged; or what it needs cannot be installed.
        """
        login, limits = await self._credentials.of(project), await self.limits(project.project_id)
        layer = await self._layers.of(project.project_id, folder, write)
        try:
            process = await self._sandbox.run(project.project_id, folder, limits.of_process, layer=layer)
        except (ConfinementFailed, ZygoteLost, UsersSpent, OSError) as error:
            self._log.error("bot.no_process", project=project.project_id, error=f"{type(error).__name__}: {error}")
            raise ProjectDatabaseAway("the platform could not start a process") from error
        worker, address = await self._served(process, project, login, limits, write)
        if layer is not None:
            worker.at_end(self._layers.held(layer))
        return worker, address

    async def _served(self, process: Process, project: ProjectListed, login: Login, limits: BotLimits, write: Write) -> tuple[Worker, str]:
        """From level 2 on the doors are in a network of the worker's own; below, others of this machine reach them, so a ticket is asked for."""
        ticket = None if process.level >= Level.CONTAINED else secrets.token_urlsafe(32)
        name = project.project_id

        async def logins(anew: bool) -> Login:
            return await self._credentials.of(project, anew=anew)

        bridge = PostgresBridge(process.postgres, name, logins, self._room, ticket=ticket)
        egress = Egress(process.egress, name, self._policy, self._outside, self._seen, self._media(name, ticket))
        await bridge.start()
        await egress.start()
        who = quote(login.user, safe="") if ticket is None else f"{quote(login.user, safe='')}:{ticket}"
        address = f"postgresql://{who}@127.0.0.1:{process.postgres_port}/{quote(login.database, safe='')}?sslmode=disable"
        return Worker(process, name, limits, write, (bridge.close, egress.close), bridge.away_since, self._statements), address

    def _media(self, project: str, ticket: str | None) -> MediaOf | None:
        connector = self._connector
        if connector is None:
            return None

        def door(left: Callable[[], int], passed: Passed) -> MediaDoor:
            return MediaDoor(connector, project, ticket, left, passed)

        return door
