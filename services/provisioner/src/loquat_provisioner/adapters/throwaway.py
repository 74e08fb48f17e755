"""Throw-away copies on tenant clusters: made while the project goes on, with an owner and one login of their own, dropped whole.

The source is not shut, as it is for a backup: whoever dies here leaves nothing behind that others wait for. `CREATE DATABASE` locks it, so who comes
meanwhile waits for as long as the copy takes, ten seconds at most; sessions at rest are ended, and come again. Nobody is sent away in the middle of something.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import DatabaseAway
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

from loquat_provisioner.adapters import copies, logins
from loquat_provisioner.adapters.databases import ClusterRefused, ProjectDatabases
from loquat_provisioner.adapters.previews import MAKING, Preview, PreviewStore
from loquat_provisioner.adapters.store import Project
from loquat_provisioner.domain.life import Names, StepFailed

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_PATIENCE: Final = (
    3.0  # seconds for a moment in which nobody is in the middle of something; then who is there for a moment only is waited for
)
_LONG: Final = timedelta(seconds=1)  # at one thing: PostgreSQL would wait for him behind the lock, and newcomers behind it
_LOCKED: Final = 10.0
"""Seconds for which newcomers may be kept waiting. Each, ours too, waits in a process of the cluster's, which outlives his patience: many take all places there are.

By many tables a small database becomes a slow copy.
"""
_LOOK: Final = 0.05  # seconds between two looks
_EVERY: Final = 15.0  # seconds between two looks for what is over
_BUSY: Final = "somebody works in the project's database without a pause; try again"
_SLOW: Final = (
    f"it takes more than {_LOCKED:g} seconds, in which others have to wait; with database: live the bot is tried in the database itself"
)
_QUIET: Final = """
SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' AND state <> 'idle')"""
_LONG_AT_IT: Final = """
SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'client backend' AND state <> 'idle'
               AND coalesce(xact_start, state_change) < clock_timestamp() - $2::interval)"""
_END_RESTING: Final = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
WHERE datname = $1 AND backend_type = 'client backend' AND state = 'idle' AND usesysid NOT IN (SELECT oid FROM pg_roles WHERE rolsuper)"""


async def size(databases: ProjectDatabases, database: str) -> int:
    """Bytes of a database; 0: it is not there."""
    async with databases.alone() as admin:
        return await admin.fetchval("SELECT pg_database_size(oid) FROM pg_database WHERE datname = $1", database) or 0


async def make(
    databases: ProjectDatabases, project: Project, preview: Preview, password: str, largest: int, failpoints: Failpoints
) -> None:
    """The copy, whole and usable. Cut off anywhere it is dropped, never gone on with.

    Raises:
        StepFailed: the project's database is never at rest, or its schema is older than copies are.
        DatabaseAway: the cluster does not answer.
    """
    source, names = Names(project.database or ""), Names(preview.database)
    await _copied(databases, source.database, names.database)
    failpoints.hit("provisioner.preview.copied")
    await databases.shut(names)
    await copies.renew(databases, names.database, project.project_id, preview.epoch, names, source)
    await databases.open(names, project.project_id, preview.epoch, name=project.name, organization=project.organization_id)
    failpoints.hit("provisioner.preview.opened")
    await copies.inherit(databases, names, source)
    async with databases.alone() as admin, admin.transaction():
        await admin.execute("UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1", names.database, largest)
        await logins.make(admin, names, "bot", password)


async def _copied(databases: ProjectDatabases, source: str, target: str) -> None:
    async with databases.inside("postgres") as maker, databases.inside("postgres") as ender:
        for _ in range(int(_PATIENCE / _LOOK)):
            if await ender.fetchval(_QUIET, source):
                break
            await asyncio.sleep(_LOOK)
        if await ender.fetchval(_LONG_AT_IT, source, _LONG):
            raise StepFailed(_BUSY)
        await maker.execute(f"SET statement_timeout = '{_LOCKED:g}s'")  # the server's own: it holds when nobody is here any more
        making = asyncio.create_task(maker.execute(_create(source, target), timeout=MAKING), name="copy of a database")
        try:
            while not making.done():
                await ender.execute(_END_RESTING, source)
                await asyncio.wait([making], timeout=_LOOK)
            await making
        except asyncpg.ObjectInUseError:  # after 5 s, PostgreSQL's own patience
            raise StepFailed(_BUSY) from None
        except asyncpg.QueryCanceledError:
            raise StepFailed(_SLOW) from None
        finally:
            making.cancel()
            await asyncio.gather(making, return_exceptions=True)
        await ender.execute(compose("REVOKE ALL ON DATABASE {target} FROM PUBLIC", target=Ident(target)))


def _create(source: str, target: str) -> str:
    return compose(
        "CREATE DATABASE {target} TEMPLATE {source} STRATEGY wal_log ALLOW_CONNECTIONS false CONNECTION LIMIT 30",
        target=Ident(target),
        source=Ident(source),
    )


class Clearing:
    """Drops what is over. Any number of replicas; what one that died was at another takes up a minute later."""

    def __init__(self, previews: PreviewStore, clusters: Mapping[str, ProjectDatabases], failpoints: Failpoints) -> None:
        self._previews, self._clusters, self._failpoints = previews, clusters, failpoints
        self._wake = asyncio.Event()

    def soon(self) -> None:
        """Something is over."""
        self._wake.set()

    async def run(self) -> None:
        """For ever."""
        while True:
            self._wake.clear()
            try:
                await self.once()
            except (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError) as error:
                get_logger().warning("previews.not_asked", error=type(error).__name__)
            try:
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def once(self) -> int:
        """How many are gone. One whose cluster is away, or is not set up any more, is tried again."""
        gone = 0
        for preview in await self._previews.over():
            databases = self._clusters.get(preview.cluster)
            try:
                if databases is not None:
                    await databases.drop(Names(preview.database))
                    self._failpoints.hit("provisioner.preview.dropped")
                    await self._previews.gone(preview.preview_id)
                    gone += 1
            except (DatabaseAway, ClusterRefused) as error:
                get_logger().warning("preview.not_dropped", database=preview.database, error=type(error).__name__)
        return gone
