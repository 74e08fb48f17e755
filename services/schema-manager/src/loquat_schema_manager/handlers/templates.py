"""The template of this release on every tenant cluster."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from typing import Final

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.projects import TemplateSealed

from loquat_schema_manager.adapters.store import Store

AGAIN: Final = 2.0
"""Seconds between two looks at a cluster that is away."""


class NotSealed(Exception):
    """A cluster has no template of this release yet: no project can be created there."""


class Templates:
    """Builds, seals and announces them. `build(cluster)` answers the template's name."""

    def __init__(
        self,
        clusters: Sequence[str],
        version: int,
        build: Callable[[str], Awaitable[str]],
        store: Store,
        bus: Bus,
        clock: Callable[[], datetime],
        *,
        again: float = AGAIN,
    ) -> None:
        self._again = again
        self._missing = list(clusters)
        self._version, self._build, self._store, self._bus, self._clock = version, build, store, bus, clock
        self._log = get_logger()

    async def run(self) -> None:
        """Until every cluster has its template."""
        while self._missing:
            for cluster in list(self._missing):
                if await self._sealed(cluster):
                    self._missing.remove(cluster)
            if self._missing:
                await asyncio.sleep(self._again)

    async def ping(self) -> None:
        """Ready means that projects can be created on every cluster.

        Raises:
            NotSealed: not yet.
        """
        if self._missing:
            raise NotSealed(", ".join(self._missing))

    async def _sealed(self, cluster: str) -> bool:
        async def build() -> str:
            return await self._build(cluster)

        async def announce(database: str) -> None:
            await self._bus.publish(self._event(cluster, database))

        try:
            database = await self._store.seal(cluster, self._version, build, announce)
        except Exception as error:
            if not is_gone(error) and not isinstance(error, BusUnavailable):
                raise
            self._log.warning("template.later", cluster=cluster, error=type(error).__name__)
            return False
        self._log.info("template.sealed", cluster=cluster, database=database)
        return True

    def _event(self, cluster: str, database: str) -> AnyEvent:
        at = self._clock()
        data = TemplateSealed(cluster=cluster, database=database, schema_version=self._version, at=at)
        return Event[Payload].of(
            data, id=fact_id("template", cluster, database), source="/schema-manager", time=at, project="templates", lane=cluster
        )
