"""Files: fetched from Meta and given to it with the number's own token, as streams that are checked; what is another's does not exist."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiohttp import ClientPayloadError, web
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.http import Api
from loquat_common.lifecycle import Server
from loquat_common.tokens import Actor
from loquat_connector.adapters.media import MediaFiles
from loquat_connector.domain.graph import Unsendable, request
from loquat_connector.domain.media import NoFile, found, largest
from loquat_connector.http.media import DIGEST, MediaApi
from loquat_events.conversations import Outgoing

from services.connector.tests.office import NUMBER, PROJECT, Office, queued

OTHER, OTHERS_NUMBER = "prj_b", "206540352242922"
PICTURE = b"\x89PNG" + bytes(range(256)) * 400
Client = TestClient[Any, Any]


async def authenticate(_request: web.Request) -> Actor:
    return Actor("service", "bot-runner", scopes=frozenset({"media"}))


@asynccontextmanager
async def desk(office: Office, meta: str) -> AsyncGenerator[Client]:
    files = MediaFiles(meta, "v25.0")
    await files.start()
    api = Api("test", "1", authenticate=authenticate)
    MediaApi(office.numbers, files).add_to(api)
    async with TestClient(TestServer(api.app())) as client:
        yield client
    await files.stop()


@pytest.fixture
async def client(office: Office) -> AsyncGenerator[Client]:
    await office.attach(OTHERS_NUMBER, OTHER, "EAAanotherToken")
    office.world.numbers[OTHERS_NUMBER].waba_id = "another"
    async with desk(office, office.meta) as made:
        yield made


def path(project: str = PROJECT, number: str = NUMBER, media: str = "") -> str:
    return f"/internal/projects/{project}/numbers/{number}/media{media}"


async def uploaded(client: Client, data: bytes = PICTURE, mime: str = "image/png") -> str:
    async with client.post(path(), data=data, headers={"Content-Type": mime}, params={"name": 'é".png'}) as answer:
        assert answer.status == 201, await answer.text()
        return (await answer.json())["id"]


async def test_what_was_uploaded_is_fetched_again_and_said_by_its_id(client: Client, office: Office) -> None:
    media = await uploaded(client)
    async with client.get(path(media=f"/{media}")) as answer:
        assert (answer.status, answer.content_type, await answer.read()) == (200, "image/png", PICTURE)
        assert answer.headers[DIGEST] == hashlib.sha256(PICTURE).hexdigest()
    message = queued(message={"type": "document", "text": "the bill", "content": {"id": media, "filename": "bill.pdf"}})
    async with office.sending():
        await office.handle(message)
        await office.settled(message)
    assert office.calls()[-1]["body"]["document"] == {"id": media, "filename": "bill.pdf", "caption": "the bill"}


@pytest.mark.promise("P4")
async def test_a_file_of_another_account_does_not_exist_and_nobody_asks_with_anothers_number(client: Client) -> None:
    media = await uploaded(client)
    for asked, code in ((path(OTHER, OTHERS_NUMBER, f"/{media}"), "media_gone"), (path(OTHER, NUMBER, f"/{media}"), "not_found")):
        async with client.get(asked) as answer:
            assert (answer.status, (await answer.json())["code"]) == (404, code)
    async with client.post(path(OTHER, NUMBER), data=b"x", headers={"Content-Type": "image/png"}) as answer:
        assert answer.status == 404


@pytest.mark.parametrize(
    ("mime", "size", "status", "words"),
    [
        ("image/webp", (500 << 10) + 1, 413, "takes 512000 of image/webp"),
        ("image/png", 0, 422, "at least one byte"),
        ("imag\u00e9/png", 1, 422, "a media type is such as image/png"),
    ],
)
async def test_what_whatsapp_does_not_take_is_refused_before_it_is_sent(
    client: Client, mime: str, size: int, status: int, words: str
) -> None:
    async with client.post(path(), data=b"x" * size, headers={"Content-Type": mime}) as answer:
        assert (answer.status, words in (await answer.json())["detail"]) == (status, True)


class Liar:
    """A Meta whose files are not what it says of them."""

    def __init__(self) -> None:
        self.url, self.known = "", dict[str, Any]()
        self.answer: web.Response = web.Response(body=PICTURE)
        self.seen: list[str] = []
        self.cut = self.slow = False
        self.gate = asyncio.Event()

    async def node(self, request: web.Request) -> web.Response:
        url = f"http://{request.host}/bytes"
        known = {"url": url, "mime_type": "image/png", "file_size": len(PICTURE), "sha256": hashlib.sha256(PICTURE).hexdigest()}
        return web.json_response({**known, **self.known})

    async def bytes(self, request: web.Request) -> web.StreamResponse:
        self.seen.append(request.headers["Authorization"])
        if self.slow:
            if self.seen[-1] == "Bearer slow":
                await self.gate.wait()
            return web.Response(body=PICTURE)
        if self.cut and request.transport is not None:
            half = web.StreamResponse(headers={"Content-Length": str(len(PICTURE))})
            await half.prepare(request)
            await half.write(PICTURE[: len(PICTURE) // 2])
            request.transport.close()
            return half
        return self.answer


@pytest.fixture
async def liar(office: Office) -> AsyncIterator[tuple[Client, Liar]]:
    liar, app = Liar(), web.Application()
    app.router.add_get("/v25.0/{media}", liar.node)
    app.router.add_get("/{path:.*}", liar.bytes)
    server = Server(app, "127.0.0.1", 0, drain_seconds=0.1)
    await server.start()
    liar.url = f"http://127.0.0.1:{server.port}"
    async with desk(office, liar.url) as client:
        yield client, liar
    await server.stop()


@pytest.mark.parametrize("lie", ["bytes", "less than said", "more than said", "cut off"])
async def test_a_file_that_is_not_what_was_said_breaks_the_connection(liar: tuple[Client, Liar], lie: str) -> None:
    client, meta = liar
    if lie == "bytes":
        meta.answer = web.Response(body=PICTURE[:-1] + b"!")
    meta.known = {"less than said": {"file_size": len(PICTURE) + 1}, "more than said": {"file_size": len(PICTURE) - 1}}.get(lie, {})
    meta.cut = lie == "cut off"
    with pytest.raises(ClientPayloadError):
        async with client.get(path(media="/1")) as answer:
            await answer.read()


@pytest.mark.promise("P8")
@pytest.mark.parametrize(
    "url", ["http://169.254.169.254/latest", "https://fbcdn.net.evil.example/x", "https://u@a.fbcdn.net/x", "file:///etc/passwd"]
)
async def test_the_token_goes_nowhere_but_to_meta(liar: tuple[Client, Liar], url: str) -> None:
    client, meta = liar
    meta.known = {"url": url}
    async with client.get(path(media="/1")) as answer:
        assert (answer.status, (await answer.json())["code"]) == (502, "bad_answer")
    meta.known, meta.answer = {}, web.Response(status=302, headers={"Location": "/elsewhere"})
    async with client.get(path(media="/1")) as answer:
        assert answer.status == 404
    assert len(meta.seen) == 1, "the redirect was not followed"


@pytest.mark.promise("P4")
async def test_one_projects_files_keep_no_others_waiting(liar: tuple[Client, Liar]) -> None:
    _, meta = liar
    meta.slow = True
    files = MediaFiles(meta.url, "v25.0")
    await files.start()

    async def fetched(project: str, token: str) -> int:
        async with files.fetch(project, NUMBER, token, "1") as (_, pieces):
            return sum([len(piece) async for piece in pieces])

    slow = [asyncio.create_task(fetched(PROJECT, "slow")) for _ in range(70)]
    assert await fetched(OTHER, "quick") == len(PICTURE)
    assert meta.seen.count("Bearer slow") <= 8
    meta.gate.set()
    assert await asyncio.gather(*slow) == [len(PICTURE)] * 70
    await files.stop()


async def test_a_file_that_is_too_large_is_not_fetched(liar: tuple[Client, Liar]) -> None:
    client, meta = liar
    meta.known = {"file_size": str((100 << 20) + 1)}
    async with client.get(path(media="/1")) as answer:
        assert answer.status == 413
    assert meta.seen == []


def test_a_digest_is_read_in_hex_and_in_base64_and_addresses_of_meta_are_known() -> None:
    known = {"mime_type": "image/png", "file_size": 1, "url": "https://lookaside.fbsbx.com/x?mid=1"}
    graph = "https://graph.facebook.com"
    assert found({**known, "sha256": "00" * 32}, graph).sha256 == found({**known, "sha256": "A" * 43 + "="}, graph).sha256 == bytes(32)
    for wrong in (
        {"sha256": "c2hhMjU2"},
        *({"sha256": "00" * 32, "file_size": size} for size in ("much", -1, None)),
        {"sha256": "00" * 32, "url": "https://[::1"},
    ):
        with pytest.raises(NoFile):
            found({**known, **wrong}, graph)
    assert [largest(m) for m in ("audio/ogg", "image/webp", "image/png", "application/pdf")] == [16 << 20, 500 << 10, 5 << 20, 100 << 20]


@pytest.mark.parametrize(
    ("message", "words"),
    [
        ({"type": "audio", "text": "la", "content": {"id": "1"}}, "no caption"),
        ({"type": "video", "content": {"id": "1", "link": "https://x.org/v"}}, "one of both"),
        ({"type": "image", "content": {"id": "1", "filename": "x"}}, "only a document has a name"),
        ({"type": "document", "content": {"id": "1" * 201}}, "document.id"),
    ],
)
def test_a_file_that_whatsapp_would_refuse_is_named_with_its_field(message: dict[str, Any], words: str) -> None:
    with pytest.raises(Unsendable, match=words):
        request(Outgoing.model_validate(message), "4915112345678", is_user_id=False, message_id=queued().message_id)
