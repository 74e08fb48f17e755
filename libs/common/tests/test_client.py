"""Questions to other services: an answer comes whole or not at all."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import orjson
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from loquat_common.client import InternalClient
from loquat_common.problems import Problem
from loquat_common.tokens import Signer, new_key

CHUNK = b"x" * (1 << 20)


async def long(_request: web.Request) -> web.Response:
    return web.Response(body=orjson.dumps(["x" * 100] * 10_000))


async def endless(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    for _ in range(80):
        await response.write(CHUNK)
    return response


async def half(_request: web.Request) -> web.Response:
    return web.Response(body=b'["x", ')


@pytest.fixture
async def client() -> AsyncGenerator[InternalClient]:
    app = web.Application()
    app.router.add_get("/long", long)
    app.router.add_get("/endless", endless)
    app.router.add_get("/half", half)
    async with TestServer(app) as server:
        made = InternalClient(str(server.make_url("/")), Signer("gateway", new_key()[0]), "items")
        await made.start()
        yield made
        await made.stop()


async def test_an_answer_of_a_megabyte_comes_whole(client: InternalClient) -> None:
    assert await client.call("GET", "/long", actor=client.itself()) == ["x" * 100] * 10_000


@pytest.mark.parametrize(("path", "said"), [("/endless", "more than 67108864 bytes"), ("/half", "no JSON")])
async def test_an_answer_without_end_or_sense_is_a_problem_that_says_so(client: InternalClient, path: str, said: str) -> None:
    with pytest.raises(Problem) as refused:
        await client.call("GET", path, actor=client.itself())
    assert (refused.value.status, refused.value.code) == (502, "bad_answer")
    assert said in str(refused.value.detail)
