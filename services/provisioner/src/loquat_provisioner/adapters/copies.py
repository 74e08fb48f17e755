"""Whole copies of project databases, made by PostgreSQL file by file: nothing of a tenant's is evaluated, and no role can read everything.

`CREATE DATABASE ... TEMPLATE` wants its source without sessions, so a project is closed for as long as the copy takes. Every function may be
repeated after it was cut off anywhere.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.sql import Ident, compose

from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import LOGINS, Names, StepFailed

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LONGEST_COPY: Final = 600.0
"""Seconds for a copy: 10 GB at 20 MB/s and a checkpoint."""
_LONGEST: Final = 600.0  # seconds for whatever else is done to a copy
_LOOK: Final = 0.05  # seconds between two looks whether all is quiet
_QUIET: Final = """
SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' AND state <> 'idle')"""
_END: Final = """
SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend' AND usesysid NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)"""
_THERE: Final = "SELECT true FROM pg_database WHERE datname = $1"


async def close(databases: ProjectDatabases, names: Names, patience: float) -> None:
    """Shuts everybody out, once nobody is in the middle of something or after `patience` seconds. Whoever should not begin anew was told."""
    async with databases.inside("postgres") as admin:
        if not await admin.fetchval(_THERE, names.database):
            return
        for _ in range(int(patience / _LOOK)):
            if await admin.fetchval(_QUIET, names.database):
                break
            await asyncio.sleep(_LOOK)
        await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS false", database=Ident(names.database)))
        await admin.execute(_END, names.database)


async def there(databases: ProjectDatabases, database: str) -> bool:
    """Whether it exists."""
    async with databases.alone() as admin:
        return bool(await admin.fetchval(_THERE, database))


async def reopen(databases: ProjectDatabases, names: Names) -> None:
    """Lets everybody in again."""
    async with databases.alone() as admin:
        if await admin.fetchval(_THERE, names.database):
            await admin.execute(compose("ALTER DATABASE {database} ALLOW_CONNECTIONS true", database=Ident(names.database)))


async def copy(databases: ProjectDatabases, source: str, target: str) -> int:
    """A sealed copy: nobody may connect. Its size in bytes.

    Raises:
        StepFailed: the source is not there, somebody is still in it, or it takes too long.
    """
    async with databases.inside("postgres") as admin:
        if not await admin.fetchval(_THERE, target):
            if not await admin.fetchval(_THERE, source):
                raise StepFailed("what is to be copied is not there any more")
            try:
                await admin.execute(
                    compose(
                        "CREATE DATABASE {target} TEMPLATE {source} STRATEGY wal_log ALLOW_CONNECTIONS false CONNECTION LIMIT 30",
                        target=Ident(target),
                        source=Ident(source),
                    ),
                    timeout=_LONGEST_COPY,
                )
            except asyncpg.ObjectInUseError:
                raise StepFailed("somebody is still connected to the database") from None
            except TimeoutError:  # not a cluster that is away: whoever puts it off would try for ever
                raise StepFailed(f"copying took longer than {_LONGEST_COPY:g} seconds") from None
        await admin.execute(compose("REVOKE ALL ON DATABASE {target} FROM PUBLIC", target=Ident(target)))
        return await admin.fetchval("SELECT pg_database_size($1::name)", target)


async def drop(databases: ProjectDatabases, *targets: str) -> None:
    """They are gone."""
    async with databases.inside("postgres") as admin:
        for target in targets:
            await admin.execute(compose("DROP DATABASE IF EXISTS {target} WITH (FORCE)", target=Ident(target)), timeout=_LONGEST)


async def renew(databases: ProjectDatabases, copied: str, project: str, epoch: int, home: Names, former: Names | None = None) -> None:
    """Nothing of the past is done again in the copy (see `loquat.renew_project`). Only services may connect meanwhile, and none knows of it."""
    target = Ident(copied)
    async with databases.inside("postgres") as admin:
        await admin.execute(compose("ALTER DATABASE {target} ALLOW_CONNECTIONS true", target=target))
        try:
            async with databases.inside(copied) as inside:
                query = "SELECT loquat.renew_project($1, $2, $3, $4)"
                await inside.execute(
                    query, project, epoch, home.database, former.database if former is not None else None, timeout=_LONGEST
                )
        except asyncpg.UndefinedFunctionError:
            raise StepFailed("the copy's schema is older than copies are; take a new backup") from None
        finally:
            if former is None:
                await admin.execute(compose("ALTER DATABASE {target} ALLOW_CONNECTIONS false", target=target))


async def swap(databases: ProjectDatabases, names: Names, fresh: str, old: str) -> None:
    """`fresh` takes the project's place, all at once; what was there is `old` now. Roles and their rights inside are the same ones."""
    async with databases.inside("postgres") as admin, admin.transaction():
        if await admin.fetchval(_THERE, fresh):
            places = {"home": Ident(names.database), "fresh": Ident(fresh), "old": Ident(old)}
            if not await admin.fetchval(_THERE, old):
                await admin.execute(compose("ALTER DATABASE {home} RENAME TO {old}", **places))
            await admin.execute(compose("ALTER DATABASE {fresh} RENAME TO {home}", **places))


async def inherit(databases: ProjectDatabases, names: Names, former: Names) -> None:
    """What the former project's owner owned in this database is its new owner's; the former roles have nothing here. No tenant can enter yet.

    The provisioner holds the roles' rights for the length of one transaction, in which it does nothing but change owners.
    """
    roles = [former.owner, *(former.login(kind) for kind in LOGINS)]
    async with databases.inside(names.database) as inside, inside.transaction():
        me, owner, leaver = Ident("loquat_provisioner"), Ident(names.owner), Ident(former.owner)
        present = [r for r in roles if await inside.fetchval("SELECT true FROM pg_roles WHERE rolname = $1", r)]
        if former.owner not in present:
            return  # an order that came again: nothing here was its any more, else the role would have stayed when its project was deleted
        stands = await inside.fetchval(_THERE, former.database)
        for role in [names.owner, *present]:
            await inside.execute(compose("GRANT {role} TO {me} WITH INHERIT TRUE, SET TRUE", role=Ident(role), me=me))
        await inside.execute(compose("REASSIGN OWNED BY {leaver} TO {owner}", leaver=leaver, owner=owner), timeout=_LONGEST)
        for role in present:  # default privileges, policies. It takes the role's right to enter its own database, too.
            await inside.execute(compose("DROP OWNED BY {role}", role=Ident(role)), timeout=_LONGEST)
            if role != former.owner and stands:
                places = {"role": Ident(role), "database": Ident(former.database)}
                await inside.execute(compose("GRANT CONNECT ON DATABASE {database} TO {role}", **places))
        for role in [names.owner, *present]:
            await inside.execute(compose("REVOKE {role} FROM {me} GRANTED BY {me}", role=Ident(role), me=me))
