"""Whether the process that began something still lives: it holds an advisory lock of the control database, on a connection of its own."""

from __future__ import annotations

import asyncio
import secrets
from typing import TYPE_CHECKING, Final

import asyncpg
from loquat_common.db import is_gone

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

_AGAIN: Final = 2.0  # seconds between tries to hold one again
_BITS: Final = 63  # of a key: a positive bigint
HELD: Final = """
SELECT EXISTS (SELECT FROM pg_catalog.pg_locks AS l WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
  AND l.database = (SELECT d.oid FROM pg_catalog.pg_database AS d WHERE d.datname = pg_catalog.current_database())
  AND (l.classid::pg_catalog.int8 << 32) | l.objid::pg_catalog.int8 = $1)"""
"""Whether the lock of key $1 is held. Looked at, not tried: behind a pool of sessions one that tries may be the holder's own."""


class Holder:
    """A process. Its connection lost is a process lost for all who ask: what it began may be given up, which costs a refusal and never the truth."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._key: int | None = None

    @property
    def key(self) -> int | None:
        """The key of the lock; None: none is held now."""
        return self._key

    async def run(self) -> None:
        """Holds a lock, for ever; a new one after each connection that is lost."""
        while True:
            connection: Connection | None = None
            try:
                connection = await asyncpg.connect(self._dsn, timeout=5)
                ended, key = asyncio.Event(), secrets.randbits(_BITS)
                connection.add_termination_listener(lambda _, ended=ended: ended.set())
                await connection.execute("SELECT pg_catalog.pg_advisory_lock($1)", key, timeout=5)
                self._key = key
                await ended.wait()
            except Exception as error:
                if not is_gone(error):
                    raise
            finally:
                self._key = None
                if connection is not None and not connection.is_closed():
                    connection.terminate()
            await asyncio.sleep(_AGAIN)
