"""One-time logins for programs that work on a project's database for longer than a tenant's session may: a dump, a restore.

A login of its own, because a program gets its password by its environment, which others of our user could read: this one opens nothing a
minute later and is gone with its errand. Its rights are the tenant's: what it runs of a tenant's runs as the tenant.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from secrets import token_hex
from typing import TYPE_CHECKING, Final, Literal

import asyncpg
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

from loquat_provisioner.adapters import logins, shared
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import Names

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Kind = Literal["dump", "restore"]
_VALID: Final = timedelta(minutes=1)  # in which the program must have logged in

# purpose: errands whose process ended without tidying up, and those that a stranger's rights kept: a few, not always the same ones
_LEFT: Final = """
SELECT rolname FROM pg_roles AS r
WHERE rolname ~ ('^' || $1 || '_(dump|restore)_') AND rolvaliduntil < clock_timestamp()
  AND NOT EXISTS (SELECT FROM pg_stat_activity WHERE usename = r.rolname)
ORDER BY random() LIMIT 10"""


@dataclass(frozen=True, slots=True)
class Visitor:
    """How the program logs in."""

    database: str
    user: str
    password: str = field(repr=False)


@asynccontextmanager
async def errand(databases: ProjectDatabases, names: Names, kind: Kind) -> AsyncGenerator[Visitor]:
    """A login for as long as the block lasts.

    Raises:
        DatabaseAway: the cluster does not answer.
    """
    visitor = Visitor(names.database, f"{names.database}_{kind}_{token_hex(4)}", logins.password())
    async with databases.alone() as admin:
        for left in await admin.fetch(_LEFT, names.database):
            await _remove_left(admin, names, left["rolname"])
        async with admin.transaction():
            await _make(admin, names, kind, visitor)
    try:
        yield visitor
    finally:
        try:
            async with databases.alone() as admin:
                await _remove(admin, names, visitor.user)
        except (DatabaseAway, asyncpg.PostgresError) as error:  # it opens nothing any more; the next errand or the deletion removes it
            get_logger().warning("errand.left", login=visitor.user, error=type(error).__name__)


async def _make(admin: Connection, names: Names, kind: Kind, visitor: Visitor) -> None:
    places = {"role": Ident(visitor.user), "owner": Ident(names.owner), "database": Ident(names.database)}
    await admin.execute(
        await admin.fetchval(
            "SELECT format('CREATE ROLE %I LOGIN NOINHERIT PASSWORD %L CONNECTION LIMIT 1 VALID UNTIL %L', $1::text, $2::text, clock_timestamp() + $3)",
            visitor.user,
            logins.verifier(visitor.password),
            _VALID,
        )
    )
    await admin.execute(compose("GRANT CONNECT ON DATABASE {database} TO {role}", **places))
    if kind == "dump":
        await admin.execute(compose("GRANT {owner}, loquat_dump TO {role} WITH INHERIT TRUE, SET FALSE", **places))
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} SET default_transaction_read_only = on", **places))
    else:
        await admin.execute(compose("GRANT {owner} TO {role} WITH INHERIT FALSE, SET TRUE", **places))
        await admin.execute(compose("ALTER ROLE {role} IN DATABASE {database} SET role = {owner}", **places))


async def _remove(admin: Connection, names: Names, user: str) -> None:
    places = {"role": Ident(user), "database": Ident(names.database)}
    await admin.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE usename = $1", user)
    await admin.execute(compose("REVOKE ALL ON DATABASE {database} FROM {role}", **places))
    await shared.drop_role(admin, user)


async def _remove_left(admin: Connection, names: Names, user: str) -> None:
    """What is left of another errand is no reason for this one to fail."""
    try:
        await _remove(admin, names, user)
    except asyncpg.PostgresError as error:
        if is_gone(error):
            raise
        get_logger().warning("errand.left", login=user, error=type(error).__name__)
