"""Meta's webhook: verified over the raw bytes, stored, and only then answered."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final

from aiohttp import web
from loquat_common import metrics
from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_events.catalog import topic_of
from pydantic import BaseModel, SecretStr

from loquat_gateway.adapters.routing import Routing, Stale
from loquat_gateway.domain import webhook

DEFAULT_APP: Final = "default"
_IN_FLIGHT: Final = 32 << 20
"""Bytes of bodies under way at most; beyond it Meta is asked to come again, at once."""


class MetaApp(BaseModel):
    """One Meta app: its secret signs bodies, its token answers the challenge."""

    app_secret: SecretStr
    verify_token: SecretStr


class Webhook:
    """`/webhooks/whatsapp` for the default app, `/webhooks/whatsapp/{app}` for further ones: nothing in a body names its app."""

    def __init__(
        self, apps: Mapping[str, MetaApp], routing: Routing, bus: Bus, failpoints: Failpoints, clock: Callable[[], datetime]
    ) -> None:
        self._apps, self._routing, self._bus = apps, routing, bus
        self._failpoints, self._clock = failpoints, clock
        self._in_flight = 0

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for path in ("/webhooks/whatsapp", "/webhooks/whatsapp/{app}"):
            api.route("GET", path, self.challenge, summary="Meta verifies the address")
            api.route("POST", path, self.receive, summary="Meta delivers updates", errors=(400, 401, 413, 422, 503))

    def _app(self, request: web.Request) -> MetaApp:
        app = self._apps.get(request.match_info.get("app", DEFAULT_APP))
        if app is None:
            raise not_found("Meta app")
        return app

    async def challenge(self, request: web.Request) -> web.Response:
        """The challenge, as it came, for who knows the verify token."""
        token, wanted = request.query.get("hub.verify_token", ""), self._app(request).verify_token.get_secret_value()
        known = hmac.compare_digest(token.encode(errors="surrogatepass"), wanted.encode())
        if request.query.get("hub.mode") != "subscribe" or not known:
            raise Problem(403, "wrong_verify_token", "The verify token is not ours")
        return web.Response(text=request.query.get("hub.challenge", ""), content_type="text/plain")

    async def receive(self, request: web.Request) -> web.Response:
        """200 when every update is durable; 503 when that cannot be known in time."""
        app = self._app(request)
        size = request.content_length or webhook.BODY_LIMIT
        if self._in_flight + size > _IN_FLIGHT:
            metrics.webhook_bodies.labels("busy").inc()
            raise Problem(503, "busy", "Too much is under way", "Deliver it again")
        self._in_flight += size
        try:
            return await self._stored(request, app, await request.read())
        except web.HTTPRequestEntityTooLarge:
            metrics.webhook_bodies.labels("too_large").inc()
            raise Problem(413, "too_large", "The body is too large", f"{webhook.LARGEST} bytes are the limit") from None
        finally:
            self._in_flight -= size

    async def _stored(self, request: web.Request, app: MetaApp, raw: bytes) -> web.Response:
        if not signed(app.app_secret.get_secret_value(), raw, request.headers.get("X-Hub-Signature-256", "")):
            metrics.webhook_bodies.labels("wrong_signature").inc()
            raise Problem(401, "wrong_signature", "The signature is not that of the app's secret over this body")
        try:
            body = webhook.parse(raw)
            self._routing.check()
            events = webhook.events(body, self._routing.project, self._clock())
            self._failpoints.hit("gateway.before_publish")
            await self._bus.publish(*events)
            self._failpoints.hit("gateway.after_publish")
        except webhook.BodyRefused as refused:
            metrics.webhook_bodies.labels("refused").inc()
            raise Problem(refused.status, refused.code, refused.title) from None
        except (BusUnavailable, Stale):
            metrics.webhook_bodies.labels("unavailable").inc()
            raise Problem(503, "unavailable", "The updates cannot be kept now", "Deliver them again") from None
        metrics.webhook_bodies.labels("kept").inc()
        for event in events:
            metrics.webhook_updates.labels(topic_of(type(event.data)).name).inc()
        return web.Response()


def signed(secret: str, raw: bytes, header: str) -> bool:
    """Whether the header signs these very bytes."""
    wanted = "sha256=" + hmac.digest(secret.encode(), raw, hashlib.sha256).hex()
    return hmac.compare_digest(wanted.encode(), header.encode(errors="surrogatepass"))
