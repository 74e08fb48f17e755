"""The wiring of the conversation-log."""

from __future__ import annotations

from datetime import UTC, datetime

from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.bus.port import Batching
from loquat_common.db import ProjectPools, as_service
from loquat_common.deadletters import DeadLetterApi
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.retention import Retention
from loquat_common.service import Service
from loquat_common.tokens import Verifier
from loquat_events.catalog import CONTACTS, DIRECTORY, INBOX, OUTBOX, RECEIPTS

from loquat_conversation_log.adapters.orders import Orders
from loquat_conversation_log.adapters.people import ProjectPeople
from loquat_conversation_log.adapters.queries import Queries
from loquat_conversation_log.adapters.record import ProjectRecord
from loquat_conversation_log.handlers.contacts import Contacts
from loquat_conversation_log.handlers.record import Recorder
from loquat_conversation_log.handlers.returns import Returns
from loquat_conversation_log.http.api import RecordApi
from loquat_conversation_log.http.orders import OrdersApi
from loquat_conversation_log.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "conversation-log", "loquat_conversation_log.migrations")
        pools = ProjectPools(
            as_service(settings.tenant_clusters, "loquat_conversation_log", statements=settings.prepared_statements),
            cap=settings.project_connections,
        )
        life.on_stop("project pools", pools.close)
        life.spawn("idle project connections", pools.run())
        bus = open_bus(settings, "conversation-log", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        table, orders = bus.table(DIRECTORY), Orders(service.pool)
        departures = Departures(table, orders.projects, orders.forget)
        failpoints = Failpoints(settings.failpoints_dir)
        contacts = Contacts(ProjectPeople(pools), orders, Directory(table), failpoints, lambda: datetime.now(UTC))
        returns = Returns(orders, contacts, table, bus, failpoints, lambda: datetime.now(UTC))
        life.spawn("directory", table.run())
        await life.until(table.caught_up())
        directory = Directory(table)
        recorder = Recorder(ProjectRecord(pools), directory, bus, failpoints, lambda: datetime.now(UTC))
        topics, batching = [INBOX, OUTBOX, RECEIPTS], Batching(settings.batch, settings.linger)
        service.follow(life, "record", bus.subscribe_batches("conversation-log", topics, recorder.handle, batching))
        service.follow(life, "contacts", bus.subscribe("conversation-log-contacts", [CONTACTS], contacts.handle))
        life.spawn("returns", returns.run())
        life.spawn("departures", departures.run())
        life.spawn("retention", Retention(orders.sweep).run())
        api = RecordApi(Queries(pools), directory, internal_auth(Verifier(settings.trusted_keys, "conversation-log")))
        OrdersApi(orders, Queries(pools), directory).add_to(api.api)
        DeadLetterApi(DeadLetters(service.pool)).add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()
