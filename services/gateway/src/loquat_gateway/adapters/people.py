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
    """What is shown once, when the first owner is made."""

    email: str
    password: str = field(repr=False)
    api_key: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Requested:
    """A project that was ordered."""

    project_id: str
    organization: str
    name: str
    at: datetime


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

    async def create_owner(self, email: str, scopes: Sequence[str]) -> Owner | None:
        """The first organization with its owner and a key for everything; None if there is an owner already."""
        password, key = secrets.token_urlsafe(18), KEY_PREFIX + secrets.token_urlsafe(32)
        hashed = await asyncio.to_thread(PasswordHasher().hash, password)
        async with self._pool.acquire(timeout=10) as connection, connection.transaction():
            await connection.execute("LOCK TABLE users IN SHARE ROW EXCLUSIVE MODE")
            if await connection.fetchval("SELECT true FROM users WHERE role = 'owner' LIMIT 1"):
                return None
            organization = f"org_{secrets.token_hex(8)}"
            await connection.execute("INSERT INTO organizations (id, name) VALUES ($1, $2)", organization, "My organization")
            user = await connection.fetchval(
                "INSERT INTO users (organization_id, email, password_hash, role) VALUES ($1, $2, $3, 'owner') RETURNING id",
                organization,
                email,
                hashed,
            )
            await connection.execute(
                "INSERT INTO api_keys (organization_id, user_id, name, digest, scopes) VALUES ($1, $2, 'first key', $3, $4)",
                organization,
                user,
                hashlib.sha256(key.encode()).digest(),
                list(scopes),
            )
        return Owner(email, password, key)

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
        return Requested(row["project_id"], row["organization_id"], row["name"], row["requested_at"])

    async def requested(self, project: str) -> Requested | None:
        """An order by its project."""
        row = await self._pool.fetchrow("SELECT * FROM project_requests WHERE project_id = $1", project, timeout=5)
        return Requested(row["project_id"], row["organization_id"], row["name"], row["requested_at"]) if row else None

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
