"""The public API as a whole: its document is valid, every route is guarded, the committed document is this one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest
from loquat_gateway.domain.scopes import ALL
from loquat_gateway.http.access import Access
from loquat_gateway.http.api import build
from loquat_gateway.http.contacts import Contacts
from loquat_gateway.http.deadletters import DeadLetters
from loquat_gateway.http.document import openapi
from loquat_gateway.http.forward import OWNED, Forward
from loquat_gateway.http.messages import Messages
from loquat_gateway.http.projects import Projects
from loquat_gateway.http.resources import Resources
from loquat_gateway.http.webhook import Webhook
from openapi_spec_validator import validate

OPEN = {"/webhooks/whatsapp", "/webhooks/whatsapp/{app}", "/openapi.json"}


def test_the_document_is_valid_and_the_committed_one() -> None:
    made = openapi()
    validate(cast("Any", made))
    committed = json.loads((Path(__file__).resolve().parents[3] / "docs" / "openapi.json").read_text())
    assert committed == json.loads(json.dumps(made)), "run `make docs`"


@pytest.mark.promise("P4")
def test_every_route_but_the_open_ones_asks_for_a_scope_that_there_is() -> None:
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
    for route in api.routes:
        if route.path in OPEN:
            assert route.scope is None, route.path
        else:
            assert route.scope in ALL, route.path


def test_what_may_come_upon_a_limit_of_the_projects_database_says_so() -> None:
    paths = openapi()["paths"]
    told = {
        (method, path.partition("/database")[2]) for path, o in paths.items() for method, found in o.items() if "507" in found["responses"]
    }
    writing = {
        (m, p)
        for p, o in paths.items()
        for m, f in o.items()
        if f.get("description", "").endswith(("`database:write`.", "`database:sql`."))
    }
    assert told >= {(m, p.partition("/database")[2]) for m, p in writing}
    assert ("post", "/tables/{table}/query") in told, "a sort may need more than a project's temporary files"
    assert not {("get", "/tables"), ("get", "/changes"), ("get", "/tools"), ("get", "/usage"), ("get", "")} & told


@pytest.mark.promise("P8")
def test_no_answer_has_a_field_for_a_token_or_a_password() -> None:
    schemas = openapi()["components"]["schemas"]
    shown_once = {"NewAccess"}  # the owner's own database password, to its owner, when it is made
    answers = {name: s for name, s in schemas.items() if name not in {"NewNumber", *shown_once}}
    for name, schema in answers.items():
        assert not {"token", "password", "app_secret", "api_key"} & schema.get("properties", {}).keys(), name
