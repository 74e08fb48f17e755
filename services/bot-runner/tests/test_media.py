"""Files from inside of the sandbox: over the worker's own door, to the connector, for its own project and no other."""

from __future__ import annotations

import asyncio
import hashlib
import socket
import zlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.egress import Egress, Outside, closed, unseen
from loquat_bot_runner.adapters.mediadoor import MediaDoor, _Handed, _Line  # pyright: ignore[reportPrivateUsage]
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.domain.pace import Pace
from loquat_bot_runner.errors import BotError
from loquat_common.client import InternalClient
from loquat_common.lifecycle import Server
from loquat_common.tokens import Signer, new_key
from loquat_sandbox import Level, Sandbox, measure

from tests.bots import housing, no_names
from tests.shelf import Shelf, task
from tests.system.world import until

BOT = """
import aiohttp
from loquat import Bot, MediaGone
bot = Bot()

@bot.fallback
async def handle(ctx):
    what, _, rest = ctx.event.text.partition(" ")
    match what:
        case "get":
            try:
                file = await ctx.media.download(rest, most=2 << 20)
                ctx.reply_text(f"{file.size} {file.mime_type}")
            except MediaGone as gone:
                ctx.reply_text(f"gone: {gone}")
        case "put":
            ctx.reply_document(await ctx.media.upload(b"%PDF" * int(rest), "application/pdf", name="b ä.pdf"), "here", name="bill.pdf")
        case "raw":
            async with aiohttp.ClientSession(trust_env=True) as session, session.get(rest) as answer:
                ctx.reply_text(f"{answer.status} {(await answer.text())[:60]}")
"""
FILE = b"x" * (1 << 20)


