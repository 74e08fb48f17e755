"""Which version answers whom in each project: the table of `bots.deployments.v1`, and the projects whose version does not start."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from loquat_common.bus.port import Bus, BusUnavailable, Subscription, Table
from loquat_common.db import is_gone
from loquat_common.directory import holds
from loquat_common.logs import get_logger
from loquat_events.bots import BotDeployed
from loquat_events.envelope import AnyEvent, Event, Payload

from loquat_bot_runner.adapters.pointers import Deployment, Pointers
from loquat_bot_runner.domain.pointer import versions

_AGAIN: Final = 2.0
"""Seconds until a deployment that could not be told is told again."""


class Deployed:
    """Follows the table. A version that does not start blocks its project until the next deployment."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._subscription: Subscription | None = None
        self.suspects = Suspects()
        table.on_change(self._changed)

    def guards(self, subscription: Subscription) -> None:
        """The subscription whose projects are blocked."""
        self._subscription = subscription

    def pointer(self, project: str) -> BotDeployed | None:
        """What is deployed, and for whom; None: no bot."""
        event = self._table.get(f"{project}:bot")
        return event.data if event is not None and isinstance(event.data, BotDeployed) else None

    def version(self, project: str) -> str | None:
        """The version of most contacts; None: no bot."""
        pointer = self.pointer(project)
        return pointer.version if pointer is not None else None

    def in_use(self, project: str) -> frozenset[str]:
        """All versions that somebody is answered by."""
        pointer = self.pointer(project)
        return versions(pointer) if pointer is not None else frozenset()

    def known(self, project: str, at: datetime, now: datetime) -> bool:
        """Whether `version` may be believed for an event of `at`: a table that is behind shows no bot where there is one."""
        return self.version(project) is not None or holds(self._table, at, now)

    def refuses(self, project: str) -> None:
        """Its version does not start: its events become rows and wait."""
        if self._subscription is not None:
            self._subscription.block(project, "the deployed version does not start")

    def _changed(self, key: str, _event: AnyEvent | None) -> None:
        if self._subscription is not None:
            self._subscription.unblock(key.partition(":")[0])


class Suspects:
    """Versions on trial, by project, that have failed since somebody looked: each once, however often it fails."""

    def __init__(self) -> None:
        self._noted: dict[tuple[str, str], str | None] = {}
        self._some = asyncio.Event()

    def note(self, project: str, version: str, reason: str | None = None) -> None:
        """A canary failed. With a reason, it cannot do anything else."""
        self._noted[project, version] = reason or self._noted.get((project, version))
        self._some.set()

    async def take(self) -> dict[tuple[str, str], str | None]:
        """Those noted, with the reason; waits until there are any."""
        await self._some.wait()
        self._some.clear()
        taken, self._noted = self._noted, {}
        return taken


class Publisher:
    """Tells workers of deployments. One that could not be told, or that a crash left untold, is told later."""

    def __init__(self, bus: Bus, pointers: Pointers, clock: Callable[[], datetime]) -> None:
        self._bus, self._pointers, self._clock = bus, pointers, clock
        self._untold = asyncio.Event()
        self._untold.set()  # a crash may have left some

    async def publish(self, project: str) -> None:
        """Tells where a project's pointer is.

        Raises:
            BusUnavailable: `run` tells it when the bus is back.
        """
        try:
            await self._tell(project)
        except BusUnavailable:
            self._untold.set()
            raise

    async def _tell(self, project: str) -> None:
        """Until what was told last is what is in force: of two that tell at once the slower one would leave its older word behind."""
        told: Deployment | None = None
        while (current := await self._pointers.current(project)) is not None and (told is None or told.id != current.id):
            deployed = BotDeployed(
                project_id=project,
                version=current.version,
                deployment_id=str(current.id),
                deployed_by=current.deployed_by,
                at=current.deployed_at,
                canary=current.canary,
                testers=current.testers,
            )
            event = Event[Payload].of(deployed, id=current.id, source="/bot-runner", time=self._clock(), project=project, lane="bot")
            await self._bus.publish(event)
            told = current
        if told is not None:
            await self._pointers.published(told)

    async def run(self) -> None:
        """Tells what is untold, for ever; sleeps while there is nothing."""
        while True:
            await self._untold.wait()
            try:
                self._untold.clear()
                for project in await self._pointers.unpublished():
                    await self._tell(project)
            except Exception as error:
                if not isinstance(error, BusUnavailable) and not is_gone(error):
                    raise
                get_logger().warning("deployment.untold", error=type(error).__name__)
                self._untold.set()
                await asyncio.sleep(_AGAIN)
