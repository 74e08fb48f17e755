"""Health on an internal port: `/livez`, `/readyz`, `/metrics`. Each resource brings its own ping; readiness is the list of pings."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import Final

from aiohttp import web

from loquat_common import metrics
from loquat_common.logs import get_logger

Ping = Callable[[], Awaitable[None]]
Measure = Callable[[], Awaitable[object]]
_PING_LIMIT: Final = 2.0  # seconds; a probe waits 3 to 5 by custom


class Health:
    """What this process needs in order to work, and facts about it that an operator wants to see."""

    def __init__(self) -> None:
        self._pings: dict[str, Ping] = {}
        self._facts: dict[str, str] = {}
        self._gauges: dict[str, Measure] = {}
        self._log = get_logger()

    def add(self, name: str, ping: Ping) -> None:
        """`ping` returns when the resource works and raises when it does not."""
        self._pings[name] = ping

    def note(self, name: str, value: str) -> None:
        """A fact for `/readyz`, such as the isolation level."""
        self._facts[name] = value

    @property
    def facts(self) -> Mapping[str, str]:
        """What was noted."""
        return self._facts

    def measure(self, name: str, take: Measure) -> None:
        """`take` brings gauges up to date that cost a question, such as lag: only when somebody asks for the metrics."""
        self._gauges[name] = take

    async def check(self) -> dict[str, str]:
        """`ok` or what is wrong, by name. All pings at once, each within 2 s."""
        answers = await asyncio.gather(*(self._ask(name, ping) for name, ping in self._pings.items()))
        return dict(zip(self._pings, answers, strict=True))

    async def _ask(self, name: str, ping: Ping) -> str:
        try:
            async with asyncio.timeout(_PING_LIMIT):
                await ping()
        except Exception as error:  # noqa: BLE001  (whatever a resource raises, it is not ready)
            self._log.warning("health.not_ready", resource=name, error=type(error).__name__)
            return f"{type(error).__name__}"
        return "ok"

    def app(self) -> web.Application:
        """The internal application."""
        app = web.Application()
        app.router.add_get("/livez", self._livez)
        app.router.add_get("/readyz", self._readyz)
        app.router.add_get("/metrics", self._metrics)
        return app

    async def _livez(self, _request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    async def _readyz(self, _request: web.Request) -> web.Response:
        checks = await self.check()
        ready = all(answer == "ok" for answer in checks.values())
        body = {"status": "ok" if ready else "not ready", "checks": checks, "facts": self._facts}
        return web.json_response(body, status=200 if ready else 503)

    async def _take(self, name: str, take: Measure) -> None:
        try:
            async with asyncio.timeout(_PING_LIMIT):
                await take()
        except Exception as error:  # noqa: BLE001  (one gauge that cannot be measured must not hide all others)
            self._log.warning("metrics.not_measured", gauge=name, error=type(error).__name__)

    async def _metrics(self, _request: web.Request) -> web.Response:
        await asyncio.gather(*(self._take(name, take) for name, take in self._gauges.items()))
        return web.Response(body=metrics.exposition(), headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"})
