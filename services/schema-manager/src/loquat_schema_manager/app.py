"""The wiring of the schema-manager: read it and you know the process."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import UTC, datetime
from functools import partial
from typing import Protocol
from uuid import uuid4

from loquat_common.bootstrap import Bootstraps
from loquat_common.bus.deferred import DeadLetters
from loquat_common.bus.factory import open_bus
from loquat_common.bus.port import Bus, Table
from loquat_common.client import InternalClient
from loquat_common.db import ProjectPools
from loquat_common.deadletters import DeadLetterApi
from loquat_common.departures import Departures
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.http import Api, internal_auth
from loquat_common.lifecycle import Lifecycle, Server
from loquat_common.retention import Retention
from loquat_common.service import Service
from loquat_common.tokens import Signer, Verifier
from loquat_events.catalog import DIRECTORY, PROJECTS

from loquat_schema_manager.adapters.changesets import ChangeSets
from loquat_schema_manager.adapters.cluster import build_template, system_migrations
from loquat_schema_manager.adapters.console import Console
from loquat_schema_manager.adapters.databases import Open, ProjectShapes, opener
from loquat_schema_manager.adapters.editors import Editors, as_editor
from loquat_schema_manager.adapters.expiry import Expiry
from loquat_schema_manager.adapters.exports import Exports
from loquat_schema_manager.adapters.followed import FollowedRows
from loquat_schema_manager.adapters.following import Follower
from loquat_schema_manager.adapters.history import History
from loquat_schema_manager.adapters.holder import Holder
from loquat_schema_manager.adapters.imports import Imports
from loquat_schema_manager.adapters.records import Records
from loquat_schema_manager.adapters.rows import Rows
from loquat_schema_manager.adapters.sizes import Sizes
from loquat_schema_manager.adapters.squatters import Squatters
from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.handlers.announcements import Announcements
from loquat_schema_manager.handlers.expiries import Expiries
from loquat_schema_manager.handlers.followings import Followings
from loquat_schema_manager.handlers.sweep import Sweep
from loquat_schema_manager.handlers.tablechanges import TableChanges
from loquat_schema_manager.handlers.templates import Templates
from loquat_schema_manager.http.api import SchemaApi
from loquat_schema_manager.http.changes import Changes
from loquat_schema_manager.http.console import Sql
from loquat_schema_manager.http.followings import FollowingsApi
from loquat_schema_manager.http.history import Histories
from loquat_schema_manager.http.mcp import Mcp
from loquat_schema_manager.http.rows import RowsApi
from loquat_schema_manager.http.tables import Tables
from loquat_schema_manager.http.tools import Toolbox, ToolsApi
from loquat_schema_manager.http.transfer import TransferApi
from loquat_schema_manager.settings import Settings


async def serve(settings: Settings) -> None:
    """Runs until SIGTERM."""
    async with Lifecycle(settings.drain_seconds) as life:
        service = await Service.start(life, settings, "schema-manager", "loquat_schema_manager.migrations")
        chance = random.SystemRandom().random
        store, open_database, migrations = Store(service.pool, chance), opener(settings.tenant_clusters), system_migrations()
        provisioner = InternalClient(settings.services["provisioner"], Signer("schema-manager", settings.signing_key or ""), "provisioner")
        await life.enter("provisioner client", provisioner.start, provisioner.stop)
        shapes = ProjectShapes(open_database, migrations, Squatters(provisioner).rename, chance)
        service.health.note("schema version", str(shapes.version))
        life.spawn(
            "bootstraps", Bootstraps(service.health, {n: partial(open_database, n, "postgres") for n in settings.tenant_clusters}).run()
        )

        bus = open_bus(settings, "schema-manager", service.pool)
        await life.enter("bus", bus.start, bus.stop)
        service.health.add("bus", bus.ping)

        async def build(cluster: str) -> str:
            return await build_template(lambda database: open_database(cluster, database), migrations)

        templates = Templates(list(settings.tenant_clusters), shapes.version, build, store, bus, lambda: datetime.now(UTC))
        service.health.add("templates", templates.ping)
        life.spawn("templates", templates.run())

        sweep = Sweep(store, shapes.version, shapes.bring_forward, settings.sweep_concurrency)
        directory = bus.table(DIRECTORY)
        directory.on_change(sweep.listed)
        life.spawn("directory", directory.run())
        await life.until(directory.caught_up())
        life.spawn("sweep", sweep.run())

        pools = ProjectPools(as_editor(provisioner), cap=settings.editor_connections, per_project=settings.editor_connections_per_project)
        life.on_stop("editors' connections", pools.close)
        life.spawn("idle editors' connections", pools.run())
        editors = Editors(Directory(directory), pools, Sizes(provisioner).of)
        life.on_stop("editors' sessions", editors.close)
        life.spawn("expiry of history", Expiries(Directory(directory).ready, Expiry(editors).of).run())

        api = SchemaApi(store, shapes.version, internal_auth(Verifier(settings.trusted_keys, "schema-manager")))
        told = TableChanges(bus, lambda: datetime.now(UTC), uuid4)
        for part in (
            *_data(life, service, settings, bus, editors, open_database, told),
            *_followed(life, service, settings, bus, directory, editors, told),
        ):
            part.add_to(api.api)
        server = Server(api.api.app(), settings.http_host, settings.http_port)
        await life.enter("http", server.start, server.stop)
        await service.ready(life)
        await life.until_signalled()


class Part(Protocol):
    """Some operations of the database API."""

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        ...


def _data(
    life: Lifecycle, service: Service, settings: Settings, bus: Bus, editors: Editors, open_database: Open, told: TableChanges
) -> Sequence[Part]:
    """What owners and agents do with tables and rows, and the loops that tell of it."""
    holder = Holder(settings.platform_dsn.get_secret_value())
    life.spawn("holder of change sets", holder.run())
    records = Records(service.pool, lambda: holder.key)
    announcements = Announcements(records, bus)
    changes = ChangeSets(editors, records, announcements.wake, failpoints=Failpoints(settings.failpoints_dir))
    life.spawn("change sets", announcements.run(changes))
    life.spawn("table changes", told.run())
    life.on_stop("table changes", told.flush)
    tables, rows = Tables(editors), Rows(editors, told.note)
    toolbox = Toolbox(tables, changes, rows)
    mcp = Mcp(toolbox)
    life.spawn("mcp", mcp.run())
    return (
        tables,
        Changes(changes),
        RowsApi(rows),
        TransferApi(Imports(editors, told.note), Exports(editors)),
        Sql(Console(editors, open_database, told.note, told.note_shapes)),
        Histories(History(editors, told.note)),
        ToolsApi(toolbox),
        mcp,
    )


def _followed(
    life: Lifecycle, service: Service, settings: Settings, bus: Bus, directory: Table, editors: Editors, told: TableChanges
) -> Sequence[Part]:
    """What links to contacts follow."""
    rows = FollowedRows(service.pool, random.SystemRandom().random, settings.replica)
    followings = Followings(rows, Follower(editors, told.note), Failpoints(settings.failpoints_dir))
    service.follow(life, "followings", bus.subscribe("schema-manager", [PROJECTS], followings.handle))
    life.spawn("followings", followings.run())
    life.spawn("departures", Departures(directory, rows.projects, rows.forget).run())
    life.spawn("retention", Retention(rows.sweep).run())
    return FollowingsApi(rows), DeadLetterApi(DeadLetters(service.pool))
