"""A victim and its neighbour on a tenant cluster, with the reaper at work: what a hostile tenant's SQL is tried on."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Final, cast
from uuid import UUID

import asyncpg
from loquat_provisioner.adapters.databases import ProjectDatabases
from loquat_provisioner.adapters.reaper import Ages, Reaper
from loquat_provisioner.domain.life import Login

from tests.tenants import PASSWORD, Desk, Project, Tenants, message

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

AGES: Final = Ages(timedelta(seconds=2.5), timedelta(seconds=2), timedelta(seconds=5), timedelta(seconds=30))
"""Shorter than in earnest, longer than anything a good bot of these tests does on a busy machine."""
_LIMIT: Final = 40.0  # seconds for one attack; the reaper ends it long before
_FREE: Final = (
    "SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0;"
    " SET idle_session_timeout = 0"
)
_PARTED: Final = re.compile(
    r"^-- (bot|editor|direct)( without limits)?: ([a-z ]+)\n(.*?)(?=\n+-- (?:bot|editor|direct)|\s*\Z)", re.DOTALL | re.MULTILINE
)

FINGERPRINT: Final = """
SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT format('%s %s %s', oid, relname, relacl) || relrowsecurity || relhastriggers || relhasrules FROM pg_class WHERE relowner = 'loquat_system'::regrole
  UNION ALL SELECT format('%s %s %s', attrelid, attname, atttypid) FROM pg_attribute JOIN pg_class c ON c.oid = attrelid WHERE relowner = 'loquat_system'::regrole
  UNION ALL SELECT format('%s %s %s %s', oid, proacl, proconfig, md5(coalesce(prosrc, '') || coalesce(prosqlbody::text, ''))) FROM pg_proc WHERE proowner = 'loquat_system'::regrole
  UNION ALL SELECT format('%s %s %s', nspname, nspowner, (SELECT array_agg(a::text) FROM unnest(nspacl) AS a WHERE a::text !~ '^p_'))
    FROM pg_namespace WHERE nspname IN ('public', 'loquat', 'extensions', 'pg_catalog')
  UNION ALL SELECT format('%s %s %s', tgrelid, tgname, tgfoid) FROM pg_trigger JOIN pg_class c ON c.oid = tgrelid WHERE relowner = 'loquat_system'::regrole
  UNION ALL SELECT extname FROM pg_extension UNION ALL SELECT evtname FROM pg_event_trigger UNION ALL SELECT pubname FROM pg_publication
  UNION ALL SELECT format('%s %s', castsource, casttarget) FROM pg_cast WHERE castsource < 16384 AND casttarget < 16384
  UNION ALL SELECT format('%s %s %s', datname, datacl, datconnlimit) FROM pg_database
  UNION ALL SELECT format('%s %s %s %s %s', rolname, rolsuper, rolcreaterole, rolcanlogin, rolconnlimit) FROM pg_roles
  UNION ALL SELECT format('%s %s', roleid, member) FROM pg_auth_members
  UNION ALL SELECT lomowner::text FROM pg_largeobject_metadata
  UNION ALL SELECT format('%s', m) FROM public.messages m UNION ALL SELECT format('%s', c) FROM public.conversations c
  UNION ALL SELECT format('%s', c) FROM public.contacts c UNION ALL SELECT format('%s', e) FROM loquat.events e
  UNION ALL SELECT format('%s', r) FROM loquat.results r UNION ALL SELECT format('%s', i) FROM loquat.identity i
) AS lines(line)"""


@dataclass(frozen=True, slots=True)
class Attack:
    """A statement, who tries it, and what may stop it.

    privilege: 42501, or no CONNECT; function: a platform function's own error; limit: a setting, quota or resource; reaper: the session was
    ended; refused: Postgres has no such thing here; harmless: it goes through and changes nothing of the platform's.
    """

    login: Login
    sql: str
    expected: frozenset[str]
    without_limits: bool


def parse(script: str) -> list[Attack]:
    """The attacks of a file: each a comment `-- login[ without limits]: what or what` and a statement."""
    found = [
        Attack(cast("Login", login), sql.strip(), frozenset(expected.split(" or ")), bool(free))
        for login, free, expected, sql in _PARTED.findall(script)
    ]
    assert len(found) == script.count("\n-- ") + script.startswith("-- "), "every attack has its comment"
    return found


def classify(error: BaseException) -> str:
    """What stopped an attack."""
    state: str = getattr(error, "sqlstate", None) or ""
    if state.startswith("LQ"):
        return "function"
    if state in {"42501", "28000"}:
        return "privilege"
    if state == "57P01" or isinstance(error, asyncpg.InterfaceError | asyncpg.PostgresConnectionError | ConnectionError):
        return "reaper"
    if state[:2] in {"53", "54", "57", "25"} or state in {"55000", "55P02", "55P03", "2200H"}:
        return "limit"
    return "HUNG" if isinstance(error, TimeoutError) else "refused"


@dataclass(slots=True)
class Yard:
    """See the module."""

    tenants: Tenants
    victim: Project
    neighbour: Project
    root: Connection
    places: dict[str, str] = field(default_factory=dict[str, str])
    acts: list[str] = field(default_factory=list[str])

    async def furnish(self) -> None:
        """What attacks refer to: a table on which a trojan leaves its name, an open event, a closed one, one that waits."""
        editor = await self.victim.login("editor")
        await editor.execute("CREATE TABLE trojan_log (who name, login name); GRANT INSERT, SELECT ON trojan_log TO PUBLIC")
        await editor.execute("CREATE TABLE bookings (id int, note text)")
        await editor.close()
        opened, closed, waiting, wish = (message(f"user_id:{n}") for n in "abcd")
        desk = await Desk.of(self.victim)
        await desk.run(closed)
        await desk.begin(opened)
        await desk.record(waiting)
        wish = {**wish, "kind": "order"}
        await desk.begin(wish)
        self.places = {
            "me": self.victim.database,
            "other": self.neighbour.database,
            "owner": self.victim.names.owner,
            "event": opened["id"],
            "closed": closed["id"],
            "waiting": waiting["id"],
            "wish": wish["id"],
            "version": "0",
        }

    async def attack(self, attack: Attack) -> str:
        """Tries it; what stopped it, or `harmless`."""
        sql = attack.sql
        for name, value in self.places.items():
            sql = sql.replace(f"{{{name}}}", value)
        connection = await self._enter(attack.login)
        try:
            async with asyncio.timeout(_LIMIT):
                if attack.without_limits:  # apart: VACUUM and the like refuse a transaction block, settings do not
                    await connection.execute(_FREE)
                if "FROM STDIN" in sql:
                    await connection.copy_records_to_table("messages", records=cast("Any", []), schema_name="public")
                else:
                    await connection.execute(sql)
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
            return classify(error)
        else:
            return "harmless"
        finally:
            connection.terminate()

    async def _enter(self, login: Login) -> Connection:
        """A login has few connections, and one that was ended is counted for a moment longer."""
        async with asyncio.timeout(_LIMIT):
            while True:
                try:
                    return await self.tenants.cluster.connect(self.victim.database, user=self.victim.names.login(login), password=PASSWORD)
                except asyncpg.TooManyConnectionsError:
                    await asyncio.sleep(0.05)

    async def fingerprint(self) -> str:
        """Of everything that is the platform's, as the superuser sees it."""
        return await self.root.fetchval(FINGERPRINT)

    async def trojans(self) -> list[str]:
        """Who ran a tenant's code besides the tenant."""
        rows = await self.root.fetch("SELECT who, login FROM public.trojan_log WHERE login NOT LIKE 'p\\_%' OR who NOT LIKE 'p\\_%'")
        return [f"{r['who']} / {r['login']}" for r in rows]

    async def run_event(self, project: Project) -> None:
        """The whole way of one event, with a bot that uses its database. Raises if the platform or the project does not work."""
        event, desk = message("user_id:d"), await Desk.of(project)
        async with asyncio.timeout(10):
            begun = await desk.begin(event)
            bot = await self.tenants.connect(project.database, project.names.login("bot"))
            async with bot.transaction():
                result = {"state": "s", "replies": [{"type": "text", "text": "hi"}]}
                await bot.execute("SELECT loquat.record_result($1, $2, $3)", UUID(event["id"]), begun["version"], result)
            await bot.close()
            assert (await desk.commit(event))["status"] == "committed"
            await desk.runner.close()
            await desk.log.close()


@asynccontextmanager
async def open_yard(tenants: Tenants) -> AsyncGenerator[Yard]:
    """With a reaper that sweeps several times a second."""
    victim = await tenants.project()
    yard = Yard(tenants, victim, await tenants.project(), await victim.root())
    await yard.furnish()
    databases = ProjectDatabases(tenants.as_service("provisioner"))
    reaper = Reaper(databases, AGES)

    async def reap() -> None:
        while True:
            admin = await databases.admin()
            yard.acts += await reaper.sweep(admin)
            yard.acts += await reaper.weigh(admin)
            await asyncio.sleep(0.3)

    task = asyncio.create_task(reap())
    try:
        yield yard
    finally:
        task.cancel()
        await asyncio.wait([task])
        await databases.close()
        await tenants.drop(yard.victim)
        await tenants.drop(yard.neighbour)
        if not task.cancelled():
            task.result()
