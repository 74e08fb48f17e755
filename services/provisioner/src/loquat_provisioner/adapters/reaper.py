"""The reaper of a tenant cluster: a role's own settings are politeness, this is the limit.

Runs as loquat_provisioner in database postgres. Terminates, never cancels: a function may catch a cancel.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common import metrics
from loquat_common.db import DatabaseAway, is_gone
from loquat_common.logs import get_logger

from loquat_provisioner.adapters import logins, shared
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.domain.life import LOGINS, Names

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

TENANT: Final = "^p_[0-9a-f]{12}_(bot|editor|direct|(dump|restore)_[0-9a-f]{8})$"

# A dump's or a restore's one-time login ends with its errand; what is left of one after hours has nobody who waits for it.
_OVER_AGE: Final = """
SELECT pid, usename, reason, pg_terminate_backend(pid)
FROM (SELECT s.pid, s.usename, CASE
          WHEN l.closed OR p.closed_for_size AND s.usename !~ '_editor$' THEN 'closed'
          WHEN s.usename ~ '_(dump|restore)_' THEN CASE WHEN clock_timestamp() - s.backend_start > interval '2 hours' THEN 'errand' END
          WHEN s.state = 'active' AND clock_timestamp() - s.query_start > coalesce(p.statement_age, $2) THEN 'statement'
          WHEN s.state LIKE 'idle in transaction%' AND clock_timestamp() - s.state_change > $3 THEN 'idle in transaction'
          WHEN clock_timestamp() - s.xact_start > coalesce(p.transaction_age, $4) THEN 'transaction'
          WHEN s.state = 'idle' AND clock_timestamp() - s.state_change > $5 THEN 'idle'
      END AS reason
      FROM pg_stat_activity AS s LEFT JOIN loquat_operations.projects AS p ON p.database = s.datname
      LEFT JOIN loquat_operations.logins AS l ON l.rolname = s.usename
      WHERE s.backend_type = 'client backend' AND s.usename ~ $1) AS sessions
WHERE reason IS NOT NULL"""

# What a login can change of itself: its settings (here, elsewhere and for all databases) and its password. And what it shall be may have
# changed: whether it may enter, how many connections it may have.
_CHANGED: Final = f"""
SELECT l.rolname, coalesce(o.closed_for_size, false) AS over_size
FROM loquat_operations.logins AS l JOIN loquat_operations.tenant_passwords AS p USING (rolname) JOIN pg_roles AS r USING (rolname)
LEFT JOIN loquat_operations.projects AS o USING (database)
WHERE p.digest IS DISTINCT FROM sha256(convert_to(l.verifier, 'UTF8'))
   OR p.rolcanlogin = (l.closed OR coalesce(o.closed_for_size, false) AND l.rolname !~ '_editor$')
   OR p.rolconnlimit <> l.connection_limit
   OR (SELECT coalesce(array_agg(d.datname || ':' || array_to_string(s.setconfig, ';')), '{{}}')
       FROM pg_db_role_setting AS s LEFT JOIN pg_database AS d ON d.oid = s.setdatabase WHERE s.setrole = r.oid)
      <> ARRAY[l.database || ':' || array_to_string({logins.SETTINGS}, ';')]"""  # noqa: S608  (constants)

# A project that was closed for its size is opened again below 90 %: else it would flicker.
_OVER_SIZE: Final = """
SELECT database, over
FROM (SELECT p.database, p.closed_for_size, pg_database_size(d.oid) > p.size_limit * CASE WHEN p.closed_for_size THEN 0.9 ELSE 1 END AS over
      FROM loquat_operations.projects AS p JOIN pg_database AS d ON d.datname = p.database) AS projects
WHERE over <> closed_for_size"""

_END: Final = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = ANY ($1)"
_HELD: Final = 0.5  # seconds for the lock on a role: longer than an honest change of it takes, short for the logins that wait behind it
_WEIGHINGS: Final = 3  # in a row, each of them spoilt by the end of some project; the next ones come in a minute
_IN_THE_WAY: Final = (
    asyncpg.LockNotAvailableError,
    asyncpg.DeadlockDetectedError,
    asyncpg.InternalServerError,  # tuple concurrently updated: PostgreSQL has no better word for it
    asyncpg.UndefinedObjectError,  # the project is gone meanwhile
    asyncpg.InvalidCatalogNameError,
)
"""What a login, or the end of its project, can do to whoever changes the login meanwhile."""

_SESSIONS: Final = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'client backend' AND usename ~ $1)"


@dataclass(frozen=True, slots=True)
class Ages:
    """How long a tenant's session may be in a state."""

    statement: timedelta = timedelta(seconds=30)
    idle_in_transaction: timedelta = timedelta(seconds=15)
    transaction: timedelta = timedelta(seconds=60)
    idle: timedelta = timedelta(minutes=10)  # a session keeps WITH HOLD cursors and their files


