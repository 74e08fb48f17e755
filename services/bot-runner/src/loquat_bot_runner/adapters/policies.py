"""Where bots may connect to and where they did, in the service's own schema."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_rest.egress import MOST_DESTINATIONS
from pydantic import BaseModel

from loquat_bot_runner.adapters.egress import Visit
from loquat_bot_runner.adapters.fresh import Fresh
from loquat_bot_runner.domain.destinations import Policy, Refused

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_ASK_LIMIT: Final = 5.0
_EVERY: Final = 5.0  # seconds between two writings of what was seen
_MOST_WAITING: Final = 10_000  # destinations not yet written, of all projects; more are counted as nothing

_SEEN: Final = """
INSERT INTO destinations AS d (project_id, host, port, outcome, connections, sent, received)
SELECT * FROM unnest($1::text[], $2::text[], $3::int[], $4::text[], $5::bigint[], $6::bigint[], $7::bigint[])
ON CONFLICT (project_id, host, port, outcome) DO UPDATE SET
    connections = d.connections + excluded.connections, sent = d.sent + excluded.sent, received = d.received + excluded.received, last_at = now()"""

_FORGOTTEN: Final = """
DELETE FROM destinations AS d WHERE project_id = $1 AND last_at < (
    SELECT last_at FROM destinations WHERE project_id = $1 ORDER BY last_at DESC OFFSET $2 LIMIT 1)"""

Key = tuple[str, str, int, str]


class Allowed(BaseModel):
    """The hosts of a project's policy."""

    hosts: list[str]
    updated_at: datetime


class Seen(BaseModel):
    """Connections to one host with one outcome."""

    host: str
    port: int
    outcome: str
    connections: int
    sent: int
    received: int
    first_at: datetime
    last_at: datetime


class Policies:
    """Of all projects. A change holds at once here, within 5 s in other replicas."""

    def __init__(self, pool: Pool, clock: Callable[[], float] = time.monotonic) -> None:
        self._pool, self._known = pool, Fresh[Policy](clock)
        self._waiting: dict[Key, tuple[int, int, int]] = {}

    async def of(self, project: str) -> Policy:
        """The project's.

        Raises:
            Refused: nobody knows; then nothing is open.
        """
        if (known := self._known.get(project)) is not None:
            return known
        try:
            allowed = await self.allowed(project)
        except Exception as error:
            if not is_gone(error):
                raise
            raise Refused("unavailable", "the platform cannot look up now what this bot may reach; try again") from None
        return self._known.keep(project, Policy(tuple(allowed.hosts)) if allowed is not None else Policy())

    async def allowed(self, project: str) -> Allowed | None:
        """What was set; None: nothing ever."""
        row = await self._pool.fetchrow("SELECT hosts, updated_at FROM egress WHERE project_id = $1", project, timeout=_ASK_LIMIT)
        return Allowed.model_validate(dict(row)) if row is not None else None

    async def set(self, project: str, hosts: Sequence[str], by: str) -> Allowed:
        """These hosts and no others, in the form that `policy_hosts` gives."""
        row = await self._pool.fetchrow(
            "INSERT INTO egress (project_id, hosts, updated_by) VALUES ($1, $2, $3)"
            " ON CONFLICT (project_id) DO UPDATE SET hosts = excluded.hosts, updated_by = excluded.updated_by, updated_at = now()"
            " RETURNING hosts, updated_at",
            project,
            list(hosts),
            by,
        )
        self._known.keep(project, Policy(tuple(hosts)))
        return Allowed.model_validate(dict(row or {}))

    def seen(self, project: str, visit: Visit) -> None:
        """Counts a connection. It is written later, or not at all if the process dies before."""
        key = (project, visit.host[:253], visit.port, visit.outcome)
        if key not in self._waiting and len(self._waiting) >= _MOST_WAITING:
            return
        connections, sent, received = self._waiting.get(key, (0, 0, 0))
        self._waiting[key] = (connections + 1, sent + visit.sent, received + visit.received)

    async def destinations(self, project: str, limit: int) -> list[Seen]:
        """The latest first."""
        query = (
            "SELECT host, port, outcome, connections, sent, received, first_at, last_at FROM destinations"
            " WHERE project_id = $1 ORDER BY last_at DESC, host, outcome LIMIT $2"
        )
        return [Seen.model_validate(dict(r)) for r in await self._pool.fetch(query, project, limit)]

    async def write(self) -> None:
        """Writes what was seen, and drops of each project what is too much."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, {}
        rows = [(*key, *counts) for key, counts in sorted(waiting.items())]  # sorted: replicas lock in one order
        await self._pool.execute(_SEEN, *(list(column) for column in zip(*rows, strict=True)))
        for project in {key[0] for key in waiting}:
            await self._pool.execute(_FORGOTTEN, project, MOST_DESTINATIONS - 1)

    async def run(self) -> None:
        """Writes now and then, for ever."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.write()
            except Exception:  # noqa: BLE001  (a log that cannot be written must not stop bots)
                get_logger().exception("egress.not_written")

    async def forget(self, project: str) -> None:
        """Drops all of a project that is gone."""
        self._known.drop(project)
        await self._pool.execute("DELETE FROM egress WHERE project_id = $1", project)
        await self._pool.execute("DELETE FROM destinations WHERE project_id = $1", project)
