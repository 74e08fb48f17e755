"""Files from inside of the sandbox: over the worker's own door, to the connector, for its own project and no other."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pytest
from aiohttp import web
from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.workers import Workers
from loquat_bot_runner.errors import BotError
from loquat_common.client import InternalClient
from loquat_common.lifecycle import Server
from loquat_common.tokens import Signer, new_key
from loquat_sandbox import Level, Sandbox, measure

from tests.bots import housing
from tests.shelf import Shelf, task

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

    async def answer(self, request: web.Request) -> web.StreamResponse:
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
    app, shelf = web.Application(client_max_size=8 << 20), Shelf()
    app.router.add_route("*", "/{path:.*}", connector.answer)
    server = Server(app, "127.0.0.1", 0, drain_seconds=0.1)
    await server.start()
    client = InternalClient(f"http://127.0.0.1:{server.port}", Signer("bot-runner", new_key()[0]), "connector")
    await client.start()
    shelf.versions["files"] = BOT
    made = Workers(cast("Any", shelf), Bundles(shelf, bundles), housing(sandbox, connector=client), most=10, idle=60)
    yield made
    await made.close()
    await client.stop()
    await server.stop()


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
