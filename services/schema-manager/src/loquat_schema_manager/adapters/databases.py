"""Project databases as loquat_schema_manager: bringing one forward without ever waiting long behind its tenant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import CONNECT_LIMIT, is_gone
from loquat_common.logs import get_logger
from loquat_common.migrate import Migration, MigrationError
from loquat_common.problems import Problem
from loquat_common.settings import ClusterAddress

from loquat_schema_manager.adapters.cluster import migrate_system, version_of
from loquat_schema_manager.domain.shapes import (
    FORCED_TRIES,
    QUIET_TRIES,
    TENANT,
    Forward,
    Gone,
    Hindered,
    Hindrance,
    Outcome,
    Target,
    pause_before_retry,
)
from loquat_schema_manager.errors import UnknownCluster

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Open = Callable[[str, str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

_LOCK_TIMEOUT: Final = "200ms"
"""While a migration waits for its lock, everybody behind it waits too: no longer than a person notices."""
_STATEMENT_TIMEOUT: Final = "10min"  # an index on the largest table that a size limit of 1 GiB allows takes seconds
_COMMAND_LIMIT: Final = 660.0  # seconds; above the server's own limit, so that the server's error comes first
_TAKEN: Final = (asyncpg.DuplicateTableError, asyncpg.DuplicateObjectError)

# purpose: tenants' sessions of this database that hold a lock on one of the system's relations
_END_HOLDERS: Final = """
SELECT a.usename, pg_terminate_backend(a.pid) FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.usename ~ $1 AND a.pid IN (
  SELECT l.pid FROM pg_locks AS l JOIN pg_class AS c ON c.oid = l.relation
  WHERE l.granted AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) AND c.relowner = 'loquat_system'::regrole)"""


# purpose: tenants' sessions of this database with a transaction that has written. A GRANT of a right that one has not rewrites the row of a system table in
# pg_class and is a mere warning: no lock on the table tells of it.
_END_WRITERS: Final = """
SELECT a.usename, pg_terminate_backend(a.pid) FROM pg_stat_activity AS a
WHERE a.datname = current_database() AND a.usename ~ $1 AND a.backend_xid IS NOT NULL"""


def opener(clusters: Mapping[str, ClusterAddress]) -> Open:
    """Opens databases of these clusters, with the time-outs of a migration.

    It raises UnknownCluster for one that is not in the settings.
    """

    async def open_database(cluster: str, database: str) -> Connection:
        if (address := clusters.get(cluster)) is None:
            raise UnknownCluster(cluster)
        return await asyncpg.connect(
            host=address.host,
            port=address.port,
            user="loquat_schema_manager",
            password=address.password.get_secret_value(),
            database=database,
            timeout=CONNECT_LIMIT,
            command_timeout=_COMMAND_LIMIT,
            statement_cache_size=0,
            server_settings={
                "search_path": "pg_catalog, pg_temp",
                "application_name": "loquat_schema_manager",
                "lock_timeout": _LOCK_TIMEOUT,
                "statement_timeout": _STATEMENT_TIMEOUT,
                "transaction_timeout": "0",
                "idle_in_transaction_session_timeout": "60s",
            },
        )

    return open_database


class ProjectShapes:
    """Brings project databases to the schema that `migrations` describe. `free_names` renames what a tenant put in the way."""

    def __init__(
        self,
        open_database: Open,
        migrations: Sequence[Migration],
        free_names: Callable[[Target, Connection], Awaitable[int]],
        chance: Callable[[], float],
    ) -> None:
        self._open, self._migrations, self._free_names, self._chance = open_database, migrations, free_names, chance
        self._log = get_logger()

    @property
    def version(self) -> int:
        """Of the schema."""
        return version_of(self._migrations)

    async def bring_forward(self, target: Target) -> Outcome:
        """Applies what is missing. May be repeated; every migration is one transaction."""
        try:
            async with self._opened(target) as inside:
                return await self._with_names_freed(target, inside)
        except Exception as error:
            outcome = meaning(error)
            if outcome is None:
                raise
            if isinstance(outcome, Hindered) and outcome.hindrance is Hindrance.BROKEN:
                self._log.exception("sweep.migration_failed", database=target.database)
            return outcome

    async def _with_names_freed(self, target: Target, inside: Connection) -> Outcome:
        try:
            return await self._migrated(target, inside)
        except _TAKEN:
            if not await self._free_names(target, inside):
                raise
            return await self._migrated(target, inside)

    async def _migrated(self, target: Target, inside: Connection) -> Outcome:
        for attempt in range(QUIET_TRIES + FORCED_TRIES):
            if attempt >= QUIET_TRIES:
                await self._end_holders(target, inside)
            try:
                await migrate_system(inside, self._migrations)
            except asyncpg.LockNotAvailableError:
                if attempt < QUIET_TRIES:
                    await asyncio.sleep(pause_before_retry(attempt, self._chance()))
            else:
                return Forward(self.version)
        return Hindered(Hindrance.LOCKED, "its tables are locked")

    async def _end_holders(self, target: Target, inside: Connection) -> None:
        ended = await inside.fetch(_END_HOLDERS, TENANT) or await inside.fetch(_END_WRITERS, TENANT)
        for row in ended:
            self._log.warning("sweep.session_ended", database=target.database, login=row["usename"])

    @asynccontextmanager
    async def _opened(self, target: Target) -> AsyncGenerator[Connection]:
        connection = await self._open(target.cluster, target.database)
        try:
            yield connection
        finally:
            try:
                await connection.close(timeout=2)
            except (TimeoutError, OSError):
                connection.terminate()


def meaning(error: Exception) -> Outcome | None:
    """What an error says about the database; None for a mistake of ours. The text holds nothing of the tenant's."""
    match error:
        case UnknownCluster():
            found: Outcome | None = Hindered(Hindrance.AWAY, f"the cluster {error} is not in this service's settings")
        case asyncpg.InvalidCatalogNameError():
            found = Gone()
        case Problem():
            found = Hindered(Hindrance.LOCKED, "names that the schema needs are taken, and the editor's login cannot be had now")
        case MigrationError():
            found = Hindered(Hindrance.BROKEN, str(error))
        case _ if is_gone(error):
            found = Hindered(Hindrance.AWAY, f"the cluster does not answer ({type(error).__name__})")
        case asyncpg.PostgresError():
            found = Hindered(Hindrance.BROKEN, f"a migration failed there: {type(error).__name__} {error.sqlstate}")
        case _:
            found = None
    return found
