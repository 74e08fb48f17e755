"""Orders about contacts. Each may come again, and may have been cut off anywhere: what is done in the project's database is done once there."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Final
from uuid import UUID

from loquat_common import metrics
from loquat_common.bus.port import Dead, Defer, Done, Outcome, Received
from loquat_common.db import WrongDatabase
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_conversation_log.adapters.orders import Orders
from loquat_conversation_log.domain.orders import Order, asked, done
from loquat_conversation_log.ports import Behind, Busy, People

_NOT_YET: Final = 1.0  # seconds until a project that is being made, or a contact that is busy, is looked at again
_BEHIND: Final = 5.0  # the sweep goes through the databases of a cluster at some hundred a second


class Contacts:
    """The handler of `contacts.commands.v1`."""

    def __init__(self, people: People, orders: Orders, directory: Directory, failpoints: Failpoints, clock: Callable[[], datetime]) -> None:
        self._people, self._orders, self._directory = people, orders, directory
        self._failpoints, self._clock = failpoints, clock

    async def handle(self, received: Received) -> Outcome:
        """One order."""
        event, order = received.event, asked(received.event)
        if order is None:
            return Dead(f"{event.type} is no order about contacts")
        project = self._directory.get(event.projectid)
        if project is None:
            return self._of_nobody(event)
        if project.state != "ready":
            return Defer(_NOT_YET, f"the project is {project.state}")
        try:
            return await self._executed(project, order)
        except (Busy, WrongDatabase) as error:
            return Defer(_NOT_YET, "a handler is about to commit" if isinstance(error, Busy) else "the directory is out of date")
        except Behind:
            return Defer(_BEHIND, "the project's database is behind this release")

    def _of_nobody(self, event: AnyEvent) -> Outcome:
        if not self._directory.is_gone(event.projectid, event.time, self._clock()):
            return Defer(_NOT_YET, "the directory does not know the project yet")
        metrics.bus_orphans.labels("conversation-log").inc()
        return Done()

    async def _executed(self, project: ProjectListed, order: Order) -> Outcome:
        kept = await self._orders.accept(order, project.epoch)
        self._failpoints.hit("conversation_log.contacts.accepted")
        if kept.state == "done" and kept.epoch is not None:
            # whatever was done to the contact since; whoever did not hear of it hears it now
            return Done((done(order, kept.people, kept.epoch, self._clock()),))
        if order.into is not None:
            word, people = await self._people.merge(project, order.contact_id, order.into), ()
        else:
            word, people = await self._erased(project, order.contact_id)
        self._failpoints.hit("conversation_log.contacts.executed")
        if word != "done":
            await self._orders.end(order.id, "refused", reason=word, epoch=project.epoch)
            return Done()
        await self._orders.end(order.id, "done", people=people, epoch=project.epoch)
        self._failpoints.hit("conversation_log.contacts.ended")
        return Done((done(order, people, project.epoch, self._clock()),))

    async def again(self, project: ProjectListed, people: Sequence[UUID]) -> tuple[UUID, ...]:
        """Erases people in a database that came back from a backup; who is erased there. Some may be two again, or not be there yet.

        Raises:
            Busy, Behind, WrongDatabase, DatabaseAway: it is to be tried again.
        """
        erased = set(people)
        for contact in people:
            erased |= set((await self._erased(project, contact))[1])
        return tuple(sorted(erased))

    async def _erased(self, project: ProjectListed, contact: UUID) -> tuple[str, tuple[UUID, ...]]:
        """Step by step; the word for it, and who was erased."""
        while True:
            step = await self._people.erase(project, contact)
            if not step.more:
                return step.outcome, step.people if step.outcome == "done" else ()
            self._failpoints.hit("conversation_log.contacts.step")
