"""Which version each project runs: the table of `bots.deployments.v1`, and the projects whose version does not start."""

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

from loquat_bot_runner.adapters.store import Deployment, Store

_AGAIN: Final = 2.0
"""Seconds until a deployment that could not be told is told again."""


class Deployed:
    """Follows the table. A version that does not start blocks its project until the next deployment."""

    def __init__(self, table: Table) -> None:
        self._table = table
        self._subscription: Subscription | None = None
        table.on_change(self._changed)

    def guards(self, subscription: Subscription) -> None:
        """The subscription whose projects are blocked."""
        self._subscription = subscription

    def version(self, project: str) -> str | None:
        """The version deployed; None: no bot."""
        event = self._table.get(f"{project}:bot")
        return event.data.version if event is not None and isinstance(event.data, BotDeployed) else None

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


class Publisher:
    """Tells workers of deployments. One that could not be told, or that a crash left untold, is told later."""

    def __init__(self, bus: Bus, store: Store, clock: Callable[[], datetime]) -> None:
        self._bus, self._store, self._clock = bus, store, clock
        self._untold = asyncio.Event()
        self._untold.set()  # a crash may have left some

    async def publish(self, deployment: Deployment) -> None:
        """Tells one.

        Raises:
            BusUnavailable: `run` tells it when the bus is back.
        """
        try:
            await self._tell(deployment)
        except BusUnavailable:
            self._untold.set()
            raise

    async def _tell(self, deployment: Deployment) -> None:
        deployed = BotDeployed(
            project_id=deployment.project_id,
            version=deployment.version,
            deployment_id=str(deployment.id),
            deployed_by=deployment.deployed_by,
            at=deployment.deployed_at,
        )
        event = Event[Payload].of(
            deployed, id=deployment.id, source="/bot-runner", time=self._clock(), project=deployment.project_id, lane="bot"
        )
        await self._bus.publish(event)
        await self._store.published(deployment)

    async def run(self) -> None:
        """Tells what is untold, for ever; sleeps while there is nothing."""
        while True:
            await self._untold.wait()
            try:
                self._untold.clear()
                for deployment in await self._store.unpublished():
                    await self._tell(deployment)
            except Exception as error:
                if not isinstance(error, BusUnavailable) and not is_gone(error):
                    raise
                get_logger().warning("deployment.untold", error=type(error).__name__)
                self._untold.set()
                await asyncio.sleep(_AGAIN)
