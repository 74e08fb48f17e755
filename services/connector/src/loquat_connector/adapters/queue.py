"""The send queue in the control database. A row's state and what is to be told of it change in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final
from uuid import UUID

from loquat_events.conversations import MessageOutcome, MessageQueued, StatusReceived

from loquat_connector.adapters.outcomes import tell
from loquat_connector.domain.verdict import Verdict

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

LEASE: Final = 15.0
"""Seconds for one attempt. Above the limit of the HTTP call (10 s): a row that is still `sending` then has lost its sender."""
_LIFE: Final = 24 * 3600.0
"""Seconds until a message that could not be handed over is given up: the customer service window."""
SHARE: Final = 50
"""Attempts of one number at the same time: what 80 messages per second need where Meta takes 0.6 s for each."""
_DELETED_AT_ONCE: Final = 1000  # rows; well within one command's limit
_HEADS: Final = """
WITH RECURSIVE step (number_id) AS (
    SELECT min(number_id) FROM sends WHERE state = 'queued'
    UNION ALL
    SELECT (SELECT min(number_id) FROM sends WHERE state = 'queued' AND number_id > step.number_id) FROM step WHERE step.number_id IS NOT NULL
), able AS (
    SELECT n.phone_number_id, n.project_id, n.parked_until, (SELECT count(*) FROM unnest($1::text[]) AS b WHERE split_part(b, ' ', 1) = n.phone_number_id) AS busy
    FROM step JOIN numbers AS n ON n.phone_number_id = step.number_id AND n.state = 'attached' WHERE step.number_id <> ALL ($2::text[])
)
SELECT {wanted} FROM able AS n CROSS JOIN LATERAL (
    SELECT s.* FROM sends AS s
    WHERE s.number_id = n.phone_number_id AND s.project_id = n.project_id AND s.state = 'queued' AND s.number_id || ' ' || s.recipient <> ALL ($1){due}
      AND NOT EXISTS (SELECT FROM sends AS e WHERE e.number_id = s.number_id AND e.recipient = s.recipient AND e.seq < s.seq
                      AND e.project_id = s.project_id AND e.state IN ('queued', 'sending'))
    ORDER BY s.next_at, s.seq LIMIT greatest(0, least({most}, $3 - n.busy))
) AS s"""
"""Heads of lanes whose number can send, of each number no more than its share: the work grows with the numbers that have something queued.
What another project left in the queue of a number that it lost is not before anybody."""
_CANDIDATES: Final = (
    _HEADS.format(
        wanted="s.*, n.busy + row_number() OVER (PARTITION BY s.number_id ORDER BY s.next_at, s.seq) AS place",
        due=" AND s.next_at <= now() AND (n.parked_until IS NULL OR n.parked_until <= now())",
        most="$4",
    )
    + " ORDER BY place, s.next_at, s.seq LIMIT $4"
)
_NEXT_DUE: Final = (
    "SELECT extract(epoch FROM least(("  # noqa: S608  (constants)
    + _HEADS.format(wanted="min(greatest(s.next_at, n.parked_until))", due="", most="1")
    + "),"
    " (SELECT min(lease_until) FROM sends WHERE state = 'sending')) - clock_timestamp())::float"
)

# purpose: what became of an attempt; before its row in `attempts`, as everywhere. One of an erased person is not queued again, and learns no wamid
_END: Final = """
WITH held AS (
  SELECT message_id, recipient = 'erased' AS erased,
    attempts = $2 AND (state = 'sending' OR state = 'unknown' AND $3 IN ('accepted', 'failed')) AS ours FROM sends WHERE message_id = $1 FOR NO KEY UPDATE
), moved AS (
  UPDATE sends AS s SET state = CASE WHEN h.erased AND $3::text = 'queued' THEN 'failed' ELSE $3 END, wamid = CASE WHEN NOT h.erased THEN coalesce($4, s.wamid) END,
    next_at = now() + $5::float * interval '1 second', lease_until = NULL, ended_at = CASE WHEN NOT h.erased AND $3 = 'queued' THEN NULL ELSE now() END
  FROM held AS h WHERE s.message_id = h.message_id AND h.ours RETURNING s.state
)
SELECT h.erased, (SELECT m.state FROM moved AS m) AS state FROM held AS h"""


@dataclass(frozen=True, slots=True)
class Send:
    """A row that was claimed: its attempt is committed."""

    message_id: UUID
    project_id: str
    number_id: str
    recipient: str
    is_user_id: bool
    message: dict[str, Any]
    attempt: int


class SendQueue:
    """Claims, ends, resolves."""

    def __init__(self, pool: Pool, *, lease: float = LEASE, share: int = SHARE) -> None:
        self._pool, self.lease, self._share = pool, lease, share

    async def put(self, project: str, queued: MessageQueued, recipient: str, *, is_user_id: bool) -> None:
        """Takes a message in, once; to a contact who was erased it is refused, and nothing of it is kept."""
        tag = await self._pool.execute(
            "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, queued_at, deadline, contact_id)"
            " SELECT $1::uuid, $2::text, $3, $4, $5::boolean, $6::jsonb, 'queued', $7::timestamptz, $7::timestamptz + $8::float * interval '1 second', $9::uuid"
            " WHERE NOT EXISTS (SELECT FROM erased_contacts WHERE (project_id, contact_id) = ($2, $9)) ON CONFLICT DO NOTHING",
            queued.message_id,
            project,
            queued.number_id,
            recipient,
            is_user_id,
            queued.message.model_dump(exclude_none=True),
            queued.queued_at,
            _LIFE,
            queued.contact_id,
        )
        if tag == "INSERT 0 0":  # or it is there already, and stays as it is
            await self.refuse(project, queued, "the contact was erased")

    async def refuse(self, project: str, queued: MessageQueued, reason: str) -> None:
        """A message that cannot be sent at all: failed at once, visible. What it says stands in the project's record alone."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            fresh = await connection.fetchval(
                "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, deadline, ended_at)"
                " VALUES ($1, $2, $3, '', false, '{}', 'failed', now(), now()) ON CONFLICT DO NOTHING RETURNING true",
                queued.message_id,
                project,
                queued.number_id,
            )
            if fresh:
                await tell(connection, project, queued.message_id, "failed", 0, title=reason)

    async def candidates(self, most: int, busy: Sequence[str], resting: Sequence[str] = ()) -> list[Send]:
        """Due heads of lanes, of lanes that this process has not in hand and numbers that do not rest. Nothing is claimed yet.

        Numbers take turns, who has least under way first: a neighbour's message is among the first whatever another's queue.
        """
        rows = await self._pool.fetch(_CANDIDATES, busy, resting, self._share, most)
        return [_send(r, r["attempts"] + 1) for r in rows]

    async def claim(self, send: Send) -> bool:
        """Commits the attempt, before the socket is written to. False: another connector has it, or had it since we looked."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            row = await connection.fetchrow(
                "UPDATE sends SET state = 'sending', attempts = attempts + 1, lease_until = now() + $2 * interval '1 second'"
                " WHERE message_id = (SELECT message_id FROM sends WHERE message_id = $1 AND attempts = $3 - 1 AND state = 'queued'"
                "                     AND next_at <= now() FOR UPDATE SKIP LOCKED)"
                " RETURNING true",
                send.message_id,
                self.lease,
                send.attempt,
            )
            if row is None:
                return False
            await connection.execute("INSERT INTO attempts (message_id, n) VALUES ($1, $2)", send.message_id, send.attempt)
        return True

    async def postpone(self, waits: Mapping[UUID, float]) -> None:
        """Not for so many seconds: the pace says so. No attempt is counted."""
        await self._pool.execute(
            "UPDATE sends AS s SET next_at = now() + u.wait * interval '1 second' FROM unnest($1::uuid[], $2::float[]) AS u(id, wait)"
            " WHERE s.message_id = u.id AND s.state = 'queued'",
            list(waits),
            list(waits.values()),
        )

    async def end(self, send: Send, verdict: Verdict) -> None:
        """What became of the attempt.

        If a status was faster, the row has moved on and only the attempt is noted. An answer after the lease still ends what nobody knew.
        If the person was erased meanwhile, it is not tried again, and Meta's id and words (they may hold the number) are kept nowhere.
        """
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            row = await connection.fetchrow(_END, send.message_id, send.attempt, verdict.state, verdict.wamid, verdict.wait)
            if row is None:
                return  # its project is gone
            if row["erased"]:
                verdict = replace(verdict, wamid=None, title=None, details=None)
            await connection.execute(
                "UPDATE attempts SET ended_at = clock_timestamp(), outcome = $3, http_status = $4, code = $5, title = $6, details = $7, fbtrace_id = $8"
                " WHERE message_id = $1 AND n = $2",
                send.message_id,
                send.attempt,
                verdict.state,
                verdict.http_status,
                verdict.code,
                verdict.title,
                verdict.details,
                verdict.fbtrace_id,
            )
            if row["state"] not in {None, "queued"}:
                await tell(
                    connection,
                    send.project_id,
                    send.message_id,
                    row["state"],
                    send.attempt,
                    wamid=verdict.wamid,
                    code=verdict.code,
                    title=verdict.title,
                )
            if verdict.reconnect or verdict.park > 0:
                await connection.execute(  # unless it was connected again while we waited for the answer to the token before
                    "UPDATE numbers SET state = CASE WHEN $5 THEN 'needs_reconnect' ELSE state END, parked_until = now() + $6 * interval '1 second'"
                    " WHERE phone_number_id = $1 AND project_id = $2 AND state = 'attached'"
                    " AND attached_at <= (SELECT started_at FROM attempts WHERE message_id = $3 AND n = $4)",
                    send.number_id,
                    send.project_id,
                    send.message_id,
                    send.attempt,
                    verdict.reconnect,
                    verdict.park,
                )

    async def sweep(self) -> int:
        """Ends what lost its sender (nobody knows) and what is past its deadline; how many."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            lost = await connection.fetch(
                "UPDATE sends SET state = 'unknown', lease_until = NULL, ended_at = now() WHERE message_id IN"
                " (SELECT message_id FROM sends WHERE state = 'sending' AND lease_until < now() LIMIT 500 FOR UPDATE SKIP LOCKED)"
                " RETURNING message_id, project_id, attempts"
            )
            for row in lost:
                await connection.execute(
                    "UPDATE attempts SET ended_at = clock_timestamp(), outcome = 'unknown', title = 'the sender was lost' WHERE message_id = $1 AND n = $2",
                    row["message_id"],
                    row["attempts"],
                )
                await tell(
                    connection, row["project_id"], row["message_id"], "unknown", row["attempts"], title="nobody knows whether it was sent"
                )
            old = await connection.fetch(
                "UPDATE sends SET state = 'expired', ended_at = now() WHERE message_id IN"
                " (SELECT message_id FROM sends WHERE state = 'queued' AND deadline < now() LIMIT 500 FOR UPDATE SKIP LOCKED)"
                " RETURNING message_id, project_id, attempts"
            )
            for row in old:
                await tell(
                    connection, row["project_id"], row["message_id"], "expired", row["attempts"], title="it could not be sent in time"
                )
        return len(lost) + len(old)

    async def resolve(self, status: StatusReceived) -> None:
        """A status of ours came: whatever we did not know, Meta has the message, also if it answered with an error and waits for a retry.

        Only the number that it was sent from can say so: the id in a status is the choice of whoever sent the message.
        """
        await self._pool.execute(
            "UPDATE sends SET state = 'accepted', wamid = CASE WHEN recipient <> 'erased' THEN $2 END, lease_until = NULL, ended_at = coalesce(ended_at, now())"
            " WHERE message_id = $1 AND number_id = $3 AND (state IN ('sending', 'unknown') OR state = 'queued' AND attempts > 0)",
            status.message_id,
            status.wamid,
            status.number_id,
        )

    async def next_due(self, busy: Sequence[str], resting: Sequence[str] = ()) -> float | None:
        """Seconds until `candidates` has something to give, or an attempt must be looked after; None: nothing waits for a time."""
        return await self._pool.fetchval(_NEXT_DUE, busy, resting, self._share)

    async def projects(self) -> list[str]:
        """All that have a message here, or had one to a contact who was erased. From one to the next by the index: their rows may be many."""
        rows = await self._pool.fetch(
            "WITH RECURSIVE step (id) AS (SELECT min(project_id) FROM sends UNION ALL"
            " SELECT (SELECT min(project_id) FROM sends WHERE project_id > step.id) FROM step WHERE step.id IS NOT NULL)"
            " SELECT id FROM step WHERE id IS NOT NULL UNION SELECT project_id FROM erased_contacts"
        )
        return [r["id"] for r in rows]

    async def forget(self, project: str) -> None:
        """Drops all messages of a project that is gone, with their attempts and what was to be told of them. An attempt under way ends for nobody."""
        while await self._pool.fetchval(
            "WITH gone AS (DELETE FROM sends WHERE message_id IN (SELECT message_id FROM sends WHERE project_id = $1 LIMIT $2) RETURNING 1)"
            " SELECT count(*) FROM gone",
            project,
            _DELETED_AT_ONCE,
        ):
            continue
        await self._pool.execute("DELETE FROM outcomes WHERE project_id = $1", project)
        await self._pool.execute("DELETE FROM erased_contacts WHERE project_id = $1", project)

    async def outcomes(self, most: int) -> list[tuple[UUID, str, MessageOutcome]]:
        """What is still to be published, in order."""
        rows = await self._pool.fetch("SELECT id, project_id, body FROM outcomes ORDER BY seq LIMIT $1", most)
        return [(r["id"], r["project_id"], MessageOutcome.model_validate(r["body"])) for r in rows]

    async def told(self, ids: list[UUID]) -> None:
        """These are published."""
        await self._pool.execute("DELETE FROM outcomes WHERE id = ANY ($1)", ids)


def _send(row: asyncpg.Record, attempt: int) -> Send:
    return Send(row["message_id"], row["project_id"], row["number_id"], row["recipient"], row["is_user_id"], row["message"], attempt)
