"""The wiring of the provisioner: read it and you know the process."""

from __future__ import annotations

from datetime import UTC, datetime
from functools import partial

from loquat_common.bootstrap import Bootstraps
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.client import InternalClient
from loquat_common.crypto import KeyRing
from loquat_common.deadletters import DeadLetterApi
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.service import Service
from loquat_common.tokens import Signer, Verifier
from loquat_events.catalog import COMMANDS

from loquat_provisioner.adapters.backups import BackupStore
from loquat_provisioner.adapters.databases import ProjectDatabases, connector
from loquat_provisioner.adapters.dumps import Programs
from loquat_provisioner.adapters.limits import LimitsStore
from loquat_provisioner.adapters.previews import PreviewStore
from loquat_provisioner.adapters.reaper import Reaper
from loquat_provisioner.adapters.reservations import Reservations
from loquat_provisioner.adapters.starter import StarterBot
from loquat_provisioner.adapters.store import Store
from loquat_provisioner.adapters.throwaway import Clearing
from loquat_provisioner.handlers.backups import Backups
from loquat_provisioner.handlers.commands import Commands
from loquat_provisioner.handlers.facts import Facts
from loquat_provisioner.handlers.limits import PendingLimits
from loquat_provisioner.http.api import ProjectApi
from loquat_provisioner.http.backups import Keeping
from loquat_provisioner.http.dumps import Dumps, Turns
from loquat_provisioner.http.ownership import Ownership
from loquat_provisioner.http.pace import Pace
from loquat_provisioner.http.places import Places, Sayings
from loquat_provisioner.http.previews import Previews
from loquat_provisioner.http.uploads import Uploads
from loquat_provisioner.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "provisioner", "loquat_provisioner.migrations")
        signer = Signer("provisioner", settings.signing_key or "")
        bots = InternalClient(settings.services["bot-runner"], signer, "bot-runner")
        await life.enter("bot-runner client", bots.start, bots.stop)
        clusters = {name: ProjectDatabases(connector(address)) for name, address in settings.tenant_clusters.items()}
        for name, databases in clusters.items():
            life.on_stop(f"cluster {name}", databases.close)
        life.spawn(
            "bootstraps",
            Bootstraps(service.health, {n: partial(connector(a), "postgres") for n, a in settings.tenant_clusters.items()}).run(),
        )
        store = Store(service.pool, KeyRing.from_json(settings.key_ring or ""))
        bus = open_bus(settings, "provisioner", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        failpoints, facts, kept = Failpoints(settings.failpoints_dir), Facts(lambda: datetime.now(UTC)), BackupStore(service.pool)
        backups = Backups(store, kept, clusters, bus, failpoints, facts, kept=settings.backups_kept)
        commands = Commands(store, clusters, StarterBot(bots, settings.starter_bot), bus, failpoints, facts, backups, kept)
        service.follow(life, "provisioner", bus.subscribe("provisioner", [COMMANDS], commands.handle))
        for name, address in settings.tenant_clusters.items():
            life.spawn(f"reaper {name}", Reaper(ProjectDatabases(connector(address))).run())
        asked = {name: ProjectDatabases(connector(address)) for name, address in settings.tenant_clusters.items()}
        for name, databases in asked.items():
            life.on_stop(f"questions to cluster {name}", databases.close)
        chosen = LimitsStore(service.pool)
        life.spawn("limits", PendingLimits(store, chosen, asked).run())
        authenticate = internal_auth(Verifier(settings.trusted_keys, "provisioner"))
        api = ProjectApi(store, settings.tenant_clusters, authenticate)
        places = Places(store, asked, settings.tenant_clusters, {n: (a.host, a.port) for n, a in settings.public_clusters.items()})
        sayings, programs, turns = Sayings(bus, lambda: datetime.now(UTC)), Programs(settings.postgres_bin), Turns(settings.dumps_at_once)
        for part in (
            Ownership(places, chosen, settings.most, sayings),
            Dumps(places, programs, turns, Pace()),
            Uploads(places, chosen, programs, turns, Pace()),
            Keeping(places, kept, Reservations(service.pool), sayings, settings.backups_kept),
            _previews(life, service, settings, places, failpoints),
            DeadLetterApi(DeadLetters(service.pool)),
        ):
            part.add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


def _previews(life: Lifecycle, service: Service, settings: Settings, places: Places, failpoints: Failpoints) -> Previews:
    """Throw-away copies, and what drops them."""
    clusters = {name: ProjectDatabases(connector(address)) for name, address in settings.tenant_clusters.items()}
    for name, databases in clusters.items():
        life.on_stop(f"copies on cluster {name}", databases.close)
    ring = KeyRing.from_json(settings.key_ring or "")
    rows = PreviewStore(service.pool, ring, most=settings.preview_copies, idle=settings.preview_idle)
    clearing = Clearing(rows, clusters, failpoints)
    life.spawn("previews that are over", clearing.run())
    return Previews(places, rows, clusters, clearing, failpoints, settings.preview_size)
