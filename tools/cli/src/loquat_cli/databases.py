"""The two PostgreSQL clusters of a stack, and what a superuser makes in them once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from loquat_common.bootstrap import bootstrap_database, bootstrap_roles, ensure_database
from loquat_embedded.postgres import Cluster
from loquat_schema_manager.adapters.cluster import ADDRESS_SPACE, bootstrap_cluster, tenant_settings
from loquat_schema_manager.adapters.upgrades import Left

from loquat_cli.secrets import StackSecrets

if TYPE_CHECKING:
    import asyncpg

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

CONTROL: Final = "loquat"
"""The control database."""
TENANT_ROLES: Final = ("provisioner", "schema-manager", "conversation-log", "bot-runner")
"""Services that log in to clusters of project databases."""
_ONE_MACHINE: Final = {
    "shared_buffers": "64MB",
    "autovacuum_naptime": "60s",
    "max_wal_size": "512MB",
    "io_method": "sync",  # three processes fewer in each cluster; worth it where reads come from memory
}
_PLATFORM: Final = {**_ONE_MACHINE, "max_connections": "100", "jit": "off"}
_TENANTS: Final = {**_ONE_MACHINE, "max_connections": "160"}
"""What one machine needs less of than `cluster.conf` says: its lock table alone took 80 MB with 300 connections."""
CONNECTIONS: Final = {
    "bot-runner": {"LOQUAT_PROJECT_CONNECTIONS": "20", "LOQUAT_BOT_CONNECTIONS": "50"},
    "conversation-log": {"LOQUAT_PROJECT_CONNECTIONS": "15"},
    "schema-manager": {"LOQUAT_EDITOR_CONNECTIONS": "10"},
}
"""What services open there at most. The platform's own are as many as are reserved for it, a few of others included; what resting ones of
these held besides would be lacking to bots, which have no reserve: with 40 each, 50 projects at work left bots none at all."""


def platform_cluster(home: Path, port: int, *, durable: bool) -> Cluster:
    """The cluster of the control database and the bus."""
    return Cluster(home / "platform", port=port, settings=_PLATFORM, durable=durable)


def tenants_cluster(home: Path, port: int, *, durable: bool) -> Cluster:
    """The cluster of project databases, with its limits."""
    return Cluster(home / "tenants", port=port, settings={**tenant_settings(), **_TENANTS}, address_space=ADDRESS_SPACE, durable=durable)


async def bootstrap_platform(connect: Connect, passwords: Mapping[str, str], database: str = CONTROL) -> None:
    """Roles, the control database, schemas, the bus. Idempotent. `connect` opens a database as a superuser."""
    admin = await connect("postgres")
    try:
        await bootstrap_roles(admin, passwords)
        await ensure_database(admin, database)
    finally:
        await admin.close()
    inside = await connect(database)
    try:
        await bootstrap_database(inside)
    finally:
        await inside.close()


async def bootstrap_tenants(cluster: Cluster, secrets: StackSecrets) -> Sequence[Left]:
    """Roles, closed system databases, the base that templates come from; what stands already is brought forward. Idempotent.

    The templates are schema-manager's own work. The answer: databases that could not be had.
    """
    return await bootstrap_cluster(cluster.connect, {name: secrets.tenant_passwords[name] for name in TENANT_ROLES})
