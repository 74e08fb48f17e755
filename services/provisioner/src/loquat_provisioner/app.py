"""The wiring of the provisioner: read it and you know the process."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import asyncpg
from loquat_common.bus.factory import open_bus
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.db import CONNECT_LIMIT
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.service import Service
from loquat_common.settings import ClusterAddress
from loquat_common.tokens import Signer, Verifier
from loquat_events.catalog import COMMANDS

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.reaper import Reaper
from loquat_provisioner.adapters.starter import StarterBot
from loquat_provisioner.adapters.store import Store
from loquat_provisioner.handlers.commands import Commands
from loquat_provisioner.http.api import ProjectApi
from loquat_provisioner.settings import Settings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "provisioner", "loquat_provisioner.migrations")
        signer = Signer("provisioner", settings.signing_key or "")
        bots = InternalClient(settings.services["bot-runner"], signer, "bot-runner")
        await life.enter("bot-runner client", bots.start, bots.stop)
        clusters = {name: ProjectDatabases(_connector(address)) for name, address in settings.tenant_clusters.items()}
        for name, databases in clusters.items():
            life.on_stop(f"cluster {name}", databases.close)
        store = Store(service.pool, KeyRing.from_json(settings.key_ring or ""))
        bus = open_bus(settings, "provisioner", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        commands = Commands(
            store, clusters, StarterBot(bots, settings.starter_bot), bus, Failpoints(settings.failpoints_dir), lambda: datetime.now(UTC)
        )
        service.follow(life, "provisioner", bus.subscribe("provisioner", [COMMANDS], commands.handle))
        for name, address in settings.tenant_clusters.items():
            life.spawn(f"reaper {name}", Reaper(ProjectDatabases(_connector(address))).run())
        authenticate = internal_auth(Verifier(settings.trusted_keys, "provisioner"))
        api = ProjectApi(store, settings.tenant_clusters, authenticate)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


def _connector(address: ClusterAddress) -> Callable[[str], Awaitable[Connection]]:
    async def connect(database: str) -> Connection:
        return await asyncpg.connect(
            host=address.host,
            port=address.port,
            user="loquat_provisioner",
            password=address.password.get_secret_value(),
            database=database,
            timeout=CONNECT_LIMIT,
            command_timeout=60,  # CREATE and DROP DATABASE wait for a checkpoint under load
            statement_cache_size=0,
        )

    return connect
