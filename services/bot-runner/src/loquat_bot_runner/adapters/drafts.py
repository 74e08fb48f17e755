"""The draft of a project: files that people edit before they save them as a version."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

from pydantic import BaseModel

from loquat_bot_runner.adapters.versions import etag
from loquat_bot_runner.domain.bundle import LARGEST, MOST_FILES, digest, weight
from loquat_bot_runner.domain.precondition import Seen

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]
    Connection = asyncpg.pool.PoolConnectionProxy[asyncpg.Record]

_WAIT: Final = 10.0  # seconds for a connection, or for another change of the same draft


class DraftFile(BaseModel):
    """A file of a draft, or of the version that stands for one."""

    path: str
    content: str
    etag: str
    author: str
    updated_at: datetime


class Draft(BaseModel):
    """What the editor shows. `begun`: somebody changed something; else it is the version `base`, or nothing at all."""

    base: str | None
    begun: bool
    items: list[DraftFile]

    @property
    def files(self) -> dict[str, str]:
        """Contents by path."""
        return {f.path: f.content for f in self.items}

    @property
    def etag(self) -> str:
        """The version that this would be."""
        return digest(self.files)


class FileChanged(Exception):
    """Somebody else was here: the file, or the draft, is not as the caller knew it. `current` is the file now; None: there is none."""

    def __init__(self, current: DraftFile | None) -> None:
        super().__init__()
        self.current = current


class DraftFull(Exception):
    """The draft would be larger than a bundle may be."""


class Drafts:
    """One change of a draft after the other."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, project: str) -> Draft:
        """The draft; without one, the version that was saved last."""
        async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction(isolation="repeatable_read", readonly=True):
            return await _read(connection, project)

    async def write(self, project: str, path: str, content: str, *, author: str, seen: Seen | None) -> DraftFile:
        """Writes a file. `seen`: what must be there; None: nothing may be.

        Raises:
            FileChanged: it is otherwise.
            DraftFull: too many files, or too large.
        """
        async with self._changing(project) as connection:
            draft = await _begun(connection, project)
            _matches(draft, path, seen)
            files = {**draft.files, path: content}
            if len(files) > MOST_FILES or sum(weight(p, c) for p, c in files.items()) > LARGEST:
                raise DraftFull
            return await _put(connection, project, path, content, author)

    async def remove(self, project: str, path: str, *, seen: Seen) -> None:
        """Removes a file.

        Raises:
            FileChanged: it is not what was seen, or is not there.
        """
        async with self._changing(project) as connection:
            _matches(await _begun(connection, project), path, seen)
            await connection.execute("DELETE FROM draft_files WHERE project_id = $1 AND path = $2", project, path)

    async def replace(self, project: str, files: Mapping[str, str], *, author: str, seen: Seen | None) -> Draft:
        """All files at once. `seen`: what the draft must be; None: nothing that is not saved may be lost.

        Raises:
            FileChanged: it is otherwise.
        """
        async with self._changing(project) as connection:
            draft = await _begun(connection, project)
            loses = draft.begun and draft.etag not in {draft.base, digest(files)}
            if (seen is None and loses) or (seen is not None and not seen.fits(draft.etag)):
                raise FileChanged(None)
            gone = [p for p in draft.files if p not in files]
            await connection.execute("DELETE FROM draft_files WHERE project_id = $1 AND path = ANY ($2)", project, gone)
            for path, content in files.items():
                if draft.files.get(path) != content:
                    await _put(connection, project, path, content, author)
            return await _read(connection, project)

    async def discard(self, project: str) -> None:
        """Back to the version that was saved last."""
        async with self._changing(project) as connection:
            await connection.execute("DELETE FROM drafts WHERE project_id = $1", project)

    async def saved(self, project: str, version: str) -> None:
        """What the draft held is this version now. What was written meanwhile stays a change of it."""
        await self._pool.execute("UPDATE drafts SET base = $2 WHERE project_id = $1", project, version)

    @asynccontextmanager
    async def _changing(self, project: str) -> AsyncGenerator[Connection]:
        async with self._pool.acquire(timeout=_WAIT) as connection, connection.transaction():
            await connection.execute("SELECT pg_advisory_xact_lock(hashtextextended($1, 0))", f"draft {project}", timeout=_WAIT)
            yield connection


def _matches(draft: Draft, path: str, seen: Seen | None) -> None:
    current = next((f for f in draft.items if f.path == path), None)
    fits = current is None if seen is None else seen.fits(current.etag if current is not None else None)
    if not fits:
        raise FileChanged(current)


async def _read(connection: Connection, project: str) -> Draft:
    """A draft without a change gives way to what was saved elsewhere since."""
    begun = await connection.fetchrow("SELECT base FROM drafts WHERE project_id = $1", project)
    draft = None
    if begun is not None:
        rows = await connection.fetch("SELECT * FROM draft_files WHERE project_id = $1 ORDER BY path", project)
        draft = Draft(base=begun["base"], begun=True, items=[DraftFile.model_validate(dict(r)) for r in rows])
        if draft.etag != draft.base:
            return draft
    found = await connection.fetchrow(
        "SELECT version, files, author, created_at FROM versions WHERE project_id = $1 AND listed ORDER BY saved_at DESC, version LIMIT 1",
        project,
    )
    if draft is not None and (found is None or found["version"] == draft.base):
        return draft
    if found is None:
        return Draft(base=None, begun=False, items=[])
    files: dict[str, str] = found["files"]
    items = [
        DraftFile(path=p, content=files[p], etag=etag(files[p]), author=found["author"], updated_at=found["created_at"])
        for p in sorted(files)
    ]
    return Draft(base=found["version"], begun=False, items=items)


async def _begun(connection: Connection, project: str) -> Draft:
    """The draft, begun from the version that was saved last if there was none, or none with a change."""
    draft = await _read(connection, project)
    if not draft.begun:
        await connection.execute("DELETE FROM drafts WHERE project_id = $1", project)
        await connection.execute("INSERT INTO drafts (project_id, base) VALUES ($1, $2)", project, draft.base)
        await connection.executemany(
            "INSERT INTO draft_files (project_id, path, content, etag, author, updated_at) VALUES ($1, $2, $3, $4, $5, $6)",
            [(project, f.path, f.content, f.etag, f.author, f.updated_at) for f in draft.items],
        )
    return draft


async def _put(connection: Connection, project: str, path: str, content: str, author: str) -> DraftFile:
    row: Any = await connection.fetchrow(
        "INSERT INTO draft_files (project_id, path, content, etag, author) VALUES ($1, $2, $3, $4, $5) ON CONFLICT (project_id, path)"
        " DO UPDATE SET content = excluded.content, etag = excluded.etag, author = excluded.author, updated_at = now() RETURNING *",
        project,
        path,
        content,
        etag(content),
        author,
    )
    return DraftFile.model_validate(dict(row))
