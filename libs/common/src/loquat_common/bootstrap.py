"""The control database, made once by a superuser: a role and a schema for each service, the bus, nothing for anybody else. Idempotent."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from loquat_events.catalog import SERVICES, Service

from loquat_common.bus import postgres
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    import asyncpg

DATABASE: Final = "loquat"


def role_of(service: Service) -> str:
    """The login of a service, on both kinds of clusters."""
    return f"loquat_{service.replace('-', '_')}"


def schema_of(service: Service) -> str:
    """The schema of a service in the control database."""
    return service.replace("-", "_")


async def bootstrap_roles(admin: asyncpg.Connection[asyncpg.Record], passwords: Mapping[str, str]) -> None:
    """The platform's roles of a cluster, with the given passwords by service. `admin` is a superuser in any database."""
    for name in ("loquat_platform", "loquat_bus"):
        await _role(admin, name, "NOLOGIN")
    for service in SERVICES:
        await _role(admin, role_of(service), "LOGIN")
        await admin.execute(compose("GRANT loquat_platform TO {role}", role=Ident(role_of(service))))
        statement = await admin.fetchval(
            "SELECT format('ALTER ROLE %I PASSWORD %L', $1::text, $2::text)", role_of(service), passwords[service]
        )
        await admin.execute(statement)


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