@dataclass(slots=True)
class Connector:
    """What a connector would say, and what it was asked."""

    asked: list[tuple[str, str, bytes]] = field(default_factory=list[tuple[str, str, bytes]])
    cut: bool = False
    waiting: list[web.Request] = field(default_factory=list[web.Request])
    gate: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        if request.path.endswith("/never"):
            self.waiting.append(request)
            await self.gate.wait()
        if request.method == "POST" and "/numbers/9/" in request.path:
            return web.json_response({"status": 404, "code": "not_found", "title": "There is no such number"}, status=404)
        self.asked.append((request.method, request.path_qs, await request.read()))
        if request.method == "POST":
            return web.json_response({"id": "4711"}, status=201)
        if not request.path.endswith("/known"):
            problem = {"status": 404, "code": "media_gone", "title": "There is no such file", "detail": "Meta forgot it"}
            return web.json_response(problem, status=404, content_type="application/problem+json")
        headers = {"X-Loquat-SHA256": hashlib.sha256(FILE).hexdigest(), "Content-Type": "image/png", "Content-Length": str(len(FILE))}
        response = web.StreamResponse(headers=headers)
        await response.prepare(request)
        await response.write(FILE[: len(FILE) // 2])
        if self.cut and request.transport is not None:
            request.transport.abort()
        else:
            await response.write(FILE[len(FILE) // 2 :])
        return response


@pytest.fixture
def connector() -> Connector:
    return Connector()


@pytest.fixture
async def workers(connector: Connector, sandbox: Sandbox, bundles: Path) -> AsyncGenerator[Workers]:
    async with opened(connector, sandbox, bundles) as made:
        yield made


@asynccontextmanager
async def opened(connector: Connector, sandbox: Sandbox, bundles: Path) -> AsyncGenerator[Workers]:
    shelf = Shelf()
    shelf.versions["files"] = BOT
    async with asking(connector) as client:
        made = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox, connector=client), most=10, idle=60)
        yield made
        await made.close()


@asynccontextmanager
async def asking(connector: Connector) -> AsyncGenerator[InternalClient]:
    app = web.Application(client_max_size=8 << 20)
    app.router.add_route("*", "/{path:.*}", connector.answer)
    server = Server(app, "127.0.0.1", 0, drain_seconds=0.1)
    await server.start()
    client = InternalClient(f"http://127.0.0.1:{server.port}", Signer("bot-runner", new_key()[0]), "connector")
    await client.start()
    yield client
    connector.gate.set()
    await client.stop()
    await server.stop()


@dataclass(slots=True)
class Door:
    """As a bot reaches it that writes HTTP itself."""

    port: int

    async def say(self, head: str, body: bytes = b"") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"{head}\r\nHost: media.loquat\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body)
        return reader, writer

    async def answer(self, head: str, body: bytes = b"") -> bytes:
        reader, writer = await self.say(head, body)
        said = await reader.read()
        writer.close()
        return said


@asynccontextmanager
async def door(client: InternalClient, project: str = "prj_a", ticket: str | None = None) -> AsyncGenerator[Door]:
    listener = socket.create_server(("127.0.0.1", 0))
    served = Egress(
        listener, project, closed, Outside(no_names), unseen, lambda left, passed: MediaDoor(client, project, ticket, left, passed)
    )
    await served.start()
    yield Door(listener.getsockname()[1])
    await served.close()
    listener.close()


async def said(workers: Workers, text: str, project: str = "prj_a") -> dict[str, Any]:
    (reply,) = (await workers.call(task("files", text, project)))["replies"]
    return reply


async def test_a_file_comes_and_goes_as_the_project_whose_worker_asks(workers: Workers, connector: Connector) -> None:
    assert (await said(workers, "get known"))["text"] == f"{len(FILE)} image/png"
    assert (await said(workers, "put 300000", "prj_b")) == {
        "type": "document",
        "text": "here",
        "content": {"id": "4711", "filename": "bill.pdf"},
    }
    assert [(m, p) for m, p, _ in connector.asked] == [
        ("GET", "/internal/projects/prj_a/numbers/1/media/known"),
        ("POST", "/internal/projects/prj_b/numbers/1/media?name=b%20%C3%A4.pdf"),
    ]
    assert connector.asked[1][2] == b"%PDF" * 300_000


async def test_a_file_that_is_not_there_or_comes_in_part_is_an_error_that_a_bot_can_tell(workers: Workers, connector: Connector) -> None:
    assert (await said(workers, "get nothing"))["text"] == "gone: Meta forgot it"
    connector.cut = True
    with pytest.raises(BotError, match="MediaFailed"):
        await workers.call(task("files", "get known"))
    connector.cut = False
    assert (await said(workers, "get known"))["text"] == f"{len(FILE)} image/png"


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("address", "words"),
    [
        ("http://media.loquat/1/../../../prj_b/numbers/2/media/known", "404"),
        ("http://media.loquat/1/a%2Fb", "404"),
        ("http://media.loquat/internal/projects/prj_b/numbers/1/media/known", "404"),
        ("http://media.loquat.evil.example/1/known", "405"),
        ("http://127.0.0.1/1/known", "405"),
    ],
)
async def test_the_door_leads_nowhere_else(workers: Workers, connector: Connector, address: str, words: str) -> None:
    assert (await said(workers, f"raw {address}"))["text"].startswith(words)
    assert all(path.startswith("/internal/projects/prj_a/") for _, path, _ in connector.asked)


@pytest.mark.promise("P4")
async def test_where_others_of_the_machine_reach_the_door_it_asks_for_the_workers_ticket(connector: Connector, bundles: Path) -> None:
    found = await measure(bundles, Level.CONFINED)
    async with opened(connector, found.sandbox, bundles) as workers:
        assert (await said(workers, "get known"))["text"] == f"{len(FILE)} image/png"
        assert (await said(workers, "raw http://media.loquat/1/known"))["text"].startswith("407")
    await found.sandbox.close()


@pytest.mark.promise("P4")
async def test_a_body_that_says_it_is_packed_leaves_the_next_request_of_another_whole(connector: Connector) -> None:
    packer = zlib.compressobj(0)
    packed = packer.compress(b"x") + packer.flush(zlib.Z_FULL_FLUSH) + packer.flush()
    async with asking(connector) as client, door(client) as hostile, door(client, "prj_b") as other:
        assert b" 404 " in await hostile.answer("POST http://media.loquat/9 HTTP/1.1\r\nContent-Encoding: deflate", packed)
        assert b"4711" in await other.answer("POST http://media.loquat/1 HTTP/1.1", b"abc")
    assert [(path, body) for _, path, body in connector.asked] == [("/internal/projects/prj_b/numbers/1/media", b"abc")]


async def test_nothing_follows_a_file_that_breaks_off(connector: Connector) -> None:
    connector.cut = True
    async with asking(connector) as client, door(client) as bots:
        said = await bots.answer("GET http://media.loquat/1/known HTTP/1.1")
    assert said.partition(b"\r\n\r\n")[2].strip(b"x") == b""


async def test_a_request_ends_with_the_bot_that_made_it(connector: Connector) -> None:
    async with asking(connector) as client, door(client) as bots:
        _, writer = await bots.say("GET http://media.loquat/1/never HTTP/1.1")

        async def asked() -> bool:
            return len(connector.waiting) == 1

        async def left() -> bool:
            return connector.waiting[0].transport is None

        await until(asked, "the connector is asked")
        writer.transport.abort()
        await until(left, "the connector's caller has gone", patience=10)


@pytest.mark.promise("P4")
async def test_a_ticket_of_any_bytes_is_only_a_wrong_one(connector: Connector) -> None:
    async with asking(connector) as client, door(client, ticket="right") as bots:
        for wrong in ("é", "left", ""):
            assert b" 407 " in await bots.answer(f"GET http://media.loquat/1/known HTTP/1.1\r\nX-Loquat-Ticket: {wrong}")


async def test_who_writes_byte_by_byte_is_read_at_the_workers_pace() -> None:
    reading: list[bool] = []
    transport = cast("Any", _Reading(reading))
    line = _Line(transport)
    handed = _Handed(asyncio.Protocol(), line, Pace(0.001, 1))
    handed.data_received(b"x")
    assert reading == [False]
    line.pause_reading()
    line.resume_reading()
    assert reading == [False], "the server's own word to go on is not enough"
    line.release("pace")
    assert reading == [False, True]


class _Reading:
    def __init__(self, told: list[bool]) -> None:
        self._told = told

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        self._told.append(False)

    def resume_reading(self) -> None:
        self._told.append(True)
