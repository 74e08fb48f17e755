"""What is to be told of a message, written in the transaction that changes its row."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING
from uuid import UUID

from loquat_events.conversations import MessageOutcome
from loquat_events.ids import change_id

if TYPE_CHECKING:
    import asyncpg
    from asyncpg.pool import PoolConnectionProxy

    Connection = PoolConnectionProxy[asyncpg.Record]


async def tell(
    connection: Connection,
    project: str,
    message: UUID,
    status: str,
    attempt: int,
    *,
    wamid: str | None = None,
    code: int | None = None,
    title: str | None = None,
) -> None:
    """An attempt has one outcome of a status, however often it is told."""
    outcome = MessageOutcome.model_validate(
        {
            "message_id": message,
            "status": status,
            "attempt": attempt,
            "wamid": wamid,
            "at": datetime.now(UTC),
            "error_code": code,
            "error_title": title,
        }
    )
    await connection.execute(
        "INSERT INTO outcomes (id, project_id, body) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        change_id(message, f"{attempt} {status}"),
        project,
        outcome.model_dump(mode="json"),
    )
