"""The public OpenAPI document without a running gateway: for `docs/openapi.json` and for clients' generators."""

from __future__ import annotations

from typing import Any, cast

from loquat_gateway.http.access import Access
from loquat_gateway.http.api import build, public_document
from loquat_gateway.http.contacts import Contacts
from loquat_gateway.http.deadletters import DeadLetters
from loquat_gateway.http.forward import OWNED, Forward
from loquat_gateway.http.messages import Messages
from loquat_gateway.http.projects import Projects
from loquat_gateway.http.resources import Resources
from loquat_gateway.http.webhook import Webhook


def openapi() -> dict[str, Any]:
    """The document. Only shapes are looked at: nothing behind the routes is called, so nothing is there."""
    nothing = cast("Any", None)
    access = Access(nothing, nothing, nothing)
    api = build(
        access,
        Webhook({}, nothing),
        Projects(nothing, access, nothing, nothing, nothing),
        Resources(access, nothing, nothing, {}),
        Messages(access, nothing, nothing, nothing, nothing),
        DeadLetters(access, nothing, {}),
        Contacts(access, nothing, {}, nothing, nothing),
        Forward(access, nothing, {}, OWNED),
    )
    return public_document(api)
