"""The wiring of the simulator."""

from __future__ import annotations

import logging

from aiohttp import web
from loquat_common.http import Api
from loquat_common.lifecycle import Lifecycle, Server
from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from loquat_simulator.meta import Meta
from loquat_simulator.phone import Phones
from loquat_simulator.webhooks import Webhooks
from loquat_simulator.world import World


class Settings(BaseSettings):
    """Environment variables with the prefix LOQUAT_SIMULATOR_."""

    model_config = SettingsConfigDict(env_prefix="LOQUAT_SIMULATOR_", frozen=True, extra="ignore")

    host: str = Field(default="127.0.0.1", description="address to listen on; not for the public")
    port: int = Field(default=8090, ge=0, le=65535)


def build(world: World, webhooks: Webhooks) -> web.Application:
    """The application. It is for a laptop: whoever reaches it may use it, and it listens on loopback only."""
    meta = Meta(world, webhooks)
    api = Api("Loquat simulator", "0.1.0")
    Phones(world, meta, webhooks).add_to(api)

    async def livez(_request: web.Request) -> web.Response:
        return web.json_response({"status": "ok"})

    api.route("GET", "/livez", livez, summary="Alive")
    app = api.app()
    meta.add_to(app)
    return app


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    logging.basicConfig(level=logging.INFO)
    world = World()
    webhooks = Webhooks(world)
    async with Lifecycle(2) as life:
        await life.enter("webhooks", webhooks.start, webhooks.stop)
        server = Server(build(world, webhooks), settings.host, settings.port, drain_seconds=0.5)
        await life.enter("http", server.start, server.stop)
        await life.until_signalled()
