"""What the runner has of all this: workers at the level that this machine gives."""

from __future__ import annotations

import io
import os
import socket
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Final, Protocol

import msgspec

from loquat_sandbox import root
from loquat_sandbox.client import Zygote
from loquat_sandbox.confined import Confined, Confinement
from loquat_sandbox.groups import Groups
from loquat_sandbox.incarnation import ZygoteLost
from loquat_sandbox.levels import Level
from loquat_sandbox.limits import Limits
from loquat_sandbox.spawned import spawn
from loquat_sandbox.users import Users

_MODULE: Final = "loquat.worker"
_ENVIRONMENT: Final = {"LANG": "C.UTF-8", "TZ": "UTC", "PYTHONUNBUFFERED": "1", "PYTHONDONTWRITEBYTECODE": "1"}


class Process(Protocol):
    """A worker, as the runner sees it: `Confined`, or `Spawned` at level 0. See `Confined` for what each means."""

    level: Level
    pid: int
    folder: str
    layer: str | None
    control: socket.socket
    output: io.FileIO
    postgres: socket.socket
    egress: socket.socket
    postgres_port: int
    egress_port: int

    @property
    def alive(self) -> bool:
        """Whether nothing was heard of its end."""
        ...

    def kill(self) -> None:
        """SIGKILL, at once."""
        ...

    async def ended(self) -> str:
        """Waits for its end; how it was."""
        ...

    def ran_out_of_memory(self) -> bool:
        """Whether the kernel ended it for that."""
        ...

    def cpu(self) -> float:
        """Seconds of processor time."""
        ...

    def memory(self) -> int:
        """Bytes resident."""
        ...

    def yield_processor(self) -> None:
        """It runs when nobody else wants to."""
        ...

    async def close(self) -> None:
        """Ends it and closes everything."""
        ...


class Sandbox:
    """Workers at one level. `bundles` is the folder below which all that a worker may be shown lies."""

    def __init__(self, bundles: Path, zygote: Zygote | None = None, users: Users | None = None, groups: Groups | None = None) -> None:
        self._bundles, self._zygote, self._users, self._groups = bundles, zygote, users, groups

    @property
    def level(self) -> Level:
        """What its workers are held by: the zygote's, and hardened with a user and a group for each."""
        if self._zygote is None:
            return Level.NONE
        hardened = self._zygote.level >= Level.CONTAINED and self._users is not None and self._groups is not None
        return Level.HARDENED if hardened else self._zygote.level

    def report(self) -> dict[str, str | int | bool]:
        """For logs and for people."""
        return {
            "isolation": int(self.level),
            "name": self.level.label,
            "user_per_project": self._users is not None,
            "groups": self._groups.kind if self._groups is not None else "none",
            "landlock": self._zygote.landlock if self._zygote is not None else 0,
            "seccomp": self._zygote is not None,
            "kernel": os.uname().release,
        }

    async def start(self) -> None:
        """Sees to it that workers can be made.

        Raises:
            ZygoteLost: they cannot.
            ConfinementFailed: they cannot, at this level.
        """
        if self._zygote is not None:
            await self._zygote.start()

    async def keep_standby(self) -> None:
        """Keeps a second zygote for the end of the first, for ever; at level 0 there is none to keep."""
        if self._zygote is not None:
            await self._zygote.standby.run()

    def user_of(self, project: str) -> int | None:
        """The user of a project that has a worker now; None: there are no such users here, or no worker."""
        return self._users.of(project) if self._users is not None else None

    async def run(
        self, project: str, folder: Path, limits: Limits, environment: Mapping[str, str] | None = None, *, layer: Path | None = None
    ) -> Process:
        """A worker in which no code of a bot has run yet; `layer` holds what it may import besides. Nothing in `environment` is secret.

        Raises:
            ConfinementFailed: a wall does not stand.
            ZygoteLost: there is no zygote, and none could be started.
            UsersSpent: there are too many projects.
            OSError: there is no process, or no control group for it.
        """
        home = root.TEMPORARY if self.level >= Level.CONTAINED else "/nonexistent"
        given = {**_ENVIRONMENT, "HOME": home, **(environment or {})}
        if self._zygote is None:
            return await self._spawn(project, folder, layer, limits, given)
        return await self.confine(project, Confinement(folder=folder, layer=layer, limits=limits, environment=given))

    async def _spawn(self, project: str, folder: Path, layer: Path | None, limits: Limits, environment: Mapping[str, str]) -> Process:
        if self._users is None:
            return await spawn(_MODULE, folder, layer, limits, environment)
        with ExitStack() as undo:
            user = self._users.take(project)
            undo.callback(self._users.give, project)
            made = await spawn(_MODULE, folder, layer, limits, environment, user)
            made.left = undo.pop_all().close
            return made

    async def confine(self, project: str, wanted: Confinement) -> Confined:
        """The same from level 1 on, with the project's user and a control group where there are such.

        Raises:
            As `run`.
        """
        if self._zygote is None:
            raise ZygoteLost("at level 0 there is none")
        group = self._groups.make(wanted.limits) if self._groups is not None else None
        undo = ExitStack()
        with undo:
            user = None
            if group is not None:
                undo.callback(group.remove)
            if self._users is not None:
                user = self._users.take(project)
                undo.callback(self._users.give, project)
            entries = group.entries if group is not None else ()
            made = await self._zygote.fork(msgspec.structs.replace(wanted, user=user, groups=entries))
            left = undo.pop_all()
        if group is not None:
            group.entered()
        made.lives_in(group, left.close)
        return made

    async def close(self) -> None:
        """Ends every worker."""
        if self._zygote is not None:
            await self._zygote.close()
        if self._users is not None:
            self._users.close()
