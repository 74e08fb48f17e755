"""Numbers and their sealed tokens; updates that wait for somebody to attach a number."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Literal
from uuid import UUID

from loquat_common.crypto import KeyRing
from loquat_events.numbers import UpdateUnrouted

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

State = Literal["detaching", "attaching", "attached", "needs_reconnect"]


@dataclass(frozen=True, slots=True)
class Number:
    """A number's row, without its token."""

    phone_number_id: str
    project_id: str
    waba_id: str
    display_phone_number: str | None
    state: State
    attach_at: datetime
    attached_at: datetime | None
    retired: bool
    parked_until: datetime | None


@dataclass(frozen=True, slots=True)
class Kept:
    """An update that was kept."""

    seq: int
    waba_id: str
    change: str


_COLUMNS = "phone_number_id, project_id, waba_id, display_phone_number, state, attach_at, attached_at, retired, parked_until"


class Numbers:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool, ring: KeyRing) -> None:
        self._pool, self._ring = pool, ring

    async def get(self, number: str) -> Number | None:
        """One number, whoever has it."""
        row = await self._pool.fetchrow(f"SELECT {_COLUMNS} FROM numbers WHERE phone_number_id = $1", number)  # noqa: S608  (a constant)
        return Number(**row) if row else None

    async def of_project(self, project: str) -> list[Number]:
        """A project's numbers."""
        query = f"SELECT {_COLUMNS} FROM numbers WHERE project_id = $1 AND state <> 'detaching' ORDER BY phone_number_id"  # noqa: S608  (a constant)
        return [Number(**r) for r in await self._pool.fetch(query, project)]

    async def attach(
        self, project: str, number: str, waba: str, token: str, display: str | None, *, move_from: str | None = None
    ) -> Number | None:
        """Notes that the number is the project's; None: another project has it and keeps it.

        If `move_from` had it, its route is retired first. A repeated order renews the token.
        """
        row = await self._pool.fetchrow(
            "INSERT INTO numbers (phone_number_id, project_id, waba_id, display_phone_number, token, state)"  # noqa: S608  (a constant is filled in)
            " VALUES ($1, $2, $3, $4, $5, 'attaching')"
            " ON CONFLICT (phone_number_id) DO UPDATE SET project_id = excluded.project_id, waba_id = excluded.waba_id, token = excluded.token,"
            "  display_phone_number = coalesce(excluded.display_phone_number, numbers.display_phone_number), state = 'attaching', parked_until = NULL,"
            "  retired = numbers.retired AND numbers.project_id = excluded.project_id, published = false"
            " WHERE numbers.state = 'detaching' OR numbers.project_id IN (excluded.project_id, $6)"
            f" RETURNING {_COLUMNS}",
            number,
            project,
            waba,
            display,
            self._ring.seal(token.encode(), _place(project, number)),
            move_from,
        )
        return Number(**row) if row else None

    async def retire(self, number: Number, wait: float) -> None:
        """The old route's tombstone is on the bus; the new one comes after `wait` seconds."""
        await self._pool.execute(
            "UPDATE numbers SET retired = true, attach_at = now() + $3 * interval '1 second' WHERE phone_number_id = $1 AND project_id = $2",
            number.phone_number_id,
            number.project_id,
            wait,
        )

    async def detach(self, project: str, number: str, wait: float) -> bool:
        """Notes that it is nobody's; its row goes once that is published and every gateway knows. False: it is none of this project's."""
        return bool(
            await self._pool.fetchval(
                "UPDATE numbers SET state = 'detaching', published = false, attach_at = now() + $3 * interval '1 second'"
                " WHERE phone_number_id = $1 AND project_id = $2 AND state <> 'detaching' RETURNING true",
                number,
                project,
                wait,
            )
        )

    async def projects(self) -> list[str]:
        """All that have a number, or are about to lose one."""
        return [r["project_id"] for r in await self._pool.fetch("SELECT DISTINCT project_id FROM numbers")]

    async def let_go(self, project: str, wait: float) -> int:
        """Detaches all numbers of a project that leaves, and drops what was kept for it; how many. What comes from now on is nobody's."""
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            rows = await connection.fetch(
                "UPDATE numbers SET state = 'detaching', published = false, attach_at = now() + $2 * interval '1 second'"
                " WHERE project_id = $1 AND state <> 'detaching' RETURNING phone_number_id",
                project,
                wait,
            )
            await connection.execute("DELETE FROM unrouted WHERE number_id = ANY ($1)", [r["phone_number_id"] for r in rows])
        return len(rows)

    async def pending(self) -> list[Number]:
        """Numbers whose state is not on the bus yet and may be by now, or that are gone for good."""
        query = (
            f"SELECT {_COLUMNS} FROM numbers WHERE NOT published AND (state = 'detaching' OR NOT retired OR attach_at <= now())"  # noqa: S608  (a constant)
            " OR state = 'detaching' AND attach_at <= now()"
        )
        return [Number(**r) for r in await self._pool.fetch(query)]

    async def next_due(self) -> float | None:
        """Seconds until a number is due."""
        return await self._pool.fetchval(
            "SELECT extract(epoch FROM min(attach_at) - clock_timestamp())::float FROM numbers WHERE NOT published OR state = 'detaching'"
        )

    async def published(self, number: Number) -> None:
        """Its state is on the bus."""
        await self._pool.execute(
            "UPDATE numbers SET published = true, state = CASE state WHEN 'attaching' THEN 'attached' ELSE state END,"
            " attached_at = CASE state WHEN 'attaching' THEN now() ELSE attached_at END WHERE phone_number_id = $1 AND project_id = $2 AND state = $3",
            number.phone_number_id,
            number.project_id,
            number.state,
        )

    async def forget(self, number: Number) -> None:
        """A detached number's row goes when nobody routes by it any more."""
        await self._pool.execute(
            "DELETE FROM numbers WHERE phone_number_id = $1 AND project_id = $2 AND state = 'detaching' AND published AND attach_at <= now()",
            number.phone_number_id,
            number.project_id,
        )

    async def token(self, project: str, number: str) -> str | None:
        """The number's token, opened for the project that owns it."""
        sealed: bytes | None = await self._pool.fetchval(
            "SELECT token FROM numbers WHERE phone_number_id = $1 AND project_id = $2", number, project
        )
        return None if sealed is None else self._ring.open(sealed, _place(project, number)).decode()

    async def keep(self, event: UUID, update: UpdateUnrouted) -> None:
        """Keeps an update of a number that nobody has."""
        await self._pool.execute(
            "INSERT INTO unrouted (event_id, number_id, waba_id, change, received_at) VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
            event,
            update.number_id,
            update.waba_id,
            update.change,
            update.received_at,
        )

    async def kept(self, number: str, most: int) -> list[Kept]:
        """Kept updates, in order."""
        rows = await self._pool.fetch("SELECT seq, waba_id, change FROM unrouted WHERE number_id = $1 ORDER BY seq LIMIT $2", number, most)
        return [Kept(**r) for r in rows]

    async def replayed(self, number: str, seqs: list[int]) -> None:
        """These are in the inbox now. By name: one with a lower number may have been committed since they were read."""
        await self._pool.execute("DELETE FROM unrouted WHERE number_id = $1 AND seq = ANY ($2)", number, seqs)

    async def attached_with_kept(self) -> list[Number]:
        """Attached numbers with updates that were kept: one came late, or a replay was cut off."""
        columns = ", ".join(f"n.{c}" for c in _COLUMNS.split(", "))
        query = f"SELECT DISTINCT {columns} FROM numbers AS n JOIN unrouted AS u ON u.number_id = n.phone_number_id WHERE n.state = 'attached' AND n.published"  # noqa: S608  (constants)
        return [Number(**r) for r in await self._pool.fetch(query)]


def _place(project: str, number: str) -> str:
    return f"project/{project}/number/{number}"
