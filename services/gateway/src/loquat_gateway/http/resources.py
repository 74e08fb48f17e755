"""A project's numbers, bot, conversations and ledger: asked of the services that own them, in the caller's name."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Final
from uuid import UUID

from aiohttp import web
from loquat_common.client import InternalClient
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_events.catalog import Service
from loquat_events.conversations import Holder
from pydantic import BaseModel, Field, StringConstraints

from loquat_gateway.adapters.people import People
from loquat_gateway.adapters.routing import Routing
from loquat_gateway.http import views
from loquat_gateway.http.access import Access
from loquat_gateway.http.views import OneProject, Page

Clients = Mapping[Service, InternalClient]
Identifier = Annotated[str, StringConstraints(pattern=r"^[0-9A-Za-z_-]{1,80}$")]
_ROUTED_WITHIN: Final = 3.0  # seconds; some ten milliseconds are usual
_SEARCHED: Final = 50  # projects of an organization that are searched for a conversation given without its project


class NewNumber(BaseModel):
    """A number to connect, with the token of its WhatsApp business account. `move_from` names the project that has it now."""

    phone_number_id: Identifier
    waba_id: Identifier
    token: Annotated[str, StringConstraints(min_length=1, max_length=2000)] = Field(repr=False)
    display_phone_number: Annotated[str, StringConstraints(max_length=40)] | None = None
    move_from: Annotated[str, StringConstraints(max_length=80)] | None = None


class OneNumber(OneProject):
    """A number in the path."""

    phone_number_id: Identifier


class OneContact(OneProject):
    """A contact in the path."""

    contact_id: UUID


class OneConversation(OneProject):
    """A conversation in the path."""

    conversation_id: UUID


class JustConversation(BaseModel):
    """A conversation without its project."""

    conversation_id: UUID


class ConversationsPage(Page):
    """Those of one holder alone, or those that need attention, or do not."""

    holder: Holder | None = None
    needs_attention: bool | None = None


class MessagesPage(Page):
    """With the project, where it is known: it saves a search."""

    project_id: str | None = Field(default=None, max_length=80)


class Resources:
    """The resources below a project."""

    def __init__(self, access: Access, people: People, routing: Routing, clients: Clients) -> None:
        self._access, self._people, self._routing, self._clients = access, people, routing, clients

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        p = "/v1/projects/{project_id}"
        api.route("POST", p + "/numbers", self.connect, summary="Connect a number", status=201, scope="numbers:write", errors=(404, 409))
        api.route("GET", p + "/numbers", self.numbers, summary="List numbers", scope="numbers:read", errors=(404,))
        api.route(
            "DELETE", p + "/numbers/{phone_number_id}", self.disconnect, summary="Remove a number", scope="numbers:write", errors=(404,)
        )
        api.route("GET", p + "/contacts", self.contacts, summary="List contacts", scope="conversations:read", errors=(404, 409))
        api.route(
            "GET",
            p + "/contacts/{contact_id}",
            self.contact,
            summary="A contact; 410 when it was erased",
            scope="conversations:read",
            errors=(404, 409, 410),
        )
        api.route(
            "GET", p + "/conversations", self.conversations, summary="List conversations", scope="conversations:read", errors=(404, 409)
        )
        api.route(
            "GET",
            p + "/conversations/{conversation_id}",
            self.conversation,
            summary="A conversation",
            scope="conversations:read",
            errors=(404, 409),
        )
        api.route(
            "GET",
            p + "/conversations/{conversation_id}/messages",
            self.messages,
            summary="Messages",
            scope="conversations:read",
            errors=(404, 409),
        )
        api.route(
            "GET",
            "/v1/conversations/{conversation_id}/messages",
            self.found,
            summary="Messages of a conversation",
            scope="conversations:read",
            errors=(404,),
        )
        api.route("GET", p + "/ledger", self.ledger, summary="Where every accepted event is (P7)", scope="projects:read", errors=(404, 409))

    async def _ask(
        self,
        request: web.Request,
        service: Service,
        method: str,
        project: str,
        tail: str,
        *,
        ready: bool = False,
        query: BaseModel | None = None,
        json: object = None,
    ) -> Any:
        actor = await self._access.project(request, project, ready=ready)
        asked = {k: str(v) for k, v in query.model_dump(exclude_none=True).items()} if query is not None else None
        return await self._clients[service].call(
            method, f"/internal/projects/{project}{tail}", actor=actor, query=asked, json=json, timeout=30
        )

    async def _audit(self, request: web.Request, action: str, project: str) -> None:
        actor = request[ACTOR]
        await self._people.audit(actor.organization or "", actor.subject, action, project)

    async def connect(self, request: web.Request, *, path: OneProject, body: NewNumber) -> views.Number:
        """Attaches a number; moves it if `move_from` says so."""
        if body.move_from is not None:
            await self._access.project(request, body.move_from)
        made = await self._ask(
            request, "connector", "POST", path.project_id, "/numbers", ready=True, json=body.model_dump(exclude_none=True)
        )
        await self._audit(request, "number.connect", path.project_id)
        number = views.Number.model_validate(made)
        # Whoever gets this answer may expect the next message to arrive: a first one that is unrouted would be replayed behind the second.
        if body.move_from is None and await self._routing.routed(body.phone_number_id, path.project_id, _ROUTED_WITHIN):
            return number.model_copy(update={"state": "attached"})
        return number

    async def numbers(self, request: web.Request, *, path: OneProject) -> views.NumberList:
        """A project's numbers."""
        return views.NumberList.model_validate(await self._ask(request, "connector", "GET", path.project_id, "/numbers"))

    async def disconnect(self, request: web.Request, *, path: OneNumber) -> None:
        """Detaches a number; its updates are kept until somebody attaches it."""
        await self._ask(request, "connector", "DELETE", path.project_id, f"/numbers/{path.phone_number_id}")
        await self._audit(request, "number.disconnect", path.project_id)

    async def contacts(self, request: web.Request, *, path: OneProject, query: Page) -> views.ContactPage:
        """A page of contacts."""
        return views.ContactPage.model_validate(
            await self._ask(request, "conversation-log", "GET", path.project_id, "/contacts", ready=True, query=query)
        )

    async def contact(self, request: web.Request, *, path: OneContact) -> views.ContactDetail:
        """One contact."""
        answer = await self._ask(request, "conversation-log", "GET", path.project_id, f"/contacts/{path.contact_id}", ready=True)
        return views.ContactDetail.model_validate(answer)

    async def conversation(self, request: web.Request, *, path: OneConversation) -> views.ConversationDetail:
        """One conversation."""
        tail = f"/conversations/{path.conversation_id}"
        return views.ConversationDetail.model_validate(
            await self._ask(request, "conversation-log", "GET", path.project_id, tail, ready=True)
        )

    async def conversations(self, request: web.Request, *, path: OneProject, query: ConversationsPage) -> views.ConversationPage:
        """A page of conversations."""
        answer = await self._ask(request, "conversation-log", "GET", path.project_id, "/conversations", ready=True, query=query)
        return views.ConversationPage.model_validate(answer)

    async def messages(self, request: web.Request, *, path: OneConversation, query: Page) -> views.MessagePage:
        """A page of messages."""
        tail = f"/conversations/{path.conversation_id}/messages"
        return views.MessagePage.model_validate(
            await self._ask(request, "conversation-log", "GET", path.project_id, tail, ready=True, query=query)
        )

    async def found(self, request: web.Request, *, path: JustConversation, query: MessagesPage) -> views.MessagePage:
        """The same, without the project: it is looked for in the organization's."""
        page = Page(cursor=query.cursor, limit=query.limit)
        if query.project_id is not None:
            return await self.messages(
                request, path=OneConversation(project_id=query.project_id, conversation_id=path.conversation_id), query=page
            )
        projects = self._access.projects(request[ACTOR])
        if len(projects) > _SEARCHED:
            raise Problem(
                422, "invalid_request", "The request is not valid", f"query.project_id is needed: there are more than {_SEARCHED} projects"
            )
        paths = [OneConversation(project_id=p, conversation_id=path.conversation_id) for p in projects]
        answers = await asyncio.gather(*(self._perhaps(request, one, page) for one in paths))
        if (found := next((a for a in answers if isinstance(a, views.MessagePage)), None)) is not None:
            return found
        if (away := next((a for a in answers if isinstance(a, Problem)), None)) is not None:
            raise away  # it may be there
        raise not_found("conversation")

    async def _perhaps(self, request: web.Request, path: OneConversation, page: Page) -> views.MessagePage | Problem | None:
        """Its messages; None: the project does not have it, or is on its way out; a problem: who should know does not answer now."""
        try:
            return await self.messages(request, path=path, query=page)
        except Problem as problem:
            if problem.status in {web.HTTPNotFound.status_code, web.HTTPConflict.status_code}:
                return None
            if problem.status < web.HTTPInternalServerError.status_code:
                raise
            return problem

    async def ledger(self, request: web.Request, *, path: OneProject) -> views.Ledger:
        """Where every accepted event is."""
        return views.Ledger.model_validate(await self._ask(request, "bot-runner", "GET", path.project_id, "/ledger", ready=True))
