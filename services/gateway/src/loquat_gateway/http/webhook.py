"""Meta's webhook: verified over the raw bytes, stored, and only then answered."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Final

from aiohttp import web
from loquat_common import metrics
from loquat_common.bus.port import BusUnavailable, EventTooLarge
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from pydantic import BaseModel, SecretStr

from loquat_gateway.adapters.intake import Intake, WrongSignature
from loquat_gateway.adapters.routing import Stale
from loquat_gateway.domain import webhook

DEFAULT_APP: Final = "default"
_IN_FLIGHT: Final = 32 << 20
"""Bytes of bodies under way at most; beyond it Meta is asked to come again, at once. What was read counts, not what a stranger announces."""
PATIENCE: Final = 10.0
"""Seconds for a body to arrive. Meta sends its 3 MB in one go; nobody has signed anything yet, so who takes longer is let go."""
_kept: Final = metrics.webhook_bodies.labels("kept")


class MetaApp(BaseModel):
    """One Meta app: its secret signs bodies, its token answers the challenge."""

    app_secret: SecretStr
    verify_token: SecretStr

    @cached_property
    def keyed(self) -> hmac.HMAC:
        """HMAC-SHA256 with the secret, to be copied for each body."""
        return hmac.new(self.app_secret.get_secret_value().encode(), digestmod="sha256")


class Webhook:
    """`/webhooks/whatsapp` for the default app, `/webhooks/whatsapp/{app}` for further ones: nothing in a body names its app."""

    def __init__(self, apps: Mapping[str, MetaApp], intake: Intake, *, patience: float = PATIENCE) -> None:
        self._apps, self._intake, self._patience = apps, intake, patience
        self._in_flight = 0

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for path in ("/webhooks/whatsapp", "/webhooks/whatsapp/{app}"):
            api.route("GET", path, self.challenge, summary="Meta verifies the address")
            api.route("POST", path, self.receive, summary="Meta delivers updates", errors=(400, 401, 408, 413, 422, 503))

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
        app, share = self._app(request), _Share()
        try:
            raw = await self._read(request, share)
            await self._intake.keep(app.keyed, request.headers.get("X-Hub-Signature-256", ""), raw)
        except WrongSignature:
            metrics.webhook_bodies.labels("wrong_signature").inc()
            raise Problem(401, "wrong_signature", "The signature is not that of the app's secret over this body") from None
        except webhook.BodyRefused as refused:
            metrics.webhook_bodies.labels("refused").inc()
            raise Problem(refused.status, refused.code, refused.title) from None
        except (BusUnavailable, Stale):
            metrics.webhook_bodies.labels("unavailable").inc()
            raise Problem(503, "unavailable", "The updates cannot be kept now", "Deliver them again") from None
        except EventTooLarge:  # never a 200: Meta repeats for days, in which an operator lets the engine take more
            metrics.webhook_bodies.labels("unkeepable").inc()
            raise Problem(503, "unkeepable", "An update is larger than the bus takes", "Deliver it again; its operators are told") from None
        finally:
            self._in_flight -= share.size
        _kept.inc()
        return web.Response()

    async def _read(self, request: web.Request, share: _Share) -> bytes:
        """The body, piece by piece: a connection holds no more of what is under way than it has sent.

        Raises:
            Problem: 408, 413 or 503.
        """
        if (request.content_length or 0) > webhook.BODY_LIMIT:
            raise _too_large()
        if request.content.is_eof():  # all of it came with its head, as nearly always: there is nothing to wait for
            raw = request.content.read_nowait()
            self._admit(share, len(raw))
            return raw
        pieces = list[bytes]()
        try:
            async with asyncio.timeout(self._patience):
                while piece := await request.content.readany():
                    self._admit(share, len(piece))
                    pieces.append(piece)
        except TimeoutError:
            metrics.webhook_bodies.labels("too_slow").inc()
            raise Problem(408, "too_slow", "The body did not arrive in time", f"{self._patience:g} s are the limit") from None
        return b"".join(pieces)

    def _admit(self, share: _Share, size: int) -> None:
        share.size += size
        self._in_flight += size
        if share.size > webhook.BODY_LIMIT:
            raise _too_large()
        if self._in_flight > _IN_FLIGHT:
            metrics.webhook_bodies.labels("busy").inc()
            raise Problem(503, "busy", "Too much is under way", "Deliver it again")


@dataclass(slots=True)
class _Share:
    """Bytes of one body that are under way."""

    size: int = 0


def _too_large() -> Problem:
    metrics.webhook_bodies.labels("too_large").inc()
    return Problem(413, "too_large", "The body is too large", f"{webhook.LARGEST} bytes are the limit")
