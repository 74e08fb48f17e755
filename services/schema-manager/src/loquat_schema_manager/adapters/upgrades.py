"""A cluster that stands already: what a newer release's superuser makes in a project database, made in every database that there is.

Rights on pg_catalog and event triggers are per database and a superuser's alone, so no migration brings them. Copies and templates are visited too:
projects come of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_common.sql import Ident, compose

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Connect = Callable[[str], Awaitable["asyncpg.Connection[asyncpg.Record]"]]

_AT_ONCE: Final = 4
_QUIET_TRIES: Final = 2
_BARRED_TRIES: Final = 3
_LIMITS: Final = "SET search_path = pg_catalog, pg_temp; SET lock_timeout = '1s'; SET statement_timeout = '60s'"
_CLOSE_LIMIT: Final = 5.0  # seconds

# purpose: databases that are the platform's: base, templates, projects, their backups, and what a restore is in the middle of. -2: half dropped.
_OURS: Final = """
SELECT oid, datname FROM pg_database
WHERE datconnlimit <> -2 AND datname ~ '^(loquat_base|loquat_template_[0-9]+|[pbro]_[0-9a-f]{12})$' ORDER BY datname"""

# What was closed is opened for superusers alone (they do not count in a limit) and closed again as it was, also by whoever comes after one that was
# killed (see cluster.sql). `opened_by`: the transaction that opened it; if another one has changed the row since, somebody else has opened it for good.
# 0, which is no transaction: it was open, and is so again with its limit.
_KEEP: Final = """
INSERT INTO loquat_operations.opened SELECT datname, datconnlimit, pg_current_xact_id()::xid FROM pg_database WHERE datname = $1 AND NOT datallowconn"""
_BAR: Final = """
INSERT INTO loquat_operations.opened SELECT datname, datconnlimit, '0'::xid FROM pg_database WHERE datname = $1 ON CONFLICT DO NOTHING"""
_STANDS: Final = """
SELECT o.connection_limit, d.xmin = o.opened_by AS untouched FROM loquat_operations.opened AS o JOIN pg_database AS d ON d.datname = o.database
WHERE o.database = $1 FOR UPDATE OF d"""

# purpose: tenants' sessions in this database, idle ones too: each of them could be the next in the way. A GRANT in vain rewrites a row of pg_proc, and
# who rewrites it next waits.
_END: Final = """
SELECT usename, pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() AND usename ~ '^p_[0-9a-f]{12}_'"""


@dataclass(frozen=True, slots=True)
class Left:
    """A database that could not be brought forward now, and why: nothing of a tenant's is in the text."""

    database: str
    reason: str


async def upgrade_databases(connect: Connect, root: Connection, script: str) -> Sequence[Left]:
    """Runs the script in each of them as one transaction, some side by side; those that it could not be run in.

    What is being copied meanwhile from one that is older is there, or seen, at the next look: a copy locks its source against being entered.
    """
    upgrade, seen, left = _Upgrade(connect, root, script), set[int](), list[Left]()
    while fresh := [r for r in await root.fetch(_OURS) if r["oid"] not in seen]:
        seen.update(r["oid"] for r in fresh)
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(upgrade.one(r["datname"]), name=f"bootstrap of {r['datname']}") for r in fresh]
        left += [found for task in tasks if (found := task.result()) is not None]
    return left


async def close_left_open(root: Connection) -> None:
    """What an upgrade that was killed had opened or barred is as it was."""
    for row in await root.fetch("SELECT database FROM loquat_operations.opened"):
        await _close(root, row["database"])


class _Upgrade:
    """`root` does one thing at a time."""

    def __init__(self, connect: Connect, root: Connection, script: str) -> None:
        self._connect, self._root, self._script = connect, root, script
        self._gate, self._turn, self._log = asyncio.Semaphore(_AT_ONCE), asyncio.Lock(), get_logger()

    async def one(self, database: str) -> Left | None:
        async with self._gate:
            try:
                async with self._enterable(database):
                    await self._inside(database)
            except asyncpg.InvalidCatalogNameError:
                return None  # it was dropped meanwhile
            except Exception as error:
                if not is_gone(error) and not isinstance(error, asyncpg.PostgresError):
                    raise
                code = getattr(error, "sqlstate", None) or "no answer"
                self._log.warning("bootstrap.later", database=database, error=type(error).__name__, sqlstate=code)
                return Left(database, f"{type(error).__name__} ({code})")
            return None

    async def _inside(self, database: str) -> None:
        connection = await self._connect(database)
        try:
            await connection.execute(_LIMITS)
            for _ in range(_QUIET_TRIES):
                if await self._tried(connection):
                    return
            async with self._barred(database):
                for attempt in range(1, _BARRED_TRIES + 1):
                    for row in await connection.fetch(_END):
                        self._log.warning("bootstrap.session_ended", database=database, login=row["usename"])
                    if await self._tried(connection, last=attempt == _BARRED_TRIES):
                        return
        finally:
            await connection.close(timeout=_CLOSE_LIMIT)

    async def _tried(self, connection: Connection, *, last: bool = False) -> bool:
        """False: a lock that nobody lets go, or a row that is rewritten again and again."""
        try:
            async with connection.transaction():
                await connection.execute(self._script)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError, asyncpg.InternalServerError):
            if last:
                raise
            return False
        return True

    @asynccontextmanager
    async def _barred(self, database: str) -> AsyncGenerator[None]:
        """Nobody but superusers comes in for a moment: else a tenant's next session would be in the way before the script."""
        async with self._turn, self._root.transaction():
            barred = await self._root.execute(_BAR, database) == "INSERT 0 1"
            if barred:
                await self._root.execute(compose("ALTER DATABASE {name} CONNECTION LIMIT 0", name=Ident(database)))
        try:
            yield
        finally:
            if barred:
                async with self._turn:
                    await _close(self._root, database)

    @asynccontextmanager
    async def _enterable(self, database: str) -> AsyncGenerator[None]:
        async with self._turn, self._root.transaction():
            closed = await self._root.execute(_KEEP, database) == "INSERT 0 1"
            if closed:
                await self._root.execute(compose("ALTER DATABASE {name} ALLOW_CONNECTIONS true CONNECTION LIMIT 0", name=Ident(database)))
        try:
            yield
        finally:
            if closed:
                async with self._turn:
                    await _close(self._root, database)


async def _close(root: Connection, database: str) -> None:
    async with root.transaction():
        found = await root.fetchrow(_STANDS, database)
        if found is not None:
            allow = "ALLOW_CONNECTIONS false " if found["untouched"] else ""
            await root.execute(
                compose("ALTER DATABASE {name} ", name=Ident(database)) + f"{allow}CONNECTION LIMIT {int(found['connection_limit'])}"
            )
        await root.execute("DELETE FROM loquat_operations.opened WHERE database = $1", database)
