"""The wiring of the conversation-log."""

from __future__ import annotations

from datetime import UTC, datetime

from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.bus.port import Batching
from loquat_common.db import ProjectPools, as_service
from loquat_common.deadletters import DeadLetterApi
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.service import Service
from loquat_common.tokens import Verifier
from loquat_events.catalog import DIRECTORY, INBOX, OUTBOX, RECEIPTS

from loquat_conversation_log.adapters.queries import Queries
from loquat_conversation_log.adapters.record import ProjectRecord
from loquat_conversation_log.handlers.record import Recorder
from loquat_conversation_log.http.api import RecordApi
from loquat_conversation_log.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "conversation-log", None)
        pools = ProjectPools(
            as_service(settings.tenant_clusters, "loquat_conversation_log", statements=settings.prepared_statements),
            cap=settings.project_connections,
        )
        life.on_stop("project pools", pools.close)
        life.spawn("idle project connections", pools.run())
        bus = open_bus(settings, "conversation-log", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        table = bus.table(DIRECTORY)
        life.spawn("directory", table.run())
        await life.until(table.caught_up())
        directory = Directory(table)
        recorder = Recorder(ProjectRecord(pools), directory, bus, Failpoints(settings.failpoints_dir), lambda: datetime.now(UTC))
        topics, batching = [INBOX, OUTBOX, RECEIPTS], Batching(settings.batch, settings.linger)
        service.follow(life, "record", bus.subscribe_batches("conversation-log", topics, recorder.handle, batching))
        api = RecordApi(Queries(pools), directory, internal_auth(Verifier(settings.trusted_keys, "conversation-log")))
        DeadLetterApi(DeadLetters(service.pool)).add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()
