"""Real project databases for tests: a tenant cluster with its limits and a sealed template, projects made by the provisioner's own code."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg
from loquat_common.bootstrap import role_of
from loquat_common.db import prepare
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import Service
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import LOGINS, Login, Names
from loquat_schema_manager.adapters.cluster import ADDRESS_SPACE, bootstrap_cluster, build_template, tenant_settings

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

PASSWORD = "a-password-of-tests"
TENANT_SERVICES: tuple[Service, ...] = ("provisioner", "schema-manager", "conversation-log", "bot-runner")

SHORTER = {
    "temp_file_limit": "40MB",
    "max_connections": "120",
    "autovacuum_naptime": "60s",
}
"""As the tenant cluster's, but reached sooner."""

WAITING = "SELECT count(*) > 0 FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
"""Whether somebody waits for a lock in this database."""

_TABLES = """
SELECT format('%I.%I', n.nspname, c.relname) AS name FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace
WHERE c.relowner = 'loquat_system'::regrole AND c.relkind = 'r' AND c.relname NOT IN ('identity', 'migrations')"""


@dataclass(slots=True)
class Project:
    """A project database and ways into it. Connections are closed after the test."""

    tenants: Tenants
    names: Names
    project_id: str
    connections: list[Connection] = field(default_factory=list["Connection"])

    @property
    def database(self) -> str:
        return self.names.database

    async def service(self, service: Service) -> Connection:
        """As one of the platform's services."""
        return await self._open(role_of(service))

    async def login(self, kind: Login) -> Connection:
        """As one of the project's own logins."""
        return await self._open(self.names.login(kind))

    async def root(self) -> Connection:
        """As the superuser, who sees all; no service ever does."""
        return await self._open("postgres", self.tenants.cluster.password)

    async def _open(self, user: str, password: str = PASSWORD) -> Connection:
        connection = await self.tenants.connect(self.database, user, password)
        self.connections.append(connection)
        return connection

    async def wipe(self) -> None:
        """As it was when it was made: no rows, nothing of the tenant's. Quicker than another one."""
        root, editor = await self.root(), await self.login("editor")
        await editor.execute("DROP OWNED BY CURRENT_USER CASCADE")
        tables = await root.fetch(_TABLES)
        await root.execute(f"TRUNCATE {', '.join(t['name'] for t in tables)} RESTART IDENTITY")
        await self.close()

    async def close(self) -> None:
        """Ends all connections. Not by terminate(): the provisioner cannot drop a database in which a superuser's session still ends."""
        while self.connections:
            await self.connections.pop().close(timeout=5)


@dataclass(slots=True)
class Tenants:
    """The tenant cluster of this run."""

    cluster: Cluster
    databases: ProjectDatabases = field(init=False)

    def __post_init__(self) -> None:
        self.databases = ProjectDatabases(self.as_service("provisioner"))

    def as_service(self, service: Service) -> Callable[[str], Awaitable[Connection]]:
        """Opens databases as a service, bare as the service itself does."""

        async def connect(database: str) -> Connection:
            return await self.cluster.connect(database, user=role_of(service), password=PASSWORD)

        return connect

    async def close(self) -> None:
        """Stops the cluster."""
        await self.databases.close()
        await self.cluster.stop()

    async def connect(self, database: str, user: str, password: str = PASSWORD) -> Connection:
        """A connection as anybody."""
        connection = await self.cluster.connect(database, user=user, password=password)
        await prepare(connection)
        return connection

    async def project(self) -> Project:
        """A fresh project, as the provisioner makes it."""
        names, project_id = Names.fresh(), uuid4().hex
        await self.databases.clone(names)
        await self.databases.shut(names)
        await self.databases.open(names, project_id, 1)
        await self.databases.logins(names, dict.fromkeys(LOGINS, PASSWORD))
        return Project(self, names, project_id)

    async def drop(self, project: Project) -> None:
        """Deletes it."""
        await project.close()
        await self.databases.drop(project.names)


async def open_tenants(home: Path, *, durable: bool = False) -> Tenants:
    """A started, bootstrapped cluster with the sealed template."""
    cluster = Cluster(home, durable=durable, settings={**tenant_settings(), **SHORTER}, address_space=ADDRESS_SPACE)
    await cluster.start()
    tenants = Tenants(cluster)
    await bootstrap_cluster(cluster.connect, {s.replace("-", "_"): PASSWORD for s in TENANT_SERVICES})
    await build_template(tenants.as_service("schema-manager"))
    return tenants


@dataclass(slots=True)
class Desk:
    """The platform's two readers of the inbox at work on one project."""

    runner: Connection
    log: Connection

    @classmethod
    async def of(cls, project: Project) -> Desk:
        """On this project."""
        return cls(await project.service("bot-runner"), await project.service("conversation-log"))

    async def record(self, *events: dict[str, Any]) -> list[asyncpg.Record]:
        """conversation-log's batch."""
        return await self.log.fetch("SELECT * FROM loquat.record_inbound($1)", list(events))

    async def begin(self, event: dict[str, Any], hold: str | None = None) -> asyncpg.Record:
        """bot-runner's first round trip."""
        row = await self.runner.fetchrow("SELECT * FROM loquat.begin_run($1, $2)", event, hold)
        assert row is not None
        return row

    async def commit(self, event: dict[str, Any], version: int | None = None, result: dict[str, Any] | None = None) -> asyncpg.Record:
        """bot-runner's second one."""
        row = await self.runner.fetchrow("SELECT * FROM loquat.commit_run($1, $2, $3)", UUID(event["id"]), version, result)
        assert row is not None
        return row

    async def run(self, event: dict[str, Any], **result: Any) -> list[dict[str, Any]]:
        """The whole way of an event whose handler uses no database; the outbox."""
        begun = await self.begin(event)
        assert begun["todo"] == "run", begun
        committed = await self.commit(event, begun["version"], result)
        assert committed["status"] == "committed", committed
        return committed["outbox"] or []

    async def receipts(self, *receipts: dict[str, Any]) -> int:
        """conversation-log's receipts."""
        return await self.log.fetchval("SELECT loquat.apply_receipts($1)", list(receipts))

    async def outbound(self, *messages: dict[str, Any]) -> int:
        """conversation-log's messages out."""
        return await self.log.fetchval("SELECT loquat.record_outbound($1)", list(messages))


def message(*addresses: str, text: str = "hi", name: str | None = None, number: str = "1", **more: Any) -> dict[str, Any]:
    """An element for a message; addresses are written `kind:value`."""
    wamid = f"wamid.{uuid4().hex}"
    parts = [dict(zip(("kind", "value"), a.split(":", 1), strict=True)) for a in addresses]
    body = {"type": "text", "text": text, "wamid": wamid, "raw": json.dumps({"body": text}), "sent_at": "2026-01-01T00:00:00Z", **more}
    return {"id": str(uuid4()), "kind": "message", "number_id": number, "addresses": parts, "name": name, "message": body}


def order(*addresses: str, number: str = "1") -> dict[str, Any]:
    """An element for a person's order."""
    made = message(*addresses, number=number)
    return {k: v for k, v in {**made, "kind": "order"}.items() if k not in {"message", "name"}}


def update(field_name: str, raw: str, *addresses: str) -> dict[str, Any]:
    """An element for a field of Meta's that is no message."""
    made = message(*addresses)
    return {k: made[k] for k in ("id", "number_id", "addresses")} | {"kind": "update", "update": {"field": field_name, "raw": raw}}
