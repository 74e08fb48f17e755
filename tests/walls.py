"""A corpus of statements that every one of a project's logins tries, the SQL console's too, and what must come of each: a SQLSTATE, or no harm."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Literal

import asyncpg
from loquat_provisioner.domain.life import Login

from tests.tenants import PASSWORD, Desk, Project, Tenants, message
from tests.yard import Yard

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Way = Literal["bot", "editor", "direct", "console"]
WAYS: Final[tuple[Way, ...]] = ("bot", "editor", "direct", "console")
"""The console is the editor's login inside one transaction with limits, as `adapters/console.py` begins it."""
HARMLESS: Final = "harmless"
_ENDED: Final = "57P01"
_LIMIT: Final = 40.0  # seconds for one attack; the reaper ends it long before
_HEAD: Final = re.compile(r"^-- (?P<what>.+?) \| (?P<outcomes>[A-Z0-9a-z ]+?)(?: \| console (?P<console>[A-Z0-9a-z ]+))?$")

WIDE: Final = """
WITH theirs AS (SELECT oid FROM pg_class WHERE relowner = 'loquat_system'::regrole OR relnamespace = 'loquat_walls'::regnamespace),
  all_of_it AS (SELECT oid FROM theirs UNION ALL SELECT oid FROM pg_proc WHERE proowner = 'loquat_system'::regrole
                UNION ALL SELECT oid FROM pg_namespace WHERE nspname IN ('public', 'loquat', 'extensions', 'loquat_walls'))
SELECT md5(string_agg(line, '|' ORDER BY line)) FROM (
  SELECT format('comment %s %s %s', classoid, objoid, description) FROM pg_description WHERE objoid IN (SELECT oid FROM all_of_it)
  UNION ALL SELECT format('label %s %s', objoid, label) FROM pg_seclabel UNION ALL SELECT format('label %s', label) FROM pg_shseclabel
  UNION ALL SELECT format('comment %s %s', objoid, description) FROM pg_shdescription
  UNION ALL SELECT format('constraint %s %s', conrelid, pg_get_constraintdef(oid)) FROM pg_constraint
    WHERE conrelid IN (SELECT oid FROM theirs) OR confrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('default %s %s', adrelid, pg_get_expr(adbin, adrelid)) FROM pg_attrdef WHERE adrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('column %s %s %s %s %s', attrelid, attname, attnotnull, attoptions, attacl) FROM pg_attribute WHERE attrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('storage %s %s %s %s %s', oid, reloptions, reltablespace, relpersistence, relreplident) FROM pg_class WHERE oid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('statistics %s', stxname) FROM pg_statistic_ext WHERE stxrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('policy %s', polname) FROM pg_policy WHERE polrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('rule %s', rulename) FROM pg_rewrite WHERE ev_class IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('child %s of %s', inhrelid, inhparent) FROM pg_inherits WHERE inhrelid IN (SELECT oid FROM theirs) OR inhparent IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('of a row type: %s', attrelid) FROM pg_attribute AS a JOIN pg_type AS t ON t.oid = a.atttypid
    WHERE t.typrelid IN (SELECT oid FROM theirs) OR t.typelem IN (SELECT oid FROM pg_type WHERE typrelid IN (SELECT oid FROM theirs))
  UNION ALL SELECT format('type %s %s %s', typname, typowner, typacl) FROM pg_type WHERE typrelid IN (SELECT oid FROM theirs)
  UNION ALL SELECT format('default rights %s %s', defaclrole, defaclacl) FROM pg_default_acl WHERE defaclrole = 'loquat_system'::regrole
  UNION ALL SELECT format('event trigger %s %s %s', evtname, evtenabled, evtfoid) FROM pg_event_trigger
  UNION ALL SELECT format('function %s %s', oid, prosrc) FROM pg_proc WHERE pronamespace = 'loquat_walls'::regnamespace
  UNION ALL SELECT format('catalog %s', count(*)) FROM pg_proc WHERE pronamespace = 'pg_catalog'::regnamespace
  UNION ALL SELECT format('language %s %s', lanname, lanacl) FROM pg_language UNION ALL SELECT fdwname FROM pg_foreign_data_wrapper
  UNION ALL SELECT srvname FROM pg_foreign_server UNION ALL SELECT spcname FROM pg_tablespace UNION ALL SELECT nspname FROM pg_namespace
  UNION ALL SELECT slot_name FROM pg_replication_slots UNION ALL SELECT roname FROM pg_replication_origin UNION ALL SELECT subname FROM pg_subscription
  UNION ALL SELECT format('parameter %s %s', parname, paracl) FROM pg_parameter_acl
  UNION ALL SELECT format('setting %s %s %s', setdatabase, setrole, setconfig) FROM pg_db_role_setting
    WHERE setrole NOT IN (SELECT oid FROM pg_roles WHERE rolname ~ '^p_')
  UNION ALL SELECT format('large object %s', oid) FROM pg_largeobject_metadata UNION ALL SELECT gid FROM pg_prepared_xacts
  UNION ALL SELECT x::text FROM loquat.addresses x UNION ALL SELECT x::text FROM loquat.outbox x UNION ALL SELECT x::text FROM loquat.receipts x
  UNION ALL SELECT x::text FROM loquat.updates x UNION ALL SELECT x::text FROM loquat.migrations x
  UNION ALL SELECT x::text FROM loquat.bots x UNION ALL SELECT x::text FROM loquat.bot_configuration x UNION ALL SELECT x::text FROM loquat.bot_memories x
) AS lines(line)"""


