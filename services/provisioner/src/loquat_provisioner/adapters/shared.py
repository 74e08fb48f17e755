"""What all projects of a cluster share, and one tenant could keep from the others: locks on it, and the roles of a project that goes.

Postgres waits for some locks before it asks whether one may have them, and lets everybody give rights to everybody. No privilege forbids either.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_TENANT: Final = "^p_[0-9a-f]{12}_(bot|editor|direct|(dump|restore)_[0-9a-f]{8})$"
_PATIENCE: Final = "200ms"  # for the lock on a role: a stranger's transaction that gives it a right holds it, and nobody misses the role

# purpose: tenants' sessions that wait for a strong lock on a shared catalog or somebody's database (DROP DATABASE: all who want to connect there wait
# behind it), or hold one on a database or a role of somebody else's (ALTER ROLE self IN DATABASE other, GRANT TO other: it cannot be dropped). No
# honest statement of a tenant's does. The functions, not the views: pg_stat_activity reads pg_database and pg_authid, which is what is being kept from us.
_IN_THE_WAY: Final = """
SELECT DISTINCT a.pid, pg_get_userbyid(a.usesysid) AS login
FROM pg_lock_status() AS l JOIN pg_stat_get_activity(NULL) AS a ON a.pid = l.pid
WHERE l.database = 0 AND l.locktype IN ('relation', 'object') AND pg_get_userbyid(a.usesysid) ~ $1
  AND (NOT l.granted AND l.mode IN ('ShareLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock')
       OR l.locktype = 'object' AND l.classid = 'pg_database'::regclass AND l.objid <> a.datid
       OR l.locktype = 'object' AND l.classid = 'pg_authid'::regclass AND pg_get_userbyid(l.objid) ~ '^p_'
          AND left(pg_get_userbyid(l.objid), 14) <> left(pg_get_userbyid(a.usesysid), 14))"""

# purpose: roles of projects whose database is gone: a stranger's rights kept them, perhaps until now
_LEFT: Final = """
SELECT r.rolname FROM pg_roles AS r WHERE r.rolname ~ '^p_[0-9a-f]{12}_(owner|bot|editor|direct|(dump|restore)_[0-9a-f]{8})$'
  AND NOT EXISTS (SELECT FROM pg_database AS d WHERE d.datname = left(r.rolname, 14)) ORDER BY r.rolname LIMIT 100"""


async def end_queues(admin: Connection) -> list[str]:
    """Ends tenants' sessions that keep what is shared; a line per act."""
    found = await admin.fetch(_IN_THE_WAY, _TENANT, timeout=10)
    for row in found:
        await admin.execute("SELECT pg_terminate_backend($1)", row["pid"], timeout=5)
        get_logger().warning("reaper.kept_what_is_shared", login=row["login"])
    return [f"ended {row['login']}: lock on what is shared" for row in found]


async def drop_role(admin: Connection, role: str) -> None:
    """Drops a role that is done with: of a project whose database is gone, or of an errand.

    One to which tenants of other projects gave rights cannot be dropped while those last, nor while a transaction that gives one is open. Nobody
    but their givers can take them back, and neither a project's end nor its next errand must wait for them: such a role stays as a name that
    owns nothing, may do nothing here and lets nobody in, until `drop_left` or the next errand finds it free.
    """
    try:
        await _drop(admin, role)
    except (asyncpg.DependentObjectsStillExistError, asyncpg.LockNotAvailableError):
        await admin.execute(compose("ALTER ROLE {role} NOLOGIN PASSWORD NULL", role=Ident(role)))
        get_logger().warning("role.kept_by_strangers", role=role)


async def drop_left(admin: Connection) -> None:
    """Drops what `drop_role` had to leave, as far as it is free now."""
    for row in await admin.fetch(_LEFT):
        with suppress(asyncpg.DependentObjectsStillExistError, asyncpg.LockNotAvailableError):
            await _drop(admin, row["rolname"])


async def _drop(admin: Connection, role: str) -> None:
    async with admin.transaction():
        await admin.execute(f"SET LOCAL lock_timeout = '{_PATIENCE}'")
        await admin.execute(compose("DROP ROLE IF EXISTS {role}", role=Ident(role)))
