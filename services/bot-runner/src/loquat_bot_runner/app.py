"""The wiring of the bot-runner."""

from __future__ import annotations

from datetime import UTC, datetime

from loquat_common import metrics
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.client import InternalClient
from loquat_common.db import ProjectPools, as_service
from loquat_common.deadletters import DeadLetterApi
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.logs import get_logger
from loquat_common.service import Service
from loquat_common.tokens import Signer, Verifier
from loquat_events.catalog import DEPLOYMENTS, DIRECTORY, INBOX

from loquat_bot_runner.adapters.confine import own_users
from loquat_bot_runner.adapters.credentials import Credentials
from loquat_bot_runner.adapters.deployments import Deployed, Publisher
from loquat_bot_runner.adapters.discards import Discards
from loquat_bot_runner.adapters.runs import ProjectRuns
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.handlers.inbox import Inbox
from loquat_bot_runner.http.api import BotApi
from loquat_bot_runner.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "bot-runner", "loquat_bot_runner.migrations")
        _say_isolation(settings, service)
        pools = ProjectPools(
            as_service(settings.tenant_clusters, "loquat_bot_runner", statements=settings.prepared_statements),
            cap=settings.project_connections,
        )
        life.on_stop("project pools", pools.close)
        life.spawn("idle project connections", pools.run())
        provisioner = InternalClient(settings.services["provisioner"], Signer("bot-runner", settings.signing_key or ""), "provisioner")
        await life.enter("provisioner client", provisioner.start, provisioner.stop)
        bus = open_bus(settings, "bot-runner", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)
        directory_table, deployments = bus.table(DIRECTORY), bus.table(DEPLOYMENTS)
        for name, table in (("directory", directory_table), ("deployments", deployments)):
            life.spawn(name, table.run())
            await life.until(table.caught_up())
        directory, deployed = Directory(directory_table), Deployed(deployments)
        store, runs, failpoints = Store(service.pool), ProjectRuns(pools), Failpoints(settings.failpoints_dir)
        settings.bundles.mkdir(parents=True, exist_ok=True)
        workers = Workers(
            store,
            Credentials(provisioner),
            settings.bundles,
            most=settings.workers,
            idle=settings.worker_idle,
            limit=settings.call_limit,
            memory=settings.worker_memory,
        )
        life.on_stop("bots", workers.close)
        life.spawn("idle bots", workers.run())
        life.spawn("bots' logs", workers.write_logs())
        inbox = Inbox(runs, workers, store, directory, deployed, bus, failpoints, lambda: datetime.now(UTC))
        subscription = bus.subscribe("bot-runner", [INBOX], inbox.handle)
        deployed.guards(subscription)
        service.follow(life, "inbox", subscription)
        publisher = Publisher(bus, store, lambda: datetime.now(UTC))
        life.spawn("untold deployments", publisher.run())
        letters = DeadLetters(service.pool)

        async def forget(project: str) -> None:
            await bus.remove(DEPLOYMENTS, project=project, lane="bot")
            await letters.forget(project)
            await store.forget(project)

        life.spawn("departures", Departures(directory_table, store.projects, forget).run())
        api = BotApi(store, publisher, runs, letters, directory, internal_auth(Verifier(settings.trusted_keys, "bot-runner")))
        DeadLetterApi(letters, Discards(directory, runs).mark).add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


def _say_isolation(settings: Settings, service: Service) -> None:
    """Level 0: processes, limits, perhaps users of their own; no boundary. Never silently."""
    if settings.environment == "production" and not settings.allow_isolation_none:
        raise OSError("isolation level 0 protects nobody from a bot: set LOQUAT_ALLOW_ISOLATION_NONE=true if all bots are your own")
    users = own_users()
    service.health.note("isolation", f"level 0 (none): own process and limits per project, own user: {'yes' if users else 'no'}")
    metrics.bot_isolation.set(0)
    get_logger().warning("bots.isolation", level=0, own_user=users)
