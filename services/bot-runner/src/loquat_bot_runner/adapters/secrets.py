"""Secrets of bots: sealed in the control database, open in the memory of a runner whose bot uses them."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final
from uuid import UUID

from loquat_common.crypto import KeyRing, SealBroken
from loquat_common.logs import get_logger
from loquat_rest.botsettings import ALL_SECRETS, MOST_SECRETS
from pydantic import BaseModel

from loquat_bot_runner.domain.redaction import Redactor
from loquat_bot_runner.errors import ProjectDatabaseAway

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_KEPT: Final = 20_000
"""Projects whose secrets are kept open: more than there may be workers, so that a bot's words are known to be secret as long as it runs."""
_SEAL: Final = 128
"""Bytes that sealing adds at most, with an id of the key of up to 24 bytes."""
_NONE: Final[Mapping[str, str]] = {}
_NO_EPOCH: Final = 0


class Secret(BaseModel):
    """A secret without its value."""

    name: str
    created_at: datetime
    updated_at: datetime


class TooMany(Exception):
    """The project's secrets are too many, or too large together."""


@dataclass(frozen=True, slots=True)
class _Open:
    """The secrets at a mark, and what blots them out."""

    at: tuple[int, UUID | None]
    values: Mapping[str, str] = field(repr=False)
    redact: Redactor = field(repr=False)


class Secrets:
    """Of all projects."""

    def __init__(self, pool: Pool, ring: KeyRing) -> None:
        self._pool, self._ring = pool, ring
        self._open: OrderedDict[str, _Open] = OrderedDict()

    async def list(self, project: str) -> list[Secret]:
        """By name, without values."""
        rows = await self._pool.fetch("SELECT name, created_at, updated_at FROM secrets WHERE project_id = $1 ORDER BY name", project)
        return [Secret.model_validate(dict(r)) for r in rows]

    async def set(self, project: str, name: str, value: str) -> Secret:
        """Keeps a value. Bots learn of it once the project's mark is another one.

        Raises:
            TooMany: of them, or of their bytes.
        """
        sealed = self._ring.seal(value.encode(), _place(project, name))
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended('secrets of ' || $1, 0))", project)
            row = await connection.fetchrow(
                "INSERT INTO secrets (project_id, name, sealed) VALUES ($1, $2, $3)"
                " ON CONFLICT (project_id, name) DO UPDATE SET sealed = excluded.sealed, updated_at = now() RETURNING name, created_at, updated_at",
                project,
                name,
                sealed,
            )
            count, size = await connection.fetchrow(
                "SELECT count(*), sum(octet_length(sealed))::bigint FROM secrets WHERE project_id = $1", project
            ) or (0, 0)
            if count > MOST_SECRETS or size - count * _SEAL > ALL_SECRETS:
                raise TooMany
        return Secret.model_validate(dict(row or {}))

    async def delete(self, project: str, name: str) -> bool:
        """Whether it was there."""
        query = "DELETE FROM secrets WHERE project_id = $1 AND name = $2 RETURNING true"
        return bool(await self._pool.fetchval(query, project, name))

    async def of(self, project: str, epoch: int, mark: UUID | None) -> Mapping[str, str]:
        """The values at a mark of the project's database.

        It is another one whenever they have changed; a database that was restored has an older one, of another epoch.

        Raises:
            ProjectDatabaseAway: one of them does not open: the platform's fault.
        """
        known = self._open.get(project)
        if known is None or known.at != (epoch, mark):
            values = await self._opened(project)
            before = known.values if known is not None else _NONE
            known = self._open[project] = _Open((epoch, mark), values, Redactor(values, before))
            self._bound()
        self._open.move_to_end(project)
        return known.values

    async def now(self, project: str) -> Mapping[str, str]:
        """The values as they are, at whatever mark: a copy of the database does not hear of changes.

        Raises:
            ProjectDatabaseAway: as above.
        """
        values, known = await self._opened(project), self._open.get(project)
        if known is None or known.values != values:  # the mark of no database, so that whoever asks for one reads again
            before = known.values if known is not None else _NONE
            self._open[project] = _Open((_NO_EPOCH, None), values, Redactor(values, before))
            self._bound()
        return values

    def redacted(self, project: str, text: str) -> str:
        """Words of a project's bot without its secrets."""
        known = self._open.get(project)
        return text if known is None else known.redact(text)

    def _bound(self) -> None:
        while len(self._open) > _KEPT:
            self._open.popitem(last=False)

    async def _opened(self, project: str) -> dict[str, str]:
        rows = await self._pool.fetch("SELECT name, sealed FROM secrets WHERE project_id = $1", project)
        try:
            return {r["name"]: self._ring.open(r["sealed"], _place(project, r["name"])).decode() for r in rows}
        except SealBroken:
            get_logger().error("secrets.do_not_open", project=project)
            raise ProjectDatabaseAway("the project's secrets do not open") from None


def _place(project: str, name: str) -> str:
    return f"project/{project}/secret/{name}"
