"""Where a worker lives: a process behind walls, and what is served at its two doors."""

from __future__ import annotations

import secrets
from pathlib import Path
from urllib.parse import quote

from loquat_common.logs import get_logger
from loquat_events.projects import ProjectListed
from loquat_sandbox import ConfinementFailed, Level, Limits, Process, Sandbox, UsersSpent, ZygoteLost

from loquat_bot_runner.adapters.credentials import Credentials, Login
from loquat_bot_runner.adapters.egress import Egress, Outside, PolicyOf, See, closed, unseen
from loquat_bot_runner.adapters.links import Room
from loquat_bot_runner.adapters.pgbridge import PostgresBridge
from loquat_bot_runner.adapters.worker import Worker, Write
from loquat_bot_runner.errors import ProjectDatabaseAway


class Housing:
    """Makes workers. `room` and `outside` are shared by all; `policy` says where a project's bot may connect to, `seen` takes note of where it did."""

    def __init__(
        self,
        sandbox: Sandbox,
        credentials: Credentials,
        limits: Limits,
        room: Room,
        outside: Outside,
        policy: PolicyOf = closed,
        seen: See = unseen,
    ) -> None:
        self._sandbox, self._credentials, self._limits = sandbox, credentials, limits
        self._room, self._outside, self._policy, self._seen = room, outside, policy, seen
        self._log = get_logger()

    async def worker(self, project: ProjectListed, folder: Path, write: Write) -> tuple[Worker, str]:
        """A worker in which no code of the bot has run yet, and the address of its database as it is told.

        Raises:
            CallFailed: there is no login, or no process: the second is the platform's fault and logged.
        """
        login = await self._credentials.of(project)
        try:
            process = await self._sandbox.run(project.project_id, folder, self._limits)
        except (ConfinementFailed, ZygoteLost, UsersSpent, OSError) as error:
            self._log.error("bot.no_process", project=project.project_id, error=f"{type(error).__name__}: {error}")
            raise ProjectDatabaseAway("the platform could not start a process") from error
        return await self._served(process, project, login, write)

    async def _served(self, process: Process, project: ProjectListed, login: Login, write: Write) -> tuple[Worker, str]:
        """From level 2 on the doors are in a network of the worker's own; below, others of this machine reach them, so a ticket is asked for."""
        ticket = None if process.level >= Level.CONTAINED else secrets.token_urlsafe(32)
        name = project.project_id

        async def logins(anew: bool) -> Login:
            return await self._credentials.of(project, anew=anew)

        bridge = PostgresBridge(process.postgres, name, logins, self._room, ticket=ticket)
        egress = Egress(process.egress, name, self._policy, self._outside, self._seen)
        await bridge.start()
        await egress.start()
        who = quote(login.user, safe="") if ticket is None else f"{quote(login.user, safe='')}:{ticket}"
        address = f"postgresql://{who}@127.0.0.1:{process.postgres_port}/{quote(login.database, safe='')}?sslmode=disable"
        return Worker(process, name, self._limits.memory, write, (bridge.close, egress.close)), address
