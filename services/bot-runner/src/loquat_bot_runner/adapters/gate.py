"""What speaks against a deployment: asked of the version itself, loaded as bots are, and of the project's database."""

from __future__ import annotations

from collections.abc import Sequence

from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.usage import Usage
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.configuration import Setting
from loquat_bot_runner.domain.gate import Loaded, Objection, does_not_load, not_installable, objections
from loquat_bot_runner.domain.schedules import Declared, declared
from loquat_bot_runner.domain.tools import Tool
from loquat_bot_runner.errors import BotError, DoesNotStart, OutOfMemory, PackagesRefused, ProtocolViolated
from loquat_bot_runner.ports import Loads

_DOES_NOT_LOAD = (DoesNotStart, BotError, OutOfMemory, ProtocolViolated)


class Gate:
    """Looks, and decides nothing."""

    def __init__(self, bots: Loads, usage: Usage, versions: Versions) -> None:
        self._bots, self._usage, self._versions = bots, usage, versions

    async def objections(self, project: ProjectListed, version: str, *, moves_conversations: bool) -> list[Objection]:
        """All of them. `moves_conversations`: those that are open will be this version's.

        Raises:
            ProjectDatabaseAway: nobody can know now.
            DatabaseAway: nobody can know now.
        """
        try:
            loaded = await self.load(project, version)
        except PackagesRefused as failure:
            return [not_installable(failure.error)]
        except _DOES_NOT_LOAD as failure:
            return [does_not_load(failure.error, failure.trace)]
        used = await self._usage.states(project) if moves_conversations else {}
        configured = await self._usage.configuration(project) if loaded.settings else {}
        return [*objections(loaded, used, await self._usage.columns(project, loaded.needs), configured)]

    async def load(self, project: ProjectListed, version: str) -> Loaded:
        """What a version says of itself; noted beside it.

        Raises:
            CallFailed: it does not load, or cannot be loaded now.
        """
        loaded = await self._bots.load(project, version)
        await self._versions.note_declared(project.project_id, version, loaded)
        return loaded

    async def declared(self, project: ProjectListed, version: str) -> tuple[str, ...]:
        """States that a version declares, from what is noted where it is. What does not load declares none.

        Raises:
            ProjectDatabaseAway: nobody can know now.
        """
        known = await self._versions.one(project.project_id, version)
        if known is not None and known.declared is not None:
            return tuple(known.declared["states"])
        try:
            return (await self.load(project, version)).states
        except _DOES_NOT_LOAD:
            return ()

    async def settings(self, project: ProjectListed, version: str) -> dict[str, Setting]:
        """Keys of the configuration that a version declares, by key. What does not load declares none.

        Raises:
            ProjectDatabaseAway: nobody can know now.
        """
        known = await self._versions.one(project.project_id, version)
        if known is not None and known.declared is not None:
            return {s["key"]: Setting(**s) for s in known.declared.get("settings", [])}
        try:
            return dict((await self.load(project, version)).settings)
        except _DOES_NOT_LOAD:
            return {}

    async def schedules(self, project: ProjectListed, version: str) -> list[Declared]:
        """Schedules that a version declares. What does not load declares none.

        Raises:
            ProjectDatabaseAway: nobody can know now.
        """
        known = await self._versions.one(project.project_id, version)
        if known is not None and known.declared is not None and "schedules" in known.declared:
            return declared(known.declared["schedules"])
        try:
            return list((await self.load(project, version)).schedules)
        except _DOES_NOT_LOAD:
            return []

    async def tools(self, project: ProjectListed, version: str) -> Sequence[Tool]:
        """Tools that a version declares, from what is noted where it is.

        Raises:
            CallFailed: it does not load, or cannot be loaded now.
        """
        known = await self._versions.tools(project.project_id, version)
        return known if known is not None else (await self.load(project, version)).tools

    async def in_use(self, project: ProjectListed) -> dict[str, int]:
        """Open conversations by state.

        Raises:
            DatabaseAway: nobody can know now.
        """
        return await self._usage.states(project)
