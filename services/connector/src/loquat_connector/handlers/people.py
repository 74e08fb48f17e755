"""People who were erased: whatever of theirs is still on its way is neither sent nor kept."""

from __future__ import annotations

from collections.abc import Callable

from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.failpoints import Failpoints
from loquat_events.contacts import ContactErased

from loquat_connector.adapters.people import ForgottenSends


class People:
    """The handler of `projects.events.v1`. `told` is called when there may be outcomes to publish."""

    def __init__(self, sends: ForgottenSends, failpoints: Failpoints, told: Callable[[], None]) -> None:
        self._sends, self._failpoints, self._told = sends, failpoints, told

    async def handle(self, received: Received) -> Outcome:
        """One event; most are nothing to us."""
        event = received.event
        if isinstance(event.data, ContactErased):
            await self._sends.bar(event.projectid, event.data.people)
            self._failpoints.hit("connector.people.barred")
            await self._sends.forget_contacts(event.projectid, event.data.people)
            self._told()
        return Done()
