"""Databases that come back from a backup: who was erased since is erased there again, as soon as the directory tells of the new epoch."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import datetime
from typing import Final

from loquat_common.bus.port import Bus, BusUnavailable, Table
from loquat_common.db import DatabaseAway, WrongDatabase, is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_conversation_log.adapters.orders import Orders
from loquat_conversation_log.domain.orders import done
from loquat_conversation_log.handlers.contacts import Contacts
from loquat_conversation_log.ports import Behind, Busy

_MOST: Final = 100  # erases taken at once
_AGAIN: Final = 2.0
"""Seconds until the next try of what could not be had."""


class Returns:
    """Only projects that were restored once are looked at: the others have epoch 1. Several replicas may do the same at once, to no harm."""

    def __init__(
        self, orders: Orders, contacts: Contacts, table: Table, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]
    ) -> None:
        self._orders, self._contacts, self._bus = orders, contacts, bus
        self._failpoints, self._clock, self._log = failpoints, clock, get_logger()
        self._back: dict[str, ProjectListed] = {}
        self._news = asyncio.Event()
        table.on_change(self._listed)

    def _listed(self, key: str, event: AnyEvent | None) -> None:
        data = event.data if event is not None else None
        if not isinstance(data, ProjectListed):
            self._back.pop(key.partition(":")[0], None)
        elif data.state == "ready" and data.epoch > 1:
            self._back[data.project_id] = data
            self._news.set()

    async def run(self) -> None:
        """For ever. Sleeps until a project comes back."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not await self.once():
                await asyncio.sleep(_AGAIN)
                self._news.set()

    async def once(self) -> bool:
        """Erases what is to be erased again. False: some of it could not be done now; a project that is away keeps no other."""
        well = True
        for project, listed in dict(self._back).items():
            try:
                await self._of(listed)
            except Exception as error:
                if not isinstance(error, Busy | Behind | WrongDatabase | DatabaseAway | BusUnavailable) and not is_gone(error):
                    raise
                self._log.warning("returns.later", project=project, error=type(error).__name__)
                well = False
            else:
                if self._back.get(project) == listed:
                    del self._back[project]
        return well

    async def _of(self, listed: ProjectListed) -> None:
        """Told before it is noted: whoever is cut off in between does it again, and says the same."""
        while kept := await self._orders.come_back(listed.project_id, listed.epoch, _MOST):
            for each in kept:
                people = await self._contacts.again(listed, each.people)
                self._failpoints.hit("conversation_log.returns.executed")
                await self._bus.publish(done(each.order, people, listed.epoch, self._clock()))
                self._failpoints.hit("conversation_log.returns.published")
                await self._orders.end(each.order.id, "done", people=people, epoch=listed.epoch)
