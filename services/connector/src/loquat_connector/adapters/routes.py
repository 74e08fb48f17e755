"""What this service tells the others, in the background: outcomes of messages, the owners of numbers, updates that had waited for one."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from datetime import datetime
from typing import Any, Final
from uuid import UUID

from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.db import is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.catalog import NUMBERS
from loquat_events.envelope import AnyEvent, Event, Payload
from loquat_events.ids import fact_id
from loquat_events.meta import split_change
from loquat_events.numbers import NumberAttached

from loquat_connector.adapters.numbers import Number, Numbers
from loquat_connector.adapters.queue import SendQueue

_REST: Final = 30.0
_MOST: Final = 200


class Teller:
    """Publishes rows, then deletes or marks them: a crash in between publishes them again under the same ids.

    `moving` is how long a number rests between two owners: longer than any gateway's routing lease. `attached` is called when a number can
    send from now on.
    """

    def __init__(
        self,
        queue: SendQueue,
        numbers: Numbers,
        bus: Bus,
        failpoints: Failpoints,
        moving: float,
        clock: Callable[[], datetime],
        attached: Callable[[], None],
    ) -> None:
        self._queue, self._numbers, self._bus, self._failpoints, self._clock = queue, numbers, bus, failpoints, clock
        self._moving, self._attached = moving, attached
        self._news = asyncio.Event()
        self._log = get_logger()

    def wake(self) -> None:
        """There is something to tell."""
        self._news.set()

    async def run(self) -> None:
        """For ever; a bus or a database that is away is waited for."""
        while True:
            self._news.clear()
            try:
                pause = await self._round()
            except BusUnavailable:
                pause = 1.0
            except Exception as error:
                if not is_gone(error):
                    raise
                pause = 1.0
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def _round(self) -> float:
        while outcomes := await self._queue.outcomes(_MOST):
            await self._bus.publish(*(self._event(body, key, project, str(body.message_id)) for key, project, body in outcomes))
            self._failpoints.hit("connector.after_publish")
            await self._queue.told([key for key, _, _ in outcomes])
        for number in await self._numbers.pending():
            await self._number(number)
        for number in await self._numbers.attached_with_kept():
            await self._replay(number)
        due = await self._numbers.next_due()
        return _REST if due is None else min(_REST, max(0.05, due))

    async def _number(self, number: Number) -> None:
        if number.state == "detaching":
            await self._bus.remove(NUMBERS, project="numbers", lane=number.phone_number_id)
            await self._numbers.published(number)
            await self._numbers.forget(number)
            return
        if not number.retired:
            await self._bus.remove(NUMBERS, project="numbers", lane=number.phone_number_id)
            await self._numbers.retire(number, self._moving)
            return
        at = self._clock()
        attached = NumberAttached(
            phone_number_id=number.phone_number_id,
            project_id=number.project_id,
            waba_id=number.waba_id,
            display_phone_number=number.display_phone_number,
            attached_at=at,
        )
        key = fact_id("number", number.phone_number_id, number.project_id, number.attach_at.isoformat())
        await self._bus.publish(self._event(attached, key, "numbers", number.phone_number_id))
        await self._numbers.published(number)
        self._attached()
        self._log.info("number.attached", number=number.phone_number_id, project=number.project_id)

    async def _replay(self, number: Number) -> None:
        """In the order in which they came, with the ids that a gateway would have given them."""
        while kept := await self._numbers.kept(number.phone_number_id, _MOST):
            for update in kept:
                change: dict[str, Any] = json.loads(update.change)
                facts = [f for f in split_change(change, update.waba_id) if f.number is not None]
                await self._bus.publish(*(self._event(f.payload, f.id, number.project_id, f.lane) for f in facts))
            await self._numbers.replayed(number.phone_number_id, [k.seq for k in kept])

    def _event(self, data: Payload, key: UUID, project: str, lane: str) -> AnyEvent:
        return Event[Payload].of(data, id=key, source="/connector", time=self._clock(), project=project, lane=lane)