class Reaper:
    """One cluster's. Sweeps each second while tenants are connected, else every five seconds: who changed something may have left since.

    What one login does never keeps the others from being looked after.
    """

    def __init__(self, databases: ProjectDatabases, ages: Ages | None = None) -> None:
        self._databases, self._ages = databases, ages or Ages()
        self._log = get_logger()

    async def run(self, *, weigh_every: int = 60) -> None:
        """For ever; a cluster that is away is asked again."""
        turn = 0
        while True:
            busy = False
            try:
                admin = await self._databases.admin()
                busy = await admin.fetchval(_SESSIONS, TENANT, timeout=5)
                await self.sweep(admin)
                if turn % weigh_every == 0:
                    await self.weigh(admin)
            except DatabaseAway:
                self._log.warning("reaper.cluster_away")
            except Exception as error:
                if not is_gone(error):
                    raise
                await self._databases.close()
            turn += 1
            await asyncio.sleep(1 if busy else 5)

    async def sweep(self, admin: Connection) -> list[str]:
        """Ends what is too old, puts back what a login changed of itself; a line per act."""
        ages, queues = self._ages, await shared.end_queues(admin)
        ended = await admin.fetch(_OVER_AGE, TENANT, ages.statement, ages.idle_in_transaction, ages.transaction, ages.idle, timeout=10)
        for row in ended:
            metrics.reaped.labels(row["reason"]).inc()
            self._log.info("reaper.ended", login=row["usename"], reason=row["reason"])
        changed = await admin.fetch(_CHANGED, timeout=10)
        back = [row["rolname"] for row in changed if await self._put_back(admin, row["rolname"], over_size=row["over_size"])]
        return queues + [f"ended {r['usename']}: {r['reason']}" for r in ended] + [f"put back {name}" for name in back]

    async def _put_back(self, admin: Connection, name: str, *, over_size: bool) -> bool:
        """False: the next sweep tries again, and nobody of that login is in the way any more.

        Over its project's size a login that changed itself did so to write, or to be let in from elsewhere: its sessions end.
        """
        try:
            async with admin.transaction():
                await admin.execute(f"SET LOCAL lock_timeout = '{_HELD}s'")
                await logins.put_right(admin, name)
        except _IN_THE_WAY as error:
            await admin.execute(_END, [name], timeout=5)
            self._log.warning("reaper.in_the_way", login=name, sqlstate=error.sqlstate)
            return False
        if over_size:
            await admin.execute(_END, [name], timeout=5)
        self._log.warning("reaper.put_back", login=name)
        return True

    async def weigh(self, admin: Connection) -> list[str]:
        """Over its limit a project keeps only its editor, which reads, and deletes for the API; below 90 % all is as before.

        All sessions end with the closing: those that come then begin as they shall.
        """
        acts: list[str] = []
        for row in await self._over_size(admin):
            database, over = row["database"], row["over"]
            try:
                await self._close(admin, database, over=over)
            except _IN_THE_WAY as error:
                self._log.warning("reaper.not_weighed", database=database, sqlstate=error.sqlstate)
            else:
                acts.append(f"{'closed' if over else 'opened'} {database}")
        return acts

    async def _over_size(self, admin: Connection) -> list[asyncpg.Record]:
        for _ in range(_WEIGHINGS):
            with suppress(asyncpg.UndefinedObjectError):  # a database that is deleted meanwhile has no size, and the statement no result
                return await admin.fetch(_OVER_SIZE, timeout=60)
        return []

    async def _close(self, admin: Connection, database: str, *, over: bool) -> None:
        everybody = [Names(database).login(kind) for kind in LOGINS]
        async with admin.transaction():
            await admin.execute(f"SET LOCAL lock_timeout = '{_HELD}s'")
            await admin.execute("UPDATE loquat_operations.projects SET closed_for_size = $2 WHERE database = $1", database, over)
            for login in everybody:
                await logins.put_right(admin, login)
        if over:
            await admin.execute(_END, everybody, timeout=5)
