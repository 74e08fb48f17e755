"""The control database, made once by a superuser: a role and a schema for each service, the bus, nothing for anybody else. Idempotent.

And the version of what a superuser makes on a cluster of project databases, by which services say that one is older than they need.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Final

from loquat_events.catalog import SERVICES, Service

from loquat_common import metrics
from loquat_common.bus import postgres
from loquat_common.db import is_gone
from loquat_common.health import Health
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    import asyncpg

DATABASE: Final = "loquat"
BOOTSTRAP: Final = 2
"""Of a cluster of project databases. 1: before there were versions. A cluster bears its own once all of its databases are so far."""
_MARK: Final = "loquat bootstrap"
_LOOK_AGAIN: Final = 60.0  # seconds
_QUESTION_LIMIT: Final = 5.0  # seconds

# purpose: a comment, which every service may read on a cluster that is older than any right to a table
_VERSION: Final = """
SELECT coalesce(substring(obj_description(to_regnamespace('loquat_operations'), 'pg_namespace') FROM ' ([0-9]+)$')::int, 1)"""


def role_of(service: Service) -> str:
    """The login of a service, on both kinds of clusters."""
    return f"loquat_{service.replace('-', '_')}"


def schema_of(service: Service) -> str:
    """The schema of a service in the control database."""
    return service.replace("-", "_")


async def bootstrap_roles(admin: asyncpg.Connection[asyncpg.Record], passwords: Mapping[str, str]) -> None:
    """The platform's roles of a cluster. `admin` is a superuser in any database; a service without one of the given passwords keeps its own."""
    for name in ("loquat_platform", "loquat_bus"):
        await _role(admin, name, "NOLOGIN")
    for service in SERVICES:
        await _role(admin, role_of(service), "LOGIN")
        await admin.execute(compose("GRANT loquat_platform TO {role}", role=Ident(role_of(service))))
    await set_passwords(admin, passwords)


async def set_passwords(admin: asyncpg.Connection[asyncpg.Record], passwords: Mapping[str, str]) -> None:
    """Of services' logins, by service."""
    for service, password in passwords.items():
        role = f"loquat_{service.replace('-', '_')}"
        await admin.execute(await admin.fetchval("SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role, password))


async def _role(admin: asyncpg.Connection[asyncpg.Record], name: str, attributes: str) -> None:
    if not await admin.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", name):
        await admin.execute(compose("CREATE ROLE {role}", role=Ident(name)) + f" {attributes}")


async def bootstrap_database(inside: asyncpg.Connection[asyncpg.Record]) -> None:
    """Schemas, rights and the bus, inside the control database. `inside` is a superuser's connection to it."""
    database = Ident(await inside.fetchval("SELECT current_database()"))
    await inside.execute(compose("REVOKE ALL ON DATABASE {database} FROM PUBLIC", database=database))
    await inside.execute(compose("GRANT CONNECT ON DATABASE {database} TO loquat_platform", database=database))
    await inside.execute("REVOKE ALL ON SCHEMA public FROM PUBLIC")
    for service in SERVICES:
        names = {"schema": Ident(schema_of(service)), "role": Ident(role_of(service))}
        await inside.execute(compose("CREATE SCHEMA IF NOT EXISTS {schema} AUTHORIZATION {role}", **names))
    await inside.execute("CREATE SCHEMA IF NOT EXISTS bus AUTHORIZATION loquat_bus")
    await inside.execute("GRANT USAGE ON SCHEMA bus TO loquat_platform")
    await postgres.install(inside)


async def ensure_database(admin: asyncpg.Connection[asyncpg.Record], name: str = DATABASE) -> None:
    """Creates the control database where it is missing."""
    if not await admin.fetchval("SELECT true FROM pg_database WHERE datname = $1", name):
        await admin.execute(compose("CREATE DATABASE {name}", name=Ident(name)))


async def bootstrap_of(postgres_database: asyncpg.Connection[asyncpg.Record]) -> int:
    """The version of a cluster's bootstrap, as anybody in its database `postgres`."""
    return await postgres_database.fetchval(_VERSION, timeout=_QUESTION_LIMIT)


async def mark_bootstrap(root: asyncpg.Connection[asyncpg.Record], version: int) -> None:
    """All databases of the cluster are at this version. `root` is a superuser in database `postgres`."""
    await root.execute(f"COMMENT ON SCHEMA loquat_operations IS '{_MARK} {version}'")


class Bootstraps:
    """Says in `/readyz`, as a metric and in the log which clusters a superuser should bring forward. They work meanwhile, with older walls.

    `clusters`: by name, what opens the cluster's database `postgres`.
    """

    def __init__(self, health: Health, clusters: Mapping[str, Callable[[], Awaitable[asyncpg.Connection[asyncpg.Record]]]]) -> None:
        self._health, self._clusters, self._said = health, clusters, dict[str, str]()
        self._log = get_logger()

    async def run(self) -> None:
        """For ever; a cluster that is away is asked again."""
        while True:
            await self.once()
            await asyncio.sleep(_LOOK_AGAIN)

    async def once(self) -> None:
        """Asks every cluster."""
        for name, connect in self._clusters.items():
            try:
                connection = await connect()
                try:
                    version = await bootstrap_of(connection)
                finally:
                    await connection.close(timeout=_QUESTION_LIMIT)
            except Exception as error:
                if not is_gone(error):
                    raise
            else:
                self._note(name, version)

    def _note(self, cluster: str, version: int) -> None:
        metrics.bootstrap_behind.labels(cluster).set(max(0, BOOTSTRAP - version))
        text = f"{version}"
        if version < BOOTSTRAP:
            text = f"{version}, this release needs {BOOTSTRAP}: let a superuser run `loquat cluster upgrade tenants` (see SECURITY.md)"
        if self._said.get(cluster) != text:
            self._said[cluster] = text
            self._health.note(f"bootstrap of {cluster}", text)
            if version < BOOTSTRAP:
                self._log.warning("cluster.bootstrap_is_older", cluster=cluster, version=version, needed=BOOTSTRAP)
