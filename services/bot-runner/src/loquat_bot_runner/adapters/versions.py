"""Versions and the draft in the control database."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import asdict
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from loquat_bot_runner.adapters.pointers import lock
from loquat_bot_runner.domain.bundle import weight
from loquat_bot_runner.domain.gate import Loaded
from loquat_bot_runner.domain.tools import Tool

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

_COLUMNS: Final = "version, parent, author, message, created_at, saved_at, file_count, bytes, declared - 'tools' AS declared"
"""Without tools: half a megabyte of them may stand in a row, and no list shows any."""


MOST: Final = 500
"""Versions of a project that are kept though nothing refers to them, those that were saved last."""
MOST_UNSAVED: Final = 100
"""Contents of a draft that test contacts met and nobody saved."""
_WAIT: Final = 10.0  # seconds for a connection
_MANY: Final = "SELECT EXISTS (SELECT FROM versions WHERE project_id = $1 AND listed ORDER BY created_at DESC, version DESC OFFSET $2)"
# A deployment that is kept, the canaries of all of these, test contacts of now, and what the draft began with refer to versions.
_FORGET: Final = """
WITH used AS (
  SELECT d.version FROM deployments AS d WHERE d.project_id = $1
  UNION SELECT d.canary->>'version' FROM deployments AS d WHERE d.project_id = $1 AND d.canary IS NOT NULL
  UNION SELECT t.value FROM (SELECT testers FROM deployments WHERE project_id = $1 ORDER BY id DESC LIMIT 1) AS now, jsonb_each_text(now.testers) AS t
  UNION SELECT base FROM drafts WHERE project_id = $1 AND base IS NOT NULL
), beyond AS (
  SELECT v.version FROM versions AS v WHERE v.project_id = $1 AND v.listed AND NOT EXISTS (SELECT FROM used AS u WHERE u.version = v.version)
  ORDER BY v.saved_at DESC, v.version OFFSET $2
)
DELETE FROM versions AS v USING beyond AS b WHERE v.project_id = $1 AND v.version = b.version AND v.listed"""
_FORGET_UNSAVED: Final = """
DELETE FROM versions WHERE project_id = $1 AND NOT listed AND version IN (
  SELECT v.version FROM versions AS v WHERE v.project_id = $1 AND NOT v.listed ORDER BY v.saved_at DESC, v.version OFFSET $2)"""


class Version(BaseModel):
    """A saved version without its files. `declared` is None until it was loaded once, and has no tools."""

    version: str
    parent: str | None
    author: str
    message: str
    created_at: datetime
    saved_at: datetime
    file_count: int | None
    bytes: int | None
    declared: dict[str, Any] | None


class Versions:
    """Immutable, by content."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def save(self, project: str, version: str, files: Mapping[str, str], *, author: str, message: str, parent: str | None) -> bool:
        """Keeps a version; False: it was there, and stays as it was. Content that only a draft had becomes the author's.

        Of those to which nothing refers the oldest go beyond `MOST`.
        """
        created = await self._pool.fetchval(
            "INSERT INTO versions AS v (project_id, version, files, author, message, parent, file_count, bytes)"
            " VALUES ($1, $2, $3, $4, $5, nullif(coalesce($6, (SELECT p.version FROM versions AS p WHERE p.project_id = $1 AND p.listed"
            "   ORDER BY p.saved_at DESC, p.version LIMIT 1)), $2), $7, $8)"
            " ON CONFLICT (project_id, version) DO UPDATE SET saved_at = now(), listed = true,"
            "   author = CASE WHEN v.listed THEN v.author ELSE excluded.author END,"
            "   message = CASE WHEN v.listed THEN v.message ELSE excluded.message END,"
            "   parent = CASE WHEN v.listed THEN v.parent ELSE excluded.parent END,"
            "   created_at = CASE WHEN v.listed THEN v.created_at ELSE now() END"
            " RETURNING created_at = now()",
            project,
            version,
            dict(files),
            author,
            message,
            parent,
            len(files),
            sum(weight(path, content) for path, content in files.items()),
        )
        if created and await self._pool.fetchval(_MANY, project, MOST):
            async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction():
                await lock(connection, project)
                await connection.execute(_FORGET, project, MOST)
        return created

    async def keep(self, project: str, version: str, files: Mapping[str, str]) -> None:
        """Keeps what a draft holds for a test contact, until it is saved or swept."""
        await self._pool.execute(
            "INSERT INTO versions (project_id, version, files, author, message, listed) VALUES ($1, $2, $3, '', '', false)"
            " ON CONFLICT (project_id, version) DO UPDATE SET saved_at = now() WHERE NOT versions.listed",
            project,
            version,
            dict(files),
        )
        await self._pool.execute(_FORGET_UNSAVED, project, MOST_UNSAVED)

    async def is_kept(self, project: str, version: str) -> bool:
        """Whether it is there, and no sweep takes it within the day."""
        query = "SELECT listed OR saved_at > now() - interval '1 day' FROM versions WHERE project_id = $1 AND version = $2"
        return bool(await self._pool.fetchval(query, project, version))

    async def one(self, project: str, version: str) -> Version | None:
        """A version by its name."""
        query = f"SELECT {_COLUMNS} FROM versions WHERE project_id = $1 AND version = $2 AND listed"  # noqa: S608
        row = await self._pool.fetchrow(query, project, version)
        return Version.model_validate(dict(row)) if row is not None else None

    async def page(self, project: str, below: str | None, limit: int) -> list[Version]:
        """Newest first, below another version."""
        query = (
            f"SELECT {_COLUMNS} FROM versions WHERE project_id = $1 AND listed AND ($2::text IS NULL OR (created_at, version)"  # noqa: S608
            " < (SELECT b.created_at, b.version FROM versions AS b WHERE b.project_id = $1 AND b.version = $2))"
            " ORDER BY created_at DESC, version DESC LIMIT $3"
        )
        return [Version.model_validate(dict(r)) for r in await self._pool.fetch(query, project, below, limit)]

    async def files(self, project: str, version: str) -> dict[str, str] | None:
        """The files of a version."""
        return await self._pool.fetchval("SELECT files FROM versions WHERE project_id = $1 AND version = $2", project, version)

    async def newest(self, project: str) -> str | None:
        """What was saved last."""
        query = "SELECT version FROM versions WHERE project_id = $1 AND listed ORDER BY saved_at DESC, version LIMIT 1"
        return await self._pool.fetchval(query, project)

    async def note_declared(self, project: str, version: str, loaded: Loaded) -> None:
        """What it said of itself when it was loaded."""
        declared = {
            "states": list(loaded.states),
            "needs": {t: list(c) for t, c in loaded.needs.items()},
            "settings": [asdict(s) for s in loaded.settings.values()],
            "schedules": [
                {"name": s.name, "schedule": s.plan.expression, "tz": s.plan.tz, "catch_up": s.plan.catch_up, "handler": s.handler}
                for s in loaded.schedules
            ],
            "tools": [asdict(t) for t in loaded.tools],
        }
        await self._pool.execute("UPDATE versions SET declared = $3 WHERE project_id = $1 AND version = $2", project, version, declared)

    async def tools(self, project: str, version: str) -> list[Tool] | None:
        """The tools that a version declares, saved or a draft's; None until it was loaded once."""
        query = "SELECT declared->'tools' FROM versions WHERE project_id = $1 AND version = $2"
        found = await self._pool.fetchval(query, project, version)
        return [Tool(**tool) for tool in found] if found is not None else None

    async def sweep(self, days: int) -> int:
        """Forgets contents of drafts that nobody saved or met for so many days; how many."""
        done: str = await self._pool.execute(
            "DELETE FROM versions WHERE (project_id, version) IN (SELECT v.project_id, v.version FROM versions AS v WHERE NOT v.listed"
            " AND v.saved_at < now() - make_interval(days => $1) LIMIT 1000)",
            days,
        )
        return int(done.rpartition(" ")[2])


def etag(content: str) -> str:
    """sha-256 of a file, in hex."""
    return hashlib.sha256(content.encode()).hexdigest()
