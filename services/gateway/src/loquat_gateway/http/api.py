"""The public API, put together; and its document."""

from __future__ import annotations

from typing import Any, Final

from aiohttp import web
from loquat_common.http import ACTOR, Api
from loquat_common.openapi import document
from pydantic import BaseModel

from loquat_gateway.domain.webhook import BODY_LIMIT
from loquat_gateway.http.access import Access
from loquat_gateway.http.contacts import Contacts
from loquat_gateway.http.deadletters import DeadLetters
from loquat_gateway.http.forward import Forward
from loquat_gateway.http.messages import Messages
from loquat_gateway.http.projects import Projects
from loquat_gateway.http.resources import Resources
from loquat_gateway.http.webhook import Webhook

VERSION: Final = "0.1.0"
_DESCRIPTION: Final = "Projects, numbers, bots and conversations of a Loquat installation. Errors are problem+json with a stable `code`."


class Me(BaseModel):
    """Whose key it is, and what it may do."""

    key_id: str
    organization_id: str
    scopes: list[str]


def build(
    access: Access,
    webhook: Webhook,
    projects: Projects,
    resources: Resources,
    messages: Messages,
    letters: DeadLetters,
    contacts: Contacts,
    owned: Forward,
) -> Api:
    """All routes. `GET /openapi.json` answers their document."""
    api = Api("Loquat", VERSION, authenticate=access.authenticate, body_limit=BODY_LIMIT)
    for part in (webhook, projects, resources, messages, letters, contacts, owned):
        part.add_to(api)

    async def me(request: web.Request) -> Me:
        actor = request[ACTOR]
        return Me(key_id=actor.subject, organization_id=actor.organization or "", scopes=sorted(actor.scopes))

    api.route("GET", "/v1/me", me, summary="Whose key this is", scope="projects:read")
    made = public_document(api)

    async def openapi(_request: web.Request) -> web.Response:
        return web.json_response(made)

    api.route("GET", "/openapi.json", openapi, summary="This document")
    return api


def public_document(api: Api) -> dict[str, Any]:
    """The OpenAPI document of `/v1`: Meta's webhook is Meta's contract, not ours."""
    return document(api, description=_DESCRIPTION, prefix="/v1")
