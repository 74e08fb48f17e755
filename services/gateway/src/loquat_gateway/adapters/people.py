"""Organizations, users, API keys, requested projects, the audit log."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Final

from argon2 import PasswordHasher

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

KEY_PREFIX: Final = "lq_"


@dataclass(frozen=True, slots=True)
class KeyHolder:
    """Who a key speaks for."""

    key_id: str
    organization: str
    scopes: frozenset[str]


@dataclass(frozen=True, slots=True)
class Owner:
    """The first owner, with what is kept of it only as digests."""

    email: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)

    @classmethod
    def fresh(cls, email: str) -> Owner:
        """With a password and a key that nobody can guess."""
        return cls(email, secrets.token_urlsafe(18), KEY_PREFIX + secrets.token_urlsafe(32))


@dataclass(frozen=True, slots=True)
class Requested:
    """A project that was ordered, and when the directory first spoke of it: from then on the directory alone says what it is."""

    project_id: str
    organization: str
    name: str
    at: datetime
    listed_at: datetime | None


class People:
    """Queries of this service's own schema."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def holder(self, key: str) -> KeyHolder | None:
        """Who holds this key; None if nobody does."""
        if not key.startswith(KEY_PREFIX):
            return None
        row = await self._pool.fetchrow(
            "SELECT id, organization_id, scopes FROM api_keys WHERE digest = $1 AND revoked_at IS NULL",
            hashlib.sha256(key.encode()).digest(),
            timeout=5,
        )
        return KeyHolder(str(row["id"]), row["organization_id"], frozenset(row["scopes"])) if row else None

    async def create_owner(self, owner: Owner, scopes: Sequence[str]) -> bool:
        """The first organization with this owner and a key for everything. Asked again with the same key, it is there; False: another one is."""
        hashed = await asyncio.to_thread(PasswordHasher().hash, owner.password)
        digest = hashlib.sha256(owner.api_key.encode()).digest()
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
            if await connection.fetchval("SELECT true FROM users WHERE role = 'owner' LIMIT 1"):
                return bool(await connection.fetchval("SELECT true FROM api_keys WHERE digest = $1", digest))
            organization = f"org_{secrets.token_hex(8)}"
            await connection.execute("INSERT INTO organizations (id, name) VALUES ($1, $2)", organization, "My organization")
            user = await connection.fetchval(
                "INSERT INTO users (organization_id, email, password_hash, role) VALUES ($1, $2, $3, 'owner') RETURNING id",
                organization,
                owner.email,
                hashed,
            )
            await connection.execute(
                "INSERT INTO api_keys (organization_id, user_id, name, digest, scopes) VALUES ($1, $2, 'first key', $3, $4)",
                organization,
                user,
                digest,
                list(scopes),
            )
        return True

    async def request_project(self, project: str, organization: str, name: str) -> Requested:
        """Notes an order; a repeated one changes nothing and shows the first."""
        await self._pool.execute(
            "INSERT INTO project_requests (project_id, organization_id, name) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
            project,
            organization,
            name,
            timeout=5,
        )
        row = await self._pool.fetchrow("SELECT * FROM project_requests WHERE project_id = $1", project, timeout=5)
        if row is None:
            raise LookupError(project)
        return _requested(row)

    async def requested(self, project: str) -> Requested | None:
        """An order by its project."""
        row = await self._pool.fetchrow("SELECT * FROM project_requests WHERE project_id = $1", project, timeout=5)
        return _requested(row) if row else None

    async def listed(self, projects: Sequence[str]) -> None:
        """The directory speaks of these. Harmless when repeated."""
        await self._pool.execute(
            "UPDATE project_requests SET listed_at = now() WHERE project_id = ANY ($1) AND listed_at IS NULL", projects, timeout=10
        )

    async def audit(self, organization: str, actor: str, action: str, project: str | None) -> None:
        """Who did what."""
        await self._pool.execute(
            "INSERT INTO audit_log (organization_id, actor, action, project_id) VALUES ($1, $2, $3, $4)",
            organization,
            actor,
            action,
            project,
            timeout=5,
        )


def _requested(row: asyncpg.Record) -> Requested:
    return Requested(row["project_id"], row["organization_id"], row["name"], row["requested_at"], row["listed_at"])
