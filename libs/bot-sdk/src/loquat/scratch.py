"""`ctx.db` in unit tests: a schema of its own in a throw-away database, or a clear word that there is none."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID, uuid4

import asyncpg

from loquat.contact import Contact
from loquat.context import Conversation
from loquat.database import Database, prepare
from loquat.messages import Json

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_LIMIT = 10.0  # seconds to connect

# The system's tables, as a project may read them.
_TABLES = """
CREATE TABLE contacts (id uuid PRIMARY KEY, name text, phone_number text UNIQUE, language text, attributes jsonb NOT NULL DEFAULT '{}', merged_into uuid,
  created_at timestamptz NOT NULL DEFAULT now(), updated_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE conversations (id uuid PRIMARY KEY, contact_id uuid NOT NULL, number_id text NOT NULL, status text NOT NULL, state text NOT NULL,
  holder text NOT NULL DEFAULT 'bot', version bigint NOT NULL, opened_at timestamptz NOT NULL DEFAULT now(), closed_at timestamptz);
CREATE TABLE messages (id uuid PRIMARY KEY, conversation_id uuid NOT NULL, direction text NOT NULL, type text NOT NULL, text text, content jsonb, raw json,
  wamid text, reply_to text, sender text NOT NULL, sender_id text, status text NOT NULL DEFAULT 'received', transitions jsonb NOT NULL DEFAULT '{}',
  error_code int, error_title text, pricing text, billable boolean, sent_at timestamptz NOT NULL, recorded_at timestamptz NOT NULL DEFAULT now());
CREATE FUNCTION only_read() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
  RAISE EXCEPTION 'permission denied for table %', TG_TABLE_NAME USING ERRCODE = '42501'; END $$"""
_ONLY_READ = """CREATE TRIGGER only_read BEFORE INSERT OR UPDATE OR DELETE OR TRUNCATE ON {table} FOR EACH STATEMENT
  WHEN (current_setting('loquat.tester', true) IS DISTINCT FROM 'on') EXECUTE FUNCTION only_read()"""
_FILL = """INSERT INTO {table} ({columns}) SELECT {columns} FROM jsonb_populate_recordset(NULL::{table}, $1) ON CONFLICT (id) DO UPDATE SET {changes}"""


def rows_of(contact: Contact, where: Conversation, now: Json, messages: Sequence[Json]) -> dict[str, Sequence[Json]]:
    """Rows of the system's tables. `now` are the columns of the conversation that move."""
    who = {"name": contact.name, "phone_number": contact.phone_number, "language": contact.language, "attributes": dict(contact.attributes)}
    return {
        "contacts": [{"id": str(contact.id), **who}],
        "conversations": [{"id": str(where.id), "contact_id": str(contact.id), "number_id": where.number_id, **now}],
        "messages": messages,
    }


class NoScratchDatabase(Exception):
    """The bot uses ctx.db: give BotTester(bot, database="postgresql://...") a throw-away database."""

    def __init__(self) -> None:
        super().__init__(self.__doc__)


class SchemaFailed(Exception):
    """A script that makes the bot's tables has failed. The text names the file and says why."""


class Scratch:
    """Opens connections, each for one call, and makes the schema at the first. So nothing hangs on an event loop.

    `rows` says what stands in the system's tables at the moment: rows by table, all of a table with the same columns. `scripts` are run when the
    schema is made.
    """

    def __init__(
        self, dsn: str | None, rows: Callable[[], Mapping[str, Sequence[Mapping[str, Any]]]], scripts: Sequence[Path | str] = ()
    ) -> None:
        self._dsn, self._rows, self._scripts = dsn, rows, {str(script): Path(script).read_text() for script in scripts}
        self._schema = f"bot_test_{uuid4().hex[:12]}"
        self._made = False

    async def acquire(self, *, timeout: float = _LIMIT) -> Connection:  # noqa: ASYNC109  (as a pool has it)
        """A connection in the schema.

        Raises:
            NoScratchDatabase: none was given.
        """
        if self._dsn is None:
            raise NoScratchDatabase
        connection: Connection = await asyncpg.connect(self._dsn, timeout=timeout)
        await prepare(connection)
        if not self._made:
            await connection.execute(f"CREATE SCHEMA {self._schema}")
            self._made = True
            await connection.execute(f"SET search_path = {self._schema}; {_TABLES}")
            for table in self._rows():
                await connection.execute(_ONLY_READ.format(table=table))
            await connection.execute(f"SET search_path = {self._schema}, public")
            for name, script in self._scripts.items():
                await self._run(connection, name, script)
        await connection.execute(f"SET search_path = {self._schema}, public; SET loquat.tester = on")
        for table, rows in self._rows().items():
            if rows:
                changes = ", ".join(f"{c} = excluded.{c}" for c in rows[0])
                await connection.execute(_FILL.format(table=table, columns=", ".join(rows[0]), changes=changes), rows)
        await connection.execute("RESET loquat.tester")
        return connection

    async def _run(self, connection: Connection, name: str, script: str) -> None:
        try:
            await connection.execute(script)
        except asyncpg.PostgresError as error:
            await connection.close()
            raise SchemaFailed(f"{name}: {error}") from error

    async def release(self, connection: Connection, *, timeout: float = _LIMIT) -> None:  # noqa: ASYNC109
        """Closes it."""
        await connection.close(timeout=timeout)

    def drop(self) -> None:
        """Removes the schema. Waits for it, in a thread of its own: it is called from tests that have a running loop and from those that have none."""
        if self._made:
            thread = threading.Thread(target=lambda: asyncio.run(self._drop()), name="drop the schema")
            thread.start()
            thread.join()

    async def _drop(self) -> None:
        connection = await self.acquire()
        await connection.execute(f"SET client_min_messages = error; DROP SCHEMA {self._schema} CASCADE")
        self._made = False
        await self.release(connection)


class ScratchDatabase(Database):
    """`ctx.db` of one call. The result is the tester's to keep: committing here is only COMMIT."""

    async def commit(self, event: UUID, version: int, result: dict[str, Any]) -> None:
        """Ends the transaction."""
        del event, version, result
        connection = await self._opened()
        await connection.execute("COMMIT")
