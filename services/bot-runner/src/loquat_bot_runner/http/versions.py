"""Versions: saved, listed, shown, compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Literal

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_common.problems import not_found
from loquat_rest import bots as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.pointers import Deployment, Pointers
from loquat_bot_runner.adapters.versions import Version, Versions
from loquat_bot_runner.http.shelf import Shelf

BELOW = "/internal/projects/{project_id}"


class VersionsApi:
    """What was saved, and whom it answers."""

    def __init__(self, versions: Versions, pointers: Pointers, shelf: Shelf) -> None:
        self._versions, self._pointers, self._shelf = versions, pointers, shelf

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.SAVE, self.save, below=BELOW)
        api.serve(shapes.VERSIONS, self.list, below=BELOW)
        api.serve(shapes.ONE_VERSION, self.one, below=BELOW)
        api.serve(shapes.DIFF, self.diff, below=BELOW)

    async def save(self, request: web.Request, *, path: OneProject, body: shapes.SaveVersion) -> shapes.SavedVersion:
        """Without deploying."""
        project, author = path.project_id, request[ACTOR].subject
        if body.files is None:
            version, created = await self._shelf.save_draft(project, author=author, message=body.message)
        else:
            if body.parent is not None and await self._versions.one(project, body.parent) is None:
                raise not_found("version to be the parent")
            version, created = await self._shelf.save(project, body.files, author=author, message=body.message, parent=body.parent)
        return shapes.SavedVersion(created=created, **(await self._shown(project, version)).model_dump())

    async def list(self, _request: web.Request, *, path: OneProject, query: shapes.VersionsQuery) -> shapes.VersionPage:
        """Newest first."""
        found = await self._versions.page(path.project_id, query.cursor, query.limit + 1)
        current = await self._pointers.current(path.project_id)
        items = [_version(v, current) for v in found[: query.limit]]
        return shapes.VersionPage(items=items, next_cursor=items[-1].version if len(found) > query.limit else None)

    async def one(self, _request: web.Request, *, path: shapes.OneVersion) -> shapes.VersionDetail:
        """With its files."""
        shown = await self._shown(path.project_id, path.version)
        return shapes.VersionDetail(files=await self._files(path.project_id, path.version), **shown.model_dump())

    async def diff(self, _request: web.Request, *, path: shapes.OneVersion, query: shapes.DiffQuery) -> shapes.Diff:
        """Against another version, its parent unless one is named."""
        shown = await self._shown(path.project_id, path.version)
        against = query.against or shown.parent
        if query.against is None and against is not None and await self._versions.one(path.project_id, against) is None:
            raise not_found("parent of it any more: only the last ones are kept; name another version in `against`")
        old: Mapping[str, str] = await self._files(path.project_id, against) if against is not None else {}
        new = await self._files(path.project_id, path.version)
        changes = await self._shelf.difference(old, new)
        return shapes.Diff(version=path.version, against=against, items=[shapes.FileChange(**asdict(c)) for c in changes])

    async def _shown(self, project: str, version: str) -> shapes.Version:
        found = await self._versions.one(project, version)
        if found is None:
            raise not_found("version")
        return _version(found, await self._pointers.current(project))

    async def _files(self, project: str, version: str) -> dict[str, str]:
        files = await self._versions.files(project, version)
        if files is None:
            raise not_found("version")
        return files


def _version(row: Version, current: Deployment | None) -> shapes.Version:
    states = row.declared["states"] if row.declared is not None else None
    return shapes.Version(deployed=_deployed(row.version, current), states=states, **row.model_dump(exclude={"declared"}))


def _deployed(version: str, current: Deployment | None) -> Literal["all", "canary"] | None:
    if current is None:
        return None
    if current.version == version:
        return "all"
    return "canary" if current.canary is not None and current.canary.version == version else None
