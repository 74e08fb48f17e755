"""What is handed on to the service that serves it: whole, or visibly broken."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator
from typing import Any, cast

import aiohttp
import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from loquat_common.client import InternalClient
from loquat_common.http import ACTOR, Api
from loquat_common.tokens import Actor, Signer, new_key
from loquat_gateway.http import forward, turns
from loquat_gateway.http.forward import Forward
from loquat_rest.operation import Operation
from yarl import URL

from tests.system.world import until

BEGINNING = b"half of it"
DOWNLOAD = Operation("GET", "/database/file", "A file", "database:read", gives=("application/octet-stream",))
LONG = Operation("GET", "/database/long", "A long file", "database:read", gives=("application/octet-stream",))
BEGUN = list[str]()
"""Uploads that the service behind has begun to read."""
DONE = asyncio.Event()
"""The service behind has ended its long file, whether it was read or not."""
UPLOAD = Operation("POST", "/database/file", "A file", "database:write", takes=("text/plain",), gives=("text/plain",))


class Door:
    """Lets everybody in."""

    async def project(self, request: web.Request, project: str, **_more: Any) -> Actor:
        return Actor("user", "key", "o", project, request[ACTOR].scopes)

    async def audit(self, *_what: object) -> None:
        return


@pytest.fixture
async def gateway() -> AsyncGenerator[str]:
    async def download(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream", "Content-Disposition": "attachment"})
        await response.prepare(request)
        await response.write(BEGINNING)
        assert request.transport is not None
        request.transport.abort()
        return response

    async def endless(request: web.Request) -> web.StreamResponse:
        DONE.clear()
        response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
        await response.prepare(request)
        try:
            while True:
                await response.write(bytes(1 << 20))
        finally:
            DONE.set()

    async def upload(request: web.Request) -> web.Response:
        size = 0
        BEGUN.append(request.path)
        async for piece in request.content.iter_any():
            size += len(piece)
        return web.Response(text=str(size))

    async def anybody(_request: web.Request) -> Actor:
        return Actor("user", "key", "o", scopes=frozenset({"database:read", "database:write"}))

    owner = web.Application()
    owner.router.add_get("/internal/projects/{project_id}/database/file", download)
    owner.router.add_get("/internal/projects/{project_id}/database/long", endless)
    owner.router.add_post("/internal/projects/{project_id}/database/file", upload)
    async with TestServer(owner) as behind:
        client = InternalClient(str(behind.make_url("")), Signer("gateway", new_key()[0]), "schema-manager")
        await client.start()
        api, door = Api("front", "1", authenticate=anybody), cast("Any", Door())
        Forward(door, door, {"schema-manager": client}, {"schema-manager": (DOWNLOAD, LONG, UPLOAD)}).add_to(api)
        async with TestServer(api.app()) as front:
            yield str(front.make_url(""))
        await client.stop()


async def test_an_answer_that_breaks_off_is_cut_and_never_ends_well(gateway: str) -> None:
    async with aiohttp.ClientSession() as http, http.get(f"{gateway}/v1/projects/prj/database/file") as answer:
        assert (answer.status, answer.headers["Content-Disposition"]) == (200, "attachment")
        with pytest.raises(aiohttp.ClientError):
            await answer.read()


async def test_a_body_of_any_size_goes_on_as_a_stream(gateway: str) -> None:
    async def pieces() -> AsyncGenerator[bytes]:
        for _ in range(300):
            yield b"x" * 65_536

    async with aiohttp.ClientSession() as http:
        headers = {"Content-Type": "text/plain"}
        async with http.post(f"{gateway}/v1/projects/prj/database/file", data=pieces(), headers=headers) as answer:
            assert (answer.status, await answer.text()) == (200, str(300 * 65_536))


async def test_a_project_has_so_many_files_under_way_and_its_neighbours_are_not_kept_out(
    gateway: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Four uploads that send nothing; then a fifth, a neighbour's, and the end of their patience."""
    monkeypatch.setattr(turns, "SILENCE", 3)
    BEGUN.clear()
    headers, never = {"Content-Type": "text/plain"}, asyncio.Event()

    async def nothing() -> AsyncGenerator[bytes]:
        yield b"x"
        await never.wait()

    async def stalled(http: aiohttp.ClientSession) -> tuple[int, str]:
        async with http.post(f"{gateway}/v1/projects/prj/database/file", data=nothing(), headers=headers) as answer:
            return answer.status, (await answer.json())["code"]

    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        waiting = [asyncio.create_task(stalled(http)) for _ in range(4)]

        async def all_there() -> bool:
            return len(BEGUN) == 4

        await until(all_there, "the four have come to the service behind", 2.5)
        async with http.post(f"{gateway}/v1/projects/prj/database/file", data=b"y", headers=headers) as answer:
            assert (answer.status, (await answer.json())["code"]) == (429, "too_many_requests")
        async with http.post(f"{gateway}/v1/projects/beside/database/file", data=b"y", headers=headers) as answer:
            assert (answer.status, await answer.text()) == (200, "1")
        assert await asyncio.gather(*waiting) == [(408, "too_slow")] * 4
        async with http.post(f"{gateway}/v1/projects/prj/database/file", data=b"y", headers=headers) as answer:
            assert answer.status == 200


async def test_an_answer_that_nobody_reads_is_cut(gateway: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(forward, "SILENCE", 0.3)
    reader, writer = await asyncio.open_connection("127.0.0.1", URL(gateway).port)
    writer.write(b"GET /v1/projects/prj/database/long HTTP/1.1\r\nHost: x\r\n\r\n")
    await writer.drain()
    async with asyncio.timeout(10):
        while not DONE.is_set():  # noqa: ASYNC110  (set by another server's handler)
            await asyncio.sleep(0.05)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    del reader
