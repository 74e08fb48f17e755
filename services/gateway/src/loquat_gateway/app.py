"""The wiring of the gateway."""

from __future__ import annotations

from datetime import UTC, datetime

from loquat_common.bus.factory import open_bus
from loquat_common.client import InternalClient
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.service import Service
from loquat_common.tokens import Signer
from loquat_events.catalog import DIRECTORY, NUMBERS
from loquat_events.catalog import Service as ServiceName

from loquat_gateway.adapters.intake import Intake
from loquat_gateway.adapters.people import Owner, People
from loquat_gateway.adapters.routing import Routing
from loquat_gateway.domain.scopes import ALL
from loquat_gateway.handlers.listed import Listed
from loquat_gateway.http.access import Access
from loquat_gateway.http.api import build
from loquat_gateway.http.contacts import Contacts
from loquat_gateway.http.deadletters import DeadLetters
from loquat_gateway.http.forward import OWNED, Forward
from loquat_gateway.http.messages import Messages
from loquat_gateway.http.projects import Projects
from loquat_gateway.http.resources import Resources
from loquat_gateway.http.webhook import MetaApp, Webhook
from loquat_gateway.settings import Settings

OWNERS: tuple[ServiceName, ...] = ("provisioner", "schema-manager", "connector", "bot-runner", "conversation-log")


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "gateway", "loquat_gateway.migrations")
        bus = open_bus(settings, "gateway", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        numbers, directory_table, people = bus.table(NUMBERS), bus.table(DIRECTORY), People(service.pool)
        listed = Listed(people)
        directory_table.on_change(listed.heard)
        for name, table in (("routing table", numbers), ("directory", directory_table)):
            life.spawn(name, table.run())
            await life.until(table.caught_up())
        life.spawn("listed projects", listed.run())
        signer = Signer("gateway", settings.signing_key or "")
        clients: dict[ServiceName, InternalClient] = {name: InternalClient(settings.services[name], signer, name) for name in OWNERS}
        for name, client in clients.items():
            await life.enter(f"{name} client", client.start, client.stop)
        routing, directory = Routing(numbers), Directory(directory_table)

        async def fresh() -> None:
            routing.check()

        service.health.add("routing table", fresh)
        access = Access(people, directory, lambda: datetime.now(UTC))
        apps = {name: MetaApp(app_secret=a.app_secret, verify_token=a.verify_token) for name, a in settings.meta_apps.items()}
        intake = Intake(routing, bus, Failpoints(settings.failpoints_dir), lambda: datetime.now(UTC))
        await life.enter("intake", intake.start, intake.stop)
        api = build(
            access,
            Webhook(apps, intake),
            Projects(people, access, clients["provisioner"], bus, lambda: datetime.now(UTC)),
            Resources(access, people, routing, clients),
            Messages(access, clients["conversation-log"], clients["connector"], bus, lambda: datetime.now(UTC)),
            DeadLetters(access, people, clients),
            Contacts(access, people, clients, bus, lambda: datetime.now(UTC)),
            Forward(access, people, clients, OWNED),
        )
        server = Server(api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


async def create_owner(settings: Settings, owner: Owner) -> bool:
    """Makes the first organization with this owner. Asked again with the same key, it is there; False: another owner is."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "gateway", "loquat_gateway.migrations")
        return await People(service.pool).create_owner(owner, ALL)
