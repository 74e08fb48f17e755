"""Bots tried out with a simulated contact."""

from __future__ import annotations

from typing import Any, Final, Protocol
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.directory import Directory
from loquat_common.http import Api
from loquat_common.problems import Problem, invalid, not_found
from loquat_events.elements import clean
from loquat_events.projects import ProjectListed
from loquat_rest import botpreview as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.versions import Versions
from loquat_bot_runner.domain.preview import Act, Asked, CannotPreview, Seen, Where, is_huge
from loquat_bot_runner.domain.replies import checked
from loquat_bot_runner.errors import BotError, ProtocolViolated
from loquat_bot_runner.http.ready import ready
from loquat_bot_runner.http.versions import BELOW

_SHOWN: Final = (
    *("outcome", "replies", "state_before", "state", "ended", "holder", "needs_attention", "noted", "timers"),
    *("touched", "duration_ms", "queries", "error", "trace", "expires_at"),
)


class Previewing(Protocol):
    """Where previews are played."""

    async def step(self, project: ProjectListed, asked: Asked) -> Seen:
        """One step."""
        ...

    async def drop(self, project: str, key: UUID) -> None:
        """No more."""
        ...


class PreviewApi:
    """Nothing of a preview reaches the bus, nor anybody's phone."""

    def __init__(self, previews: Previewing, versions: Versions, pointers: Pointers, store: Store, directory: Directory) -> None:
        self._previews, self._versions, self._pointers = previews, versions, pointers
        self._store, self._directory = store, directory

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.TRY, self.step, below=BELOW)
        api.serve(shapes.DROP, self.drop, below=BELOW)

    async def step(self, _request: web.Request, *, path: OneProject, body: shapes.Preview) -> shapes.Previewed:
        """A message, and what comes of it."""
        with ready(self._directory, path.project_id) as project:
            asked = _asked(body, await self._version(path.project_id, body))
            try:
                seen = await self._previews.step(project, asked)
            except CannotPreview as error:
                raise Problem(429, error.code, "That cannot be tried now", str(error)) from None
        return _shown(asked, seen)

    async def drop(self, _request: web.Request, *, path: shapes.OnePreview) -> None:
        """A clone goes. What a preview has written in the live database stays, and its contact is erased as any other."""
        where, key = _place(path.preview_id)
        if where == "live":
            raise Problem(
                409,
                "live_preview",
                "This preview has no clone",
                "What it did is in the project's own database; DELETE /contacts/{contact_id} erases its contact",
            )
        await self._previews.drop(path.project_id, key)

    async def _version(self, project: str, body: shapes.Preview) -> str:
        if body.draft:
            try:
                return await self._store.draft(project)
            except BotError as error:
                raise Problem(422, "bot_refused", "The draft cannot be tried", error.error) from None
        if body.version is not None:
            if await self._versions.one(project, body.version) is None:
                raise not_found("version")
            return body.version
        current = await self._pointers.current(project)
        if current is None:
            raise Problem(409, "no_version", "There is nothing to try", "Nothing is deployed: name a version, or the draft")
        return current.version


def _place(preview: str) -> tuple[Where, UUID]:
    where, _, key = preview.partition("_")
    return "live" if where == "live" else "clone", UUID(key)


def _asked(body: shapes.Preview, version: str) -> Asked:
    where, key = _place(body.preview_id) if body.preview_id is not None else (body.database or "clone", uuid4())
    contact: dict[str, Any] | None = body.contact.model_dump(exclude_unset=True) if body.contact is not None else None
    for field, given in (("contact", contact), ("message", body.message.content)):
        if is_huge(given):
            raise invalid(f"body.{field}", "it has a whole number of more than 64 bits, which are the limit")
    asked = Asked(where, key, body.preview_id is not None, version, _act(body.message), clean(contact))
    try:
        checked({"contact": asked.noted() or {}})
    except ProtocolViolated:
        raise Problem(
            422, "invalid_request", "The request is not valid", "body.contact: more than 64 KiB, or not as a contact is"
        ) from None
    return asked


def _act(said: shapes.Said) -> Act:
    """As WhatsApp writes it."""
    if said.button is not None or said.row is not None:
        kind, chosen = ("button_reply", said.button) if said.button is not None else ("list_reply", said.row)
        title = clean(said.title or chosen)
        return Act("interactive", title, {"type": kind, kind: {"id": clean(chosen), "title": title}}, said.reply_to)
    if said.location is not None:
        return Act("location", None, clean(said.location.model_dump(exclude_none=True)), said.reply_to)
    text = clean(said.text)
    if said.type is not None:
        return Act(said.type, text, clean(said.content), said.reply_to)
    return Act("text", text, {"body": text}, said.reply_to)


def _shown(asked: Asked, seen: Seen) -> shapes.Previewed:
    return shapes.Previewed.model_validate(
        {
            **{name: getattr(seen, name) for name in _SHOWN},
            "preview_id": asked.name,
            "database": asked.where,
            "version": asked.version,
            "contact_id": str(seen.contact_id) if seen.contact_id is not None else None,
            "conversation_id": str(seen.conversation_id) if seen.conversation_id is not None else None,
            "log": [{"level": level, "line": line} for level, line in seen.log],
        }
    )
