"""What the send queue keeps of people: it is taken from the rows, which stay. They keep a message that is queued again from being sent again."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Final, LiteralString
from uuid import UUID

from loquat_connector.adapters.outcomes import tell

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_AT_ONCE: Final = 1000  # rows; well within one command's limit
_LIMIT: Final = 10.0  # seconds for one statement
# purpose: takes text and recipient from a batch of rows; those that waited are not sent any more. Rows before attempts, as everywhere
_BLANK: Final = """
WITH chosen AS (SELECT message_id, state FROM sends WHERE project_id = $1 AND recipient <> 'erased' AND {whose} LIMIT $3 FOR UPDATE),
blank AS (
  UPDATE sends AS s SET message = '{{}}', recipient = 'erased', wamid = NULL,
    ended_at = CASE WHEN c.state = 'sending' THEN s.ended_at ELSE coalesce(s.ended_at, now()) END,
    state = CASE WHEN c.state = 'queued' THEN 'expired' ELSE s.state END
  FROM chosen AS c WHERE s.message_id = c.message_id RETURNING s.message_id, s.attempts, c.state = 'queued' AS waited
), told AS (UPDATE attempts AS a SET title = NULL, details = NULL FROM blank AS b WHERE a.message_id = b.message_id)
SELECT message_id, attempts, waited FROM blank"""
_TO_ADDRESSES: Final = _BLANK.format(whose="recipient = ANY ($2::text[])")
_TO_CONTACTS: Final = _BLANK.format(whose="contact_id = ANY ($2::uuid[])")


class ForgottenSends:
    """Each may be asked for again, and may have been cut off anywhere."""

    def __init__(self, pool: Pool, *, at_once: int = _AT_ONCE) -> None:
        self._pool, self._at_once = pool, at_once

    async def bar(self, project: str, people: Sequence[UUID]) -> None:
        """From now on no message to these contacts is taken in; what was being taken in is there, for `forget_contacts` to see.

        Whoever takes a message in reads the table, and so has its lock from before its snapshot to its commit: it is waited for, milliseconds.
        """
        async with self._pool.acquire(timeout=_LIMIT) as connection, connection.transaction():
            await connection.execute("LOCK TABLE erased_contacts IN ACCESS EXCLUSIVE MODE", timeout=_LIMIT)
            await connection.execute(
                "INSERT INTO erased_contacts (project_id, contact_id) SELECT $1, unnest($2::uuid[]) ON CONFLICT DO NOTHING",
                project,
                list(people),
                timeout=_LIMIT,
            )

    async def forget_contacts(self, project: str, people: Sequence[UUID]) -> None:
        """Texts and recipients of all messages to these contacts."""
        await self._forget(_TO_CONTACTS, project, list(people))

    async def forget_addresses(self, project: str, addresses: Sequence[str]) -> None:
        """Texts and recipients of all messages to these addresses."""
        await self._forget(_TO_ADDRESSES, project, list(addresses))

    async def _forget(self, query: LiteralString, project: str, whose: Sequence[str] | Sequence[UUID]) -> None:
        """An attempt under way cannot be called back, but leaves nothing either, and is not made again (`SendQueue.end`)."""
        while True:
            async with self._pool.acquire(timeout=_LIMIT) as connection, connection.transaction():
                rows = await connection.fetch(query, project, whose, self._at_once)
                for row in rows:
                    if row["waited"]:
                        await tell(connection, project, row["message_id"], "expired", row["attempts"], title="the contact was erased")
            if len(rows) < self._at_once:
                return
