"""Webhooks to the gateway: signed over their exact bytes, repeated until they are answered 200."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
import logging
from typing import Any, Final

import aiohttp

from loquat_simulator.world import Number, World

Json = dict[str, Any]
_PAUSES: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0, 30.0, 60.0)
"""Seconds between deliveries of one body. Meta goes on for seven days; a simulator for two minutes."""
_WAITING: Final = 10_000
log = logging.getLogger(__name__)


class Webhooks:
    """Delivers bodies, several at once: Meta keeps no order."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._session: aiohttp.ClientSession | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._held: list[tuple[Number, bytes]] = []

    async def start(self) -> None:
        """Opens the client."""
        self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10))

    async def stop(self) -> None:
        """Gives up what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._session is not None:
            await self._session.close()

    def change(self, number: Number, value: Json, field: str = "messages") -> None:
        """Sends one change of this number."""
        metadata = {"display_phone_number": number.display_phone_number, "phone_number_id": number.phone_number_id}
        whole = {"messaging_product": "whatsapp", "metadata": metadata, **value}
        body = {"object": "whatsapp_business_account", "entry": [{"id": number.waba_id, "changes": [{"field": field, "value": whole}]}]}
        self.raw(number, json.dumps(body).encode())

    def raw(self, number: Number, body: bytes) -> None:
        """Sends these bytes. Faults: `duplicate` sends them three times, `reorder` holds them back until the next body has gone."""
        if self._world.fault(number.phone_number_id, "reorder"):
            self._held.append((number, body))
            return
        times = 3 if self._world.fault(number.phone_number_id, "duplicate") else 1
        held, self._held = self._held, []
        for target, raw in [(number, body)] * times + held:
            self._spawn(target, raw)

    def _spawn(self, number: Number, body: bytes) -> None:
        if len(self._tasks) >= _WAITING:
            log.warning("more than %s webhooks wait; one is dropped", _WAITING)
            return
        task = asyncio.create_task(self._deliver(number, body), name="webhook")
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _deliver(self, number: Number, body: bytes) -> None:
        for pause in (*_PAUSES, None):
            if await self._post(number, body) == 200 or pause is None:  # noqa: PLR2004
                return
            await asyncio.sleep(pause)

    async def _post(self, number: Number, body: bytes) -> int:
        if self._session is None:
            return 0
        signature = "sha256=" + hmac.digest(number.app_secret.encode(), body, hashlib.sha256).hex()
        try:
            async with self._session.post(
                number.webhook_url, data=body, headers={"X-Hub-Signature-256": signature, "Content-Type": "application/json"}
            ) as response:
                return response.status
        except (aiohttp.ClientError, TimeoutError, OSError):
            return 0
