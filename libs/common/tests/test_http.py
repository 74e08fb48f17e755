"""The HTTP layer: what is wrong is named, what is right comes typed, and the document says the same."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.http import ACTOR, Api, internal_auth
from loquat_common.openapi import document
from loquat_common.problems import Problem
from loquat_common.tokens import Actor, Signer, Verifier, new_key
from openapi_spec_validator import validate
from pydantic import BaseModel, Field
from yarl import URL


class ItemPath(BaseModel):
    project_id: str
    n: int


class ItemQuery(BaseModel):
    limit: int = Field(default=10, ge=1, le=200)
    tags: list[str] = []


class ItemBody(BaseModel):
    name: str = Field(max_length=5)


class Item(BaseModel):
    n: int
    name: str
    tags: list[str]
    by: str


PRIVATE, PUBLIC = new_key()
CLIENT_SIGNER = Signer("gateway", PRIVATE)
USER = Actor("user", "u1", "o1", "p1", frozenset({"items:write"}))


async def put_item(request: web.Request, *, path: ItemPath, query: ItemQuery, body: ItemBody) -> Item:
    return Item(n=path.n, name=body.name, tags=query.tags, by=request[ACTOR].subject)


async def remove_item(_request: web.Request) -> None:
    return None


async def teapot(_request: web.Request) -> None:
    raise Problem(418, "teapot", "It is a teapot", spout="left")


async def broken(_request: web.Request) -> None:
    raise RuntimeError("the password is hunter2")


async def away(_request: web.Request) -> None:
    raise ConnectionRefusedError("the password is hunter2")


def build() -> Api:
    api = Api("Items", "1", authenticate=internal_auth(Verifier({"gateway": PUBLIC}, "items")), body_limit=1000)
    api.route("PUT", "/projects/{project_id}/items/{n}", put_item, summary="Put an item", scope="items:write", errors=(404,))
    api.route("DELETE", "/items", remove_item, summary="Remove all")
    api.route("GET", "/teapot", teapot, summary="A teapot")
    api.route("GET", "/broken", broken, summary="Broken")
    api.route("GET", "/away", away, summary="Away")
    return api


@pytest.fixture
async def client() -> AsyncGenerator[TestClient[web.Request, web.Application]]:
    async with TestClient(TestServer(build().app())) as c:
        yield c


async def put(
    client: TestClient[Any, Any], url: str = "/projects/p1/items/7", actor: Actor = USER, **more: Any
) -> tuple[int, dict[str, Any]]:
    token = CLIENT_SIGNER.sign(actor, "items", "PUT", url.partition("?")[0])
    response = await client.put(url, headers={"Authorization": f"Bearer {token}"}, **more)
    return response.status, await response.json()


async def test_a_good_request_reaches_the_handler_typed_and_its_answer_is_shaped(client: TestClient[Any, Any]) -> None:
    assert await put(client, "/projects/p1/items/7?tags=a", json={"name": "x"}) == (200, {"n": 7, "name": "x", "tags": ["a"], "by": "u1"})


@pytest.mark.parametrize(
    ("url", "body", "status", "code", "named"),
    [
        ("/projects/p1/items/seven", {"name": "x"}, 422, "invalid_request", "path.n"),
        ("/projects/p1/items/7?limit=0", {"name": "x"}, 422, "invalid_request", "query.limit"),
        ("/projects/p1/items/7?limit=1&limit=2", {"name": "x"}, 422, "invalid_request", "query.limit"),
        ("/projects/p1/items/7", {"name": "too long"}, 422, "invalid_request", "body.name"),
        ("/projects/p1/items/7", {}, 422, "invalid_request", "body.name"),
    ],
)
async def test_what_is_wrong_is_named_with_its_place(
    client: TestClient[Any, Any], url: str, body: Any, status: int, code: str, named: str
) -> None:
    answered, problem = await put(client, url, json=body)
    assert (answered, problem["code"]) == (status, code)
    assert named in problem["detail"]


async def test_a_body_that_is_not_json_is_400_and_another_content_type_415_and_too_much_413(client: TestClient[Any, Any]) -> None:
    json_type = {"Content-Type": "application/json"}
    token = CLIENT_SIGNER.sign(USER, "items", "PUT", "/projects/p1/items/7")
    answers: list[tuple[int, str, str]] = []
    for data, headers in ((b"{", json_type), (b"{}", {"Content-Type": "text/plain"}), (b"x" * 2000, json_type)):
        response = await client.put("/projects/p1/items/7", data=data, headers={"Authorization": f"Bearer {token}", **headers})
        answers.append((response.status, (await response.json())["code"], response.content_type))
    kind = "application/problem+json"
    assert answers == [(400, "malformed_json", kind), (415, "unsupported_media_type", kind), (413, "too_large", kind)]


@pytest.mark.promise("P4")
async def test_a_token_for_another_project_sees_no_project_and_one_without_the_scope_is_told_which(client: TestClient[Any, Any]) -> None:
    other = Actor("user", "u1", "o1", "p2", frozenset({"items:write"}))
    poor = Actor("user", "u1", "o1", "p1", frozenset())
    status, problem = await put(client, actor=other, json={"name": "x"})
    assert (status, problem["code"]) == (404, "not_found")
    status, problem = await put(client, actor=poor, json={"name": "x"})
    assert (status, problem["code"], problem["detail"]) == (403, "forbidden", "It lacks the scope items:write")


async def test_without_a_token_it_is_401(client: TestClient[Any, Any]) -> None:
    response = await client.put("/projects/p1/items/7", json={"name": "x"})
    assert (response.status, response.headers["WWW-Authenticate"]) == (401, "Bearer")


async def test_nothing_answered_is_204_and_a_problem_of_a_handler_keeps_its_members(client: TestClient[Any, Any]) -> None:
    assert (await client.delete("/items")).status == 204
    response = await client.get("/teapot")
    assert (response.status, (await response.json())["spout"]) == (418, "left")


async def test_unknown_addresses_and_methods_are_problems_too(client: TestClient[Any, Any]) -> None:
    missing, wrong = await client.get("/nowhere"), await client.post("/teapot")
    assert (missing.status, (await missing.json())["code"]) == (404, "not_found")
    assert (wrong.status, (await wrong.json())["code"], wrong.headers["Allow"]) == (405, "method_not_allowed", "GET")


@pytest.mark.promise("P8")
@pytest.mark.parametrize(("path", "status"), [("/broken", 500), ("/away", 503)], ids=["a bug", "a database that is away"])
async def test_a_failure_tells_nothing_of_the_error(client: TestClient[Any, Any], path: str, status: int) -> None:
    response = await client.get(path)
    text = await response.text()
    assert (response.status, "hunter2" in text) == (status, False)


def test_the_document_is_valid_openapi_3_1_and_says_what_a_route_needs() -> None:
    made = document(build(), description="Items")
    validate(made)
    operation = made["paths"]["/projects/{project_id}/items/{n}"]["put"]
    assert {p["name"]: p["in"] for p in operation["parameters"]} == {"project_id": "path", "n": "path", "limit": "query", "tags": "query"}
    assert set(operation["responses"]) == {"200", "400", "401", "403", "404", "413", "415", "422", "default"}
    assert made["paths"]["/items"]["delete"]["responses"]["204"]


def test_a_handler_with_a_part_nobody_knows_is_refused_when_it_is_added() -> None:
    async def odd(_request: web.Request, *, header: ItemQuery) -> None:
        del header

    with pytest.raises(TypeError, match="not header"):
        Api("x", "1").route("GET", "/", odd, summary="odd")


class Where(BaseModel):
    name: str


class What(BaseModel):
    tags: dict[str, list[str]]


async def test_a_nul_character_is_refused_with_its_place_before_anything_is_done_with_it() -> None:
    heard = list[str]()

    async def handle(_request: web.Request, *, path: Where, query: Where, body: What) -> None:
        heard.append(f"{path.name} {query.name} {body.tags}")

    api = Api("t", "1")
    api.route("POST", "/things/{name}", handle, summary="x")
    async with TestClient(TestServer(api.app())) as client:
        for where, what, tags, place in (
            ("a%00b", "x", {"k": ["v"]}, "path.name"),
            ("a", "x%00", {"k": ["v"]}, "query.name"),
            ("a", "x", {"k": ["v", "w\0"]}, "body.tags.k.1"),
            ("a", "x", {"k\0": ["v"]}, "body.tags"),
        ):
            answer = await client.post(URL(f"/things/{where}?name={what}", encoded=True), json={"tags": tags})
            assert answer.status == 422
            assert (await answer.json())["detail"] == f"{place} has a NUL character"
        assert heard == []
        assert (await client.post("/things/a?name=x", json={"tags": {"k": ["\\u0000 as text"]}})).status == 204
        assert heard == ["a x {'k': ['\\\\u0000 as text']}"]