@dataclass(frozen=True, slots=True)
class Statement:
    """What is tried, what it attacks, and what may come of it."""

    what: str
    sql: str
    outcomes: frozenset[str]
    console: frozenset[str]

    def expected(self, way: Way) -> frozenset[str]:
        """For one of the ways in."""
        return self.console if way == "console" else self.outcomes


def parse(script: str) -> list[Statement]:
    """The statements of a file: each a comment `-- what it attacks | SQLSTATE or SQLSTATE[ | console SQLSTATE]` and its SQL, parted by empty lines."""
    found: list[Statement] = []
    for part in re.split(r"\n\n+", script.strip()):
        head, _, sql = part.partition("\n")
        match = _HEAD.match(head)
        assert match is not None, f"no heading: {head}"
        outcomes = frozenset(match["outcomes"].split(" or "))
        found.append(
            Statement(match["what"], sql.strip(), outcomes, frozenset(match["console"].split(" or ")) if match["console"] else outcomes)
        )
    return found


@dataclass(slots=True)
class Wall:
    """One way into the victim's database. Each has a victim and a neighbour of its own, so that names do not collide."""

    yard: Yard
    way: Way
    neighbour: Connection

    @classmethod
    async def before(cls, yard: Yard, way: Way) -> Wall:
        """With rows of the neighbour's own that must be there afterwards."""
        editor = await yard.neighbour.login("editor")
        await editor.execute(
            "CREATE TABLE ledger (id serial PRIMARY KEY, note text); INSERT INTO ledger (note) SELECT 'kept' FROM generate_series(1, 50)"
        )
        await Desk.of(yard.neighbour)
        await yard.run_event(yard.neighbour)
        return cls(yard, way, await yard.neighbour.root())

    @property
    def login(self) -> Login:
        """Of the way."""
        return "editor" if self.way == "console" else self.way

    async def attempt(self, statement: Statement) -> str | None:
        """What was not expected of it; None if all went well. Others of its login run beside it, and a login may end its own sessions: then once more."""
        expected, outcome = statement.expected(self.way), ""
        for _ in range(2):
            outcome = await self._outcome(statement)
            if outcome != _ENDED or _ENDED in expected:
                break
        return (
            None
            if outcome.partition(" ")[0] in expected
            else f"{statement.what}: {outcome}, not {' or '.join(sorted(expected))}: {statement.sql[:120]}"
        )

    async def _outcome(self, statement: Statement) -> str:
        sql, places = statement.sql, {**self.yard.places, "login": self.yard.victim.names.login(self.login)}
        for name, value in places.items():
            sql = sql.replace(f"{{{name}}}", value)
        connection = await _enter(self.yard.tenants, self.yard.victim, self.login)
        try:
            async with asyncio.timeout(_LIMIT):
                return await self._run(connection, sql)
        except TimeoutError:
            return "HUNG"
        finally:
            connection.terminate()

    async def _run(self, connection: Connection, sql: str) -> str:
        try:
            if self.way == "console":
                await connection.execute("BEGIN READ WRITE; SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '2s'")
                await connection.execute(
                    "SELECT set_config('transaction_timeout', '10250', true), set_config('search_path', 'public', false)"
                )
                await connection.execute(sql)
                await connection.execute("COMMIT")
                await connection.execute("DISCARD ALL")
            else:
                await connection.execute(sql)
        except (asyncpg.PostgresConnectionError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError):
            return _ENDED
        except asyncpg.PostgresError as error:
            return f"{error.sqlstate} {error}"
        return HARMLESS

    async def print_of_all(self) -> tuple[str, ...]:
        """Of what is the platform's in the victim's database, and of everything of the neighbour's."""
        rows = await self.neighbour.fetch("SELECT id, note, xmin::text FROM public.ledger ORDER BY id")
        victim, neighbour = self.yard.root, self.neighbour
        return (
            await self.yard.fingerprint(),
            await victim.fetchval(WIDE),
            await neighbour.fetchval(WIDE),
            await neighbour.fetchval("SELECT md5(string_agg(m::text, '|' ORDER BY m.id)) FROM public.messages AS m"),
            repr([tuple(r) for r in rows]),
        )

    async def works(self) -> None:
        """All of the platform's functions, in both databases."""
        for project in (self.yard.victim, self.yard.neighbour):
            desk = await Desk.of(project)
            given = message("user_id:works")
            (row,) = await desk.record(given)
            assert row["fresh"]
            (queued,) = await desk.run(given, replies=[{"type": "text", "text": "hello"}])
            assert await desk.receipts({"key": queued["message_id"], "status": "delivered", "at": "2026-01-01T00:00:00Z"}) == 1
            sent = {
                "id": str(given["id"])[:-4] + "ffff",
                "conversation_id": str(row["conversation_id"]),
                "type": "text",
                "text": "x",
                "sender": "person",
            }
            assert await desk.outbound(sent) == 1
            await desk.runner.execute("SELECT loquat.clear_outbox(ARRAY[$1::text::uuid])", given["id"])
            await desk.runner.close()
            await desk.log.close()
            await self.yard.run_event(project)


async def _enter(tenants: Tenants, project: Project, login: Login) -> Connection:
    """A login has few connections, one that was ended is counted for a moment longer, and one that keeps itself out waits for the reaper."""
    async with asyncio.timeout(_LIMIT):
        while True:
            try:
                return await tenants.cluster.connect(project.database, user=project.names.login(login), password=PASSWORD)
            except (asyncpg.TooManyConnectionsError, asyncpg.InsufficientPrivilegeError):
                await asyncio.sleep(0.02)
