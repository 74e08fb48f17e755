"""Files of the draft, for an editor: whoever writes says what he saw, and nobody's work is overwritten unseen."""

from __future__ import annotations

import asyncio

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_rest import botfiles as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.drafts import Draft, DraftFile, DraftFull, Drafts, FileChanged
from loquat_bot_runner.domain.bundle import LARGEST, MOST_FILES, path_flaw, weight
from loquat_bot_runner.domain.precondition import Seen
from loquat_bot_runner.domain.searching import search
from loquat_bot_runner.http.versions import BELOW


class FilesApi:
    """A draft may hold what is no bot yet: it is checked when it is saved as a version."""

    def __init__(self, drafts: Drafts) -> None:
        self._drafts = drafts

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.LIST, self.list, below=BELOW)
        api.serve(shapes.REPLACE, self.replace, below=BELOW)
        api.serve(shapes.DISCARD, self.discard, below=BELOW)
        api.serve(shapes.READ, self.read, below=BELOW)
        api.serve(shapes.WRITE, self.write, below=BELOW)
        api.serve(shapes.REMOVE, self.remove, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject, query: shapes.FilesQuery) -> shapes.Files:
        """All, perhaps with what is looked for."""
        draft = await self._drafts.read(path.project_id)
        shown = _files(draft)
        if query.contents:
            shown.contents = draft.files
        if query.search is not None:
            found = await asyncio.to_thread(search, draft.files, query.search)
            shown.matches = [shapes.Match(path=m.path, line=m.line, text=m.text) for m in found]
        return shown

    async def replace(self, request: web.Request, *, path: OneProject, body: shapes.ReplaceFiles) -> shapes.Files:
        """All at once."""
        for file in body.files:
            _plain(file)
        if len(body.files) > MOST_FILES or sum(weight(p, c) for p, c in body.files.items()) > LARGEST:
            raise _full()
        seen = _seen(request)
        try:
            return _files(await self._drafts.replace(path.project_id, body.files, author=request[ACTOR].subject, seen=seen))
        except FileChanged:
            draft = await self._drafts.read(path.project_id)
            raise Problem(
                412,
                "draft_changed",
                "The draft is not as you saw it" if seen is not None else "The draft holds changes that are not saved",
                "Read it, and send its etag as If-Match to replace it",
                current=_files(draft).model_dump(mode="json", exclude_none=True),
            ) from None

    async def discard(self, _request: web.Request, *, path: OneProject) -> None:
        """Back to what was saved."""
        await self._drafts.discard(path.project_id)

    async def read(self, _request: web.Request, *, path: shapes.OneFile) -> web.Response:
        """One."""
        draft = await self._drafts.read(path.project_id)
        found = next((f for f in draft.items if f.path == path.file), None)
        if found is None:
            raise not_found("file")
        return _answer(found)

    async def write(self, request: web.Request, *, path: shapes.OneFile, body: shapes.WriteFile) -> web.Response:
        """If-Match names the etag that was seen, or any with *; If-None-Match: * means a new file. Without both, it must be new."""
        _plain(path.file)
        seen = _seen(request)
        try:
            written = await self._drafts.write(path.project_id, path.file, body.content, author=request[ACTOR].subject, seen=seen)
        except DraftFull:
            raise _full() from None
        except FileChanged as changed:
            if seen is None and "If-None-Match" not in request.headers:
                raise _unseen(changed.current) from None
            raise _changed(changed.current, body.content) from None
        return _answer(written)

    async def remove(self, request: web.Request, *, path: shapes.OneFile) -> None:
        """One."""
        seen = _seen(request)
        if seen is None or seen.etags == frozenset():
            raise _unseen(None)
        try:
            await self._drafts.remove(path.project_id, path.file, seen=seen)
        except FileChanged as changed:
            if changed.current is None:
                raise not_found("file") from None
            raise _changed(changed.current, None) from None


def _seen(request: web.Request) -> Seen | None:
    """A field that comes in several lines is one list."""
    given = request.headers.getall("If-Match", [])
    return Seen.read(", ".join(given) if given else None)


def _plain(path: str) -> None:
    if (flaw := path_flaw(path)) is not None:
        raise Problem(422, "bad_path", "That is no path of a bot's file", flaw.message, file=flaw.file, advice=flaw.advice)


def _full() -> Problem:
    return Problem(422, "draft_full", "The draft would be too large", f"{MOST_FILES} files and {LARGEST} bytes are the limits")


def _unseen(current: DraftFile | None) -> Problem:
    more = {"current": _content(current).model_dump(mode="json")} if current is not None else {}
    return Problem(428, "etag_needed", "Which content did you see?", "Send the file's etag as If-Match", **more)


def _changed(current: DraftFile | None, given: str | None) -> Problem:
    """With both sides, so that an editor can show them beside each other."""
    shown = _content(current).model_dump(mode="json") if current is not None else None
    detail = f"{current.author} changed it at {current.updated_at:%Y-%m-%d %H:%M:%S} UTC" if current is not None else "It was removed"
    return Problem(412, "file_changed", "The file is not as you saw it", detail, current=shown, given={"content": given})


def _answer(file: DraftFile) -> web.Response:
    body = _content(file).model_dump_json()
    return web.Response(text=body, content_type="application/json", headers={"ETag": f'"{file.etag}"'})


def _content(file: DraftFile) -> shapes.FileContent:
    return shapes.FileContent(content=file.content, **_entry(file).model_dump())


def _entry(file: DraftFile) -> shapes.FileEntry:
    size = len(file.content.encode())
    return shapes.FileEntry(path=file.path, etag=file.etag, bytes=size, author=file.author, updated_at=file.updated_at)


def _files(draft: Draft) -> shapes.Files:
    etag = draft.etag
    return shapes.Files(
        etag=etag, base=draft.base, changed=bool(draft.items) and etag != draft.base, items=[_entry(f) for f in draft.items]
    )
