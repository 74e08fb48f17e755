"""Limits that were chosen while their cluster was away are put in force when it is back."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Final

from loquat_common.db import DatabaseAway, is_gone
from loquat_common.logs import get_logger

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.limits import LimitsStore, enforce
from loquat_provisioner.adapters.store import Store
from loquat_provisioner.domain.life import Names

_PAUSE: Final = 30.0  # seconds between two looks


class PendingLimits:
    """Looks for them now and then."""

    def __init__(self, store: Store, chosen: LimitsStore, clusters: Mapping[str, ProjectDatabases]) -> None:
        self._store, self._chosen, self._clusters = store, chosen, clusters
        self._log = get_logger()

    async def run(self) -> None:
        """For ever."""
        while True:
            try:
                await self.once()
            except Exception as error:
                if not is_gone(error):
                    raise
                self._log.warning("limits.control_database_away", error=type(error).__name__)
            await asyncio.sleep(_PAUSE)

    async def once(self) -> int:
        """How many projects got theirs. One whose cluster is away waits on."""
        count = 0
        for project_id in await self._chosen.waiting():
            project = await self._store.get(project_id)
            if project is None or project.database is None or project.cluster is None or project.cluster not in self._clusters:
                continue
            limits = await self._chosen.get(project_id)
            try:
                await enforce(self._clusters[project.cluster], Names(project.database), limits)
            except DatabaseAway:
                continue
            await self._chosen.applied(project_id, limits)
            count += 1
        return count
