"""Which version each project runs: the table of `bots.deployments.v1`, and the projects whose version does not start."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from loquat_common.bus.port import Bus, Subscription, Table
from loquat_events.bots import BotDeployed
from loquat_events.envelope import AnyEvent, Event, Payload

from loquat_bot_runner.adapters.store import Deployment, Store


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

    def refuses(self, project: str) -> None:
        """Its version does not start: its events become rows and wait."""
        if self._subscription is not None:
            self._subscription.block(project, "the deployed version does not start")

    def _changed(self, key: str, _event: AnyEvent | None) -> None:
        if self._subscription is not None:
            self._subscription.unblock(key.partition(":")[0])


class Publisher:
    """Tells workers of deployments. What a crash left untold is told at the next start."""

    def __init__(self, bus: Bus, store: Store, clock: Callable[[], datetime]) -> None:
        self._bus, self._store, self._clock = bus, store, clock

    async def publish(self, deployment: Deployment) -> None:
        """Tells one."""
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

    async def catch_up(self) -> None:
        """Tells all that were left untold."""
        for deployment in await self._store.unpublished():
            await self.publish(deployment)
