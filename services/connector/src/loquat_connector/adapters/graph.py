"""The Graph API: one request, and what can be known of it afterwards."""

from __future__ import annotations

from typing import Any, Final

import aiohttp
import orjson

from loquat_connector.adapters.bodies import parsed, whole
from loquat_connector.domain.verdict import Verdict, answered, nobody_knows, not_sent

LIMIT: Final = 10.0
"""Seconds for one call in all."""
_CONNECT: Final = 5.0


class Graph:
    """Posts messages, each within `limit` seconds. Errors never carry the token: no exception of the client leaves here."""

    def __init__(self, base_url: str, version: str, *, limit: float = LIMIT) -> None:
        self._base, self._limit = f"{base_url.rstrip('/')}/{version}", limit
        self._session: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the client."""
        timeout = aiohttp.ClientTimeout(total=self._limit, connect=_CONNECT, sock_connect=_CONNECT)
        self._session = aiohttp.ClientSession(
            timeout=timeout, connector=aiohttp.TCPConnector(limit=200), json_serialize=lambda v: orjson.dumps(v).decode()
        )

    async def stop(self) -> None:
        """Closes it."""
        if self._session is not None:
            await self._session.close()

    async def send(self, number: str, token: str, body: dict[str, Any], attempt: int) -> Verdict:
        """Posts one message; never raises for what the network or Meta does."""
        if self._session is None:
            raise RuntimeError("the client is not started")
        try:
            async with self._session.post(
                f"{self._base}/{number}/messages", json=body, headers={"Authorization": f"Bearer {token}"}
            ) as response:
                return answered(response.status, parsed(await whole(response.content)), attempt)
        except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
            return not_sent(type(error).__name__, attempt)
        except (aiohttp.ClientError, TimeoutError, OSError) as error:
            return nobody_knows(type(error).__name__)

    async def typing(self, number: str, token: str, wamid: str) -> str:
        """Shows the contact of this message that it was read and is being answered; what came of it: `shown`, `refused`, or `failed`."""
        if self._session is None:
            raise RuntimeError("the client is not started")
        body = {"messaging_product": "whatsapp", "status": "read", "message_id": wamid, "typing_indicator": {"type": "text"}}
        try:
            async with self._session.post(
                f"{self._base}/{number}/messages", json=body, headers={"Authorization": f"Bearer {token}"}
            ) as response:
                await whole(response.content)
                return "shown" if response.ok else "refused"
        except (aiohttp.ClientError, TimeoutError, OSError):
            return "failed"
