"""The inbox's questions: contacts, conversations, messages."""

from __future__ import annotations

from datetime import datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from loquat_common import cursors
from loquat_common.db import DatabaseAway, WrongDatabase
from loquat_common.directory import Directory
from loquat_common.http import Api, Authenticate
from loquat_common.problems import Problem, not_found
from loquat_events.conversations import Address, Holder
from loquat_events.projects import ProjectListed
from pydantic import BaseModel, Field

from loquat_conversation_log.adapters.queries import Queries, Row


class Contact(BaseModel):
    """A person who wrote, or was written to."""

    id: UUID
    name: str | None
    phone_number: str | None
    language: str | None
    attributes: dict[str, Any]
    created_at: datetime
    updated_at: datetime


class OpenConversation(BaseModel):
    """A conversation that goes on, and the number it is on."""

    id: UUID
    number_id: str


class ContactDetail(Contact):
    """With all its addresses."""

    addresses: list[Address]
    open_conversations: list[OpenConversation]
    merged_into: UUID | None


class Conversation(BaseModel):
    """One conversation with a contact."""

    id: UUID
    contact_id: UUID
    contact_name: str | None
    number_id: str
    status: str
    state: str
    holder: str
    holder_id: str | None = None
    held_since: datetime | None = None
    held_until: datetime | None = None
    hold_note: str | None = None
    needs_attention: bool = False
    attention_since: datetime | None = None
    attention_event: UUID | None = None
    attention_run: UUID | None = None
    opened_at: datetime
    closed_at: datetime | None
    last_message_at: datetime | None


class ConversationDetail(Conversation):
    """With all addresses of its contact, the steadiest first."""

    addresses: list[Address]


class Message(BaseModel):
    """One message, with every status it had and when."""

    id: UUID
    conversation_id: UUID
    direction: str
    type: str
    text: str | None
    content: Any
    wamid: str | None
    reply_to: str | None
    sender: str
    sender_id: str | None
    status: str
    transitions: dict[str, datetime | None]
    error_code: int | None
    error_title: str | None
    pricing: str | None
    billable: bool | None
    sent_at: datetime
    recorded_at: datetime


class ContactPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Contact]
    next_cursor: str | None


class ConversationPage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Conversation]
    next_cursor: str | None


class MessagePage(BaseModel):
    """Newest first; `next_cursor` is null on the last page."""

    items: list[Message]
    next_cursor: str | None


class _Project(BaseModel):
    project_id: str


class _OneContact(_Project):
    contact_id: UUID


class _OneConversation(_Project):
    conversation_id: UUID


class _Page(BaseModel):
    cursor: str | None = None
    limit: int = Field(default=50, ge=1, le=200)


class _Conversations(_Page):
    holder: Holder | None = None
    needs_attention: bool | None = None


class RecordApi:
    """The internal API of this service."""

    def __init__(self, queries: Queries, directory: Directory, authenticate: Authenticate) -> None:
        self._queries, self._directory = queries, directory
        self.api = Api("Loquat conversation-log", "1", authenticate=authenticate)
        base = "/internal/projects/{project_id}"
        self.api.route("GET", base + "/contacts", self.contacts, summary="Contacts", scope="conversations:read")
        self.api.route("GET", base + "/contacts/{contact_id}", self.contact, summary="A contact", scope="conversations:read")
        self.api.route("GET", base + "/conversations", self.conversations, summary="Conversations", scope="conversations:read")
        self.api.route(
            "GET", base + "/conversations/{conversation_id}", self.conversation, summary="A conversation", scope="conversations:read"
        )
        self.api.route(
            "GET",
            base + "/conversations/{conversation_id}/messages",
            self.messages,
            summary="Messages of a conversation",
            scope="conversations:read",
        )

    def _project(self, project_id: str) -> ProjectListed:
        project = self._directory.get(project_id)
        if project is None:
            raise not_found("project")
        if project.state != "ready":
            raise Problem(409, "project_not_ready", "The project is not ready", f"It is {project.state}")
        return project

    async def contacts(self, _request: web.Request, *, path: _Project, query: _Page) -> ContactPage:
        """A page of contacts."""
        project = self._project(path.project_id)
        rows = await reading(self._queries.contacts(project, cursors.decode(query.cursor), query.limit + 1))
        return ContactPage(items=[Contact(**r) for r in rows[: query.limit]], next_cursor=_next(rows, query.limit, "created_at"))

    async def contact(self, _request: web.Request, *, path: _OneContact) -> ContactDetail:
        """One contact."""
        row = await reading(self._queries.contact(self._project(path.project_id), path.contact_id))
        if row is None:
            raise not_found("contact")
        if row.pop("erased_at") is not None:
            raise Problem(410, "contact_erased", "The contact was erased", "Nothing of the person is kept")
        return ContactDetail.model_validate(row)

    async def conversation(self, _request: web.Request, *, path: _OneConversation) -> ConversationDetail:
        """One conversation."""
        row = await reading(self._queries.conversation(self._project(path.project_id), path.conversation_id))
        if row is None:
            raise not_found("conversation")
        return ConversationDetail.model_validate(row)

    async def conversations(self, _request: web.Request, *, path: _Project, query: _Conversations) -> ConversationPage:
        """A page of conversations."""
        project = self._project(path.project_id)
        asked = self._queries.conversations(
            project, cursors.decode(query.cursor), query.limit + 1, query.holder, needs_attention=query.needs_attention
        )
        rows = await reading(asked)
        return ConversationPage(
            items=[Conversation.model_validate(r) for r in rows[: query.limit]], next_cursor=_next(rows, query.limit, "opened_at")
        )

    async def messages(self, _request: web.Request, *, path: _OneConversation, query: _Page) -> MessagePage:
        """A page of a conversation's messages."""
        project = self._project(path.project_id)
        if not await reading(self._queries.has_conversation(project, path.conversation_id)):
            raise not_found("conversation")
        rows = await reading(self._queries.messages(project, path.conversation_id, cursors.decode(query.cursor), query.limit + 1))
        return MessagePage(items=[Message.model_validate(r) for r in rows[: query.limit]], next_cursor=_next(rows, query.limit, "sent_at"))


async def reading(question: Any) -> Any:
    """The answer of a project's database.

    Raises:
        Problem: 503 when it does not answer.
    """
    try:
        return await question
    except (DatabaseAway, WrongDatabase):  # the latter until the directory has caught up
        raise Problem(503, "database_away", "The project's database does not answer", "Try again in a moment") from None


def _next(rows: list[Row], limit: int, key: str) -> str | None:
    return cursors.encode(rows[limit - 1][key], rows[limit - 1]["id"]) if len(rows) > limit else None
