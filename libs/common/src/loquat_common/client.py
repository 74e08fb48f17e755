"""Questions to other services: one request, one token for it, one time-out."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from typing import Any, Final

import aiohttp
import orjson
from yarl import URL

from loquat_common.problems import Problem
from loquat_common.tokens import Actor, Signer

LIMIT: Final = 5.0
"""Seconds for an answer. Services answer in milliseconds; a caller at the front has a person waiting."""
_LARGEST: Final = 64 << 20  # bytes of an answer; beyond it something is wrong


class ServiceUnavailable(Problem):
    """The other service did not answer."""

    def __init__(self, service: str) -> None:
        super().__init__(503, "service_unavailable", "A part of the platform does not answer", f"{service} is away; try again")


class InternalClient:
    """Asks one service. Its problems are raised again as they came."""

    def __init__(self, base_url: str, signer: Signer, audience: str) -> None:
        self._base, self._signer, self._audience = base_url.rstrip("/"), signer, audience
        self._session: aiohttp.ClientSession | None = None
        self._forwarding: aiohttp.ClientSession | None = None

    async def start(self) -> None:
        """Opens the client."""
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=50), json_serialize=lambda v: orjson.dumps(v, default=str).decode()
        )
        # How many are forwarded is for the caller to bound: those who send slowly must not stand before our own questions.
        self._forwarding = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0))

    async def stop(self) -> None:
        """Closes it."""
        for session in (self._session, self._forwarding):
            if session is not None:
                await session.close()

    async def call(
        self,
        method: str,
        path: str,
        *,
        actor: Actor,
        query: dict[str, str] | None = None,
        json: object = None,
        timeout: float = LIMIT,  # noqa: ASYNC109  (per question, not a scope)
    ) -> Any:
        """The answer's JSON; None for 204.

        Raises:
            Problem: what the service answered; 502 `bad_answer` when that is no answer, or larger than 64 MiB.
            ServiceUnavailable: nothing, or nothing in time. For a question that changes something: it may have happened.
        """
        if self._session is None:
            raise RuntimeError("the client is not started")
        token = self._signer.sign(actor, self._audience, method, path)
        try:
            async with self._session.request(
                method,
                self._base + path,
                params=query,
                json=json,
                headers={"Authorization": f"Bearer {token}"},
                timeout=aiohttp.ClientTimeout(total=timeout),
            ) as response:
                body = await self._whole(response)
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise ServiceUnavailable(self._audience) from None
        if response.status >= 400:  # noqa: PLR2004
            raise _problem(response.status, body, self._audience)
        try:
            return orjson.loads(body) if body else None
        except orjson.JSONDecodeError:
            raise _nonsense(f"{self._audience} answered no JSON") from None

    async def _whole(self, response: aiohttp.ClientResponse) -> bytes:
        """To its end: one read gives what has come so far."""
        body = bytearray()
        async for part in response.content.iter_any():
            body += part
            if len(body) > _LARGEST:
                raise _nonsense(f"{self._audience} answered more than {_LARGEST} bytes")
        return bytes(body)

    @asynccontextmanager
    async def forward(
        self,
        method: str,
        url: str,
        *,
        actor: Actor,
        body: bytes | AsyncIterator[bytes] | None,
        headers: Mapping[str, str],
        seconds: float,
        streams: bool,
    ) -> AsyncGenerator[aiohttp.ClientResponse]:
        """Hands a request on as it came: `url` is the path and query, encoded. The answer is the service's own, a problem too.

        `seconds` is for the whole answer, or, if it `streams`, for each silence.

        Raises:
            ServiceUnavailable: nothing came, or nothing in time.
        """
        if self._forwarding is None:
            raise RuntimeError("the client is not started")
        target = URL(self._base + url, encoded=True)
        token = self._signer.sign(actor, self._audience, method, target.path)
        limit = aiohttp.ClientTimeout(total=None if streams else seconds, sock_connect=LIMIT, sock_read=seconds)
        try:
            async with self._forwarding.request(
                method, target, data=body, headers={**headers, "Authorization": f"Bearer {token}"}, timeout=limit, allow_redirects=False
            ) as response:
                yield response
        except (aiohttp.ClientError, TimeoutError, OSError):
            raise ServiceUnavailable(self._audience) from None

    def itself(self, *scopes: str) -> Actor:
        """The actor when a service asks for itself."""
        return Actor("service", self._signer.issuer, scopes=frozenset(scopes))


def _problem(status: int, body: bytes, service: str) -> Problem:
    try:
        given = orjson.loads(body)
        return Problem(
            status, given.pop("code"), given.pop("title"), given.pop("detail", None), **{k: v for k, v in given.items() if k != "status"}
        )
    except (orjson.JSONDecodeError, KeyError, AttributeError, TypeError):
        return _nonsense(f"{service} answered {status}")


def _nonsense(detail: str) -> Problem:
    return Problem(502, "bad_answer", "A part of the platform gave an answer that is none", detail)
