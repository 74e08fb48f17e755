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
    """Follows the table, and nobody back: a publisher that died may have left an older word behind a newer one, which is told again then.

    A version that does not start blocks its project until the next deployment.
    """

    def __init__(self, table: Table) -> None:
        self._table = table
        self._known: dict[str, BotDeployed] = {}
        self._subscription: Subscription | None = None
        self._doubt: Callable[[str], None] = lambda _: None
        self.suspects = Suspects()
        for key, event in table.values().items():
            self._changed(key, event)
        table.on_change(self._changed)

    def guards(self, subscription: Subscription) -> None:
        """The subscription whose projects are blocked."""
        self._subscription = subscription

    def pointer(self, project: str) -> BotDeployed | None:
        """What is deployed, and for whom; None: no bot."""
        return self._known.get(project)

    def version(self, project: str) -> str | None:
        """The version of most contacts; None: no bot, or one that is paused."""
        pointer = self.pointer(project)
        return pointer.version if pointer is not None and not pointer.paused else None

    def in_use(self, project: str) -> frozenset[str]:
        """All versions that somebody is answered by."""
        pointer = self.pointer(project)
        return versions(pointer) if pointer is not None and not pointer.paused else frozenset()

    def known(self, project: str, at: datetime, now: datetime) -> bool:
        """Whether `version` may be believed for an event of `at`: a table that is behind shows no bot where there is one."""
        return self.pointer(project) is not None or holds(self._table, at, now)

    def told(self, project: str) -> str | None:
        """The deployment of which the topic's last word is, right or wrong."""
        last = _pointer(self._table.get(f"{project}:bot"))
        return last.deployment_id if last is not None else None

    def doubts(self, doubt: Callable[[str], None]) -> None:
        """Who is told of projects whose last word is older than one before it."""
        self._doubt = doubt

    def believe(self, project: str) -> None:
        """The last word of a project is the right one after all: its rows are older than what was told once."""
        if (last := _pointer(self._table.get(f"{project}:bot"))) is not None:
            self._known[project] = last

    def refuses(self, project: str) -> None:
        """Its version does not start: its events become rows and wait."""
        if self._subscription is not None:
            self._subscription.block(project, "the deployed version does not start")

    def _changed(self, key: str, event: AnyEvent | None) -> None:
        project, told = key.partition(":")[0], _pointer(event)
        known = self._known.get(project)
        if told is None:
            self._known.pop(project, None)
        elif known is not None and told.deployment_id < known.deployment_id:  # their ids begin with the time
            self._doubt(project)
            return
        else:
            self._known[project] = told
        if self._subscription is not None:
            self._subscription.unblock(project)


def _pointer(event: AnyEvent | None) -> BotDeployed | None:
    return event.data if event is not None and isinstance(event.data, BotDeployed) else None


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
    """Tells workers of deployments. One that could not be told, or that a crash left untold, is told later.

    Nothing but its own looking keeps a publisher that was held up from saying an older word last, and it may die before it looks. So whoever reads such a
    word does: while it is read, or, where nobody was there who knew better, by comparing all last words with the rows at the start.
    """

    def __init__(self, bus: Bus, pointers: Pointers, clock: Callable[[], datetime]) -> None:
        self._bus, self._pointers, self._clock = bus, pointers, clock
        self._deployed: Deployed | None = None
        self._doubted = set[str]()
        self._compared = False
        self._untold = asyncio.Event()
        self._untold.set()  # a crash may have left some

    def watches(self, deployed: Deployed) -> None:
        """Over what is read of its words, and those of others."""
        self._deployed = deployed
        deployed.doubts(self._doubt)

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
                paused=current.paused,
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
                await self._once()
            except Exception as error:
                if not isinstance(error, BusUnavailable) and not is_gone(error):
                    raise
                get_logger().warning("deployment.untold", error=type(error).__name__)
                self._untold.set()
                await asyncio.sleep(_AGAIN)

    async def _once(self) -> None:
        for project in await self._pointers.unpublished():
            await self._tell(project)
        if self._deployed is not None:
            await self._look(self._deployed)

    async def _look(self, deployed: Deployed) -> None:
        if not self._compared:
            in_force = await self._pointers.in_force()
            self._doubted |= {p for p, deployment in in_force.items() if deployed.told(p) not in {None, deployment}}  # none: it is gone
            self._compared = True
        doubted, self._doubted = self._doubted, set[str]()
        try:
            for project in list(doubted):
                current = await self._pointers.current(project)
                if current is not None and deployed.told(project) == str(current.id):
                    deployed.believe(project)
                else:
                    await self._tell(project)
                doubted.discard(project)
        finally:
            self._doubted |= doubted

    def _doubt(self, project: str) -> None:
        self._doubted.add(project)
        self._untold.set()
