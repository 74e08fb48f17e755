"""Messages into the queue, statuses to what nobody knew, unrouted updates and those of accounts kept."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from loquat_common import metrics
from loquat_common.bus.port import Dead, Done, Outcome, Received
from loquat_common.failpoints import Failpoints
from loquat_events.conversations import MessageQueued, StatusReceived, TypingBegun
from loquat_events.numbers import AccountUpdateReceived, UpdateUnrouted

from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.queue import SendQueue
from loquat_connector.domain.graph import Unsendable, recipient


class Messages:
    """The handler of the outbox, the receipts, the unrouted updates and those of accounts. It never waits inside the bus.

    `gone` says whether the project that an event of a time names has left: its message may come again when everything of it is forgotten.
    """

    def __init__(
        self,
        gone: Callable[[str, datetime], bool],
        queue: SendQueue,
        numbers: Numbers,
        accounts: Accounts,
        failpoints: Failpoints,
        wake: Callable[[], None],
        told: Callable[[], None],
        typing: Callable[[str, TypingBegun], None],
    ) -> None:
        self._gone = gone
        self._queue, self._numbers, self._accounts, self._failpoints = queue, numbers, accounts, failpoints
        self._wake, self._told, self._typing = wake, told, typing

    async def handle(self, received: Received) -> Outcome:
        """One event."""
        match received.event.data:
            case MessageQueued() if self._gone(received.event.projectid, received.event.time):
                metrics.bus_orphans.labels("connector").inc()
            case MessageQueued() as queued:
                await self._take(received.event.projectid, queued)
            case TypingBegun() as begun:
                self._typing(received.event.projectid, begun)
            case StatusReceived() as status if status.message_id is not None:
                await self._queue.resolve(status)
            case UpdateUnrouted() as update:
                await self._numbers.keep(received.event.id, update)
                self._told()
            case AccountUpdateReceived() as update:
                await self._accounts.keep(received.event.id, update, received.event.time)
            case StatusReceived():
                return Done()
            case _ if received.event.source == "/connector":
                return Done()  # our own word comes by again
            case _:
                return Dead(f"{received.event.type} is nothing for the connector")
        return Done()

    async def _take(self, project: str, queued: MessageQueued) -> None:
        try:
            to, is_user_id = recipient(queued.addresses)
        except Unsendable as error:
            await self._queue.refuse(project, queued, str(error))
            self._told()
            return
        await self._queue.put(project, queued, to, is_user_id=is_user_id)
        self._failpoints.hit("connector.after_queue")
        self._wake()
