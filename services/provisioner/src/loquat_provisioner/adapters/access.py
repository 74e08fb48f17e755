"""The owner's direct login on the tenant cluster: opened with a fresh password, closed. Nobody keeps the password; its verifier stays."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from loquat_provisioner.adapters import logins
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import Names

_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1"

# purpose: what the login shall be from now on; what it was before is of no use to anybody
_SET: Final = """
UPDATE loquat_operations.logins SET verifier = $2, closed = $3, opened_at = CASE WHEN $3 THEN NULL ELSE clock_timestamp() END
WHERE rolname = $1 RETURNING coalesce(opened_at, clock_timestamp()) AS at"""


async def since(databases: ProjectDatabases, names: Names) -> datetime | None:
    """When its password was made; None while it is closed."""
    query = "SELECT opened_at FROM loquat_operations.logins WHERE rolname = $1 AND NOT closed"
    async with databases.alone() as admin:
        return await admin.fetchval(query, names.login("direct"))


async def grant(databases: ProjectDatabases, names: Names) -> tuple[str, datetime] | None:
    """A new password, shown to the caller alone; whoever used the old one is sent away. None: there is no such project on the cluster."""
    secret = logins.password()
    at = await _change(databases, names.login("direct"), secret)
    return (secret, at) if at is not None else None


async def revoke(databases: ProjectDatabases, names: Names) -> None:
    """Closes it under a password that nobody knows, and ends its sessions. Harmless when repeated."""
    await _change(databases, names.login("direct"), None)


async def _change(databases: ProjectDatabases, role: str, secret: str | None) -> datetime | None:
    async with databases.alone() as admin:
        await admin.execute(_END, role)  # it may hold its own role's row in a transaction, and so hold us up
        async with admin.transaction():
            at: datetime | None = await admin.fetchval(_SET, role, logins.verifier(secret or logins.password()), secret is None)
            await logins.put_right(admin, role)
        await admin.execute(_END, role)  # who came in between
    return at
