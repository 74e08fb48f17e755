"""Previews: whose turn it is, and where they play."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final
from uuid import UUID
from weakref import WeakValueDictionary

from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.clones import Clone, Clones, StagedCredentials
from loquat_bot_runner.domain.preview import Asked, CannotPreview, Lines, Seen, blotted
from loquat_bot_runner.handlers.rehearsal import Rehearsal

_PATIENCE: Final = 10.0  # seconds until one's turn
_WORDS: Final = ("replies", "state_before", "state", "noted", "timers", "log", "error", "trace")
"""What of a step is the bot's own word."""


class Previews:
    """One step of a project's previews at a time, `most` of all. `redact`: words of a project's bot without its secrets."""

    def __init__(
        self, rehearsal: Rehearsal, clones: Clones, credentials: StagedCredentials, redact: Callable[[str, str], str], most: int = 4
    ) -> None:
        self._rehearsal, self._clones, self._credentials, self._redact = rehearsal, clones, credentials, redact
        self._turns, self._locks = asyncio.Semaphore(most), WeakValueDictionary[UUID | str, asyncio.Lock]()

    async def step(self, project: ProjectListed, asked: Asked) -> Seen:
        """What the contact does, and what comes of it.

        Raises:
            CannotPreview: not now.
            Problem: there is no clone to be had, as the provisioner says.
            DatabaseAway, WrongDatabase, ProjectDatabaseAway: the database, live or clone, does not answer.
        """
        async with self._turn(project.project_id, asked.key), self._stage(project, asked) as (stage, clone):
            lines = Lines()
            seen = await self._rehearsal.of(stage, asked, lines)
            seen.log, seen.expires_at = lines.kept, clone.expires_at if clone is not None else None
        for name in _WORDS:
            setattr(seen, name, blotted(getattr(seen, name), lambda text: self._redact(project.project_id, text)))
        return seen

    async def drop(self, project: str, key: UUID) -> None:
        """The clone goes.

        Raises:
            Problem: there is none.
        """
        await self._clones.drop(project, key)

    @asynccontextmanager
    async def _turn(self, project: str, key: UUID) -> AsyncGenerator[None]:
        lock, own = self._locks.setdefault(key, asyncio.Lock()), self._locks.setdefault(project, asyncio.Lock())
        if lock.locked():
            raise CannotPreview("preview_busy", "the message before is still being answered; one at a time")
        async with lock, AsyncExitStack() as places:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await places.enter_async_context(own)  # a step may last minutes: who had many would keep all others from theirs
                    await places.enter_async_context(self._turns)
            except TimeoutError:
                raise CannotPreview("busy", "too many previews are at work") from None
            yield

    @asynccontextmanager
    async def _stage(self, project: ProjectListed, asked: Asked) -> AsyncGenerator[tuple[ProjectListed, Clone | None]]:
        """The project as it is, or as it stands in a clone."""
        if asked.where == "live":
            yield project, None
            return
        clone = await (self._clones.use if asked.goes_on else self._clones.make)(project, asked.key)
        with self._credentials.letting_in(clone):
            yield clone.project, clone
