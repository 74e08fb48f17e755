"""`ctx.http`: bounded in time and size, through the proxy that is named, and answered for by a test."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer
from loquat import Answer, Bot, Context, HttpFailed
from loquat.testing import BotTester, NoNetwork
from loquat.web import Client, Http, Request


@dataclass
class Service:
    """A service somewhere outside."""

    base: str = ""
    heard: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list[tuple[str, dict[str, str], bytes]])
    silent: asyncio.Event = field(default_factory=asyncio.Event)

    async def answer(self, request: web.Request) -> web.StreamResponse:
        self.heard.append((f"{request.method} {request.path_qs}", dict(request.headers), await request.read()))
        match request.path:
            case "/silent":
                await self.silent.wait()
            case "/flood":
                response = web.StreamResponse()
                await response.prepare(request)
                while True:
                    await response.write(b"x" * 65_536)
            case "/round":
                raise web.HTTPFound("/round")
            case "/away":
                raise web.HTTPFound("/json")
            case "/broken":
                return web.Response(status=503, text="not now")
            case _:
                pass
        return web.json_response({"ok": True}, headers={"X-Kind": "tea"})


@pytest.fixture
async def service() -> AsyncGenerator[Service]:
    made, app = Service(), web.Application()
    app.router.add_route("*", "/{tail:.*}", made.answer)
    server = TestServer(app)
    await server.start_server()
    made.base = str(server.make_url("")).rstrip("/")
    yield made
    made.silent.set()
    await server.close()


@pytest.fixture
async def http() -> AsyncGenerator[Http]:
    client = Client()
    yield Http(client.send)
    await client.close()


async def test_a_request_goes_as_it_was_made_and_its_answer_is_a_value(service: Service, http: Http) -> None:
    answer = await http.post(f"{service.base}/json?a=1", params={"q": ["x y", 2]}, headers={"Authorization": "Bearer t"}, json={"n": 1})
    assert (answer.status, answer.ok, answer.json(), answer.headers["x-kind"]) == (200, True, {"ok": True}, "tea")
    (line, headers, body) = service.heard[0]
    assert (line, headers["Authorization"], headers["Content-Type"], body) == (
        "POST /json?a=1&q=x+y&q=2",
        "Bearer t",
        "application/json",
        b'{"n": 1}',
    )
    await http.put(f"{service.base}/away", data={"a": "b c"})
    assert service.heard[1][2] == b"a=b+c"


async def test_an_error_is_an_answer_until_it_is_asked_for_its_status(service: Service, http: Http) -> None:
    answer = await http.get(f"{service.base}/broken")
    assert (answer.status, answer.ok, answer.text) == (503, False, "not now")
    with pytest.raises(HttpFailed, match="status is 503"):
        answer.raise_for_status()
    with pytest.raises(HttpFailed, match="is no JSON"):
        answer.json()


@pytest.mark.parametrize(
    ("path", "more", "told"),
    [
        ("/silent", {"seconds": 0.1}, r"127.0.0.1 did not answer within 0.1 s"),
        ("/flood", {"most": 100_000}, r"more than 100000 bytes"),
        ("/round", {}, r"could not be asked: TooManyRedirects"),
    ],
)
async def test_who_is_slow_says_too_much_or_leads_in_circles_ends_the_request(
    service: Service, http: Http, path: str, more: dict[str, Any], told: str
) -> None:
    with pytest.raises(HttpFailed, match=told):
        await http.get(service.base + path, **more)
    assert (await http.get(f"{service.base}/json")).ok, "and the next one is answered"


async def test_who_is_not_there_is_named_and_what_was_asked_is_not(http: Http, unused_tcp_port: int) -> None:
    with pytest.raises(HttpFailed) as failed:
        await http.get(f"http://127.0.0.1:{unused_tcp_port}/?token=t0ken", headers={"Authorization": "t0ken"})
    assert "t0ken" not in str(failed.value)
    assert "t0ken" not in repr(Request("GET", "https://example.org/a?token=t0ken", {"A": "t0ken"}, b"t0ken"))
    assert isinstance(failed.value, OSError), "what may pass by itself, as an error handler tells it"


async def test_requests_go_through_the_proxy_that_the_environment_names(
    service: Service, http: Http, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", service.base)
    monkeypatch.delenv("NO_PROXY", raising=False)
    monkeypatch.delenv("no_proxy", raising=False)
    assert (await http.get("http://nowhere.example/json")).json() == {"ok": True}
    assert service.heard[0][1]["Host"] == "nowhere.example"


IMPOSSIBLE: list[Callable[[Http], Awaitable[Answer]]] = [
    lambda h: h.get("ftp://example.org/"),
    lambda h: h.get("/path"),
    lambda h: h.get("https:///path"),
    lambda h: h.get("https://example.org/", seconds=61),
    lambda h: h.get("https://example.org/", most=17 << 20),
    lambda h: h.post("https://example.org/", json={}, data=b""),
]


@pytest.mark.parametrize("call", IMPOSSIBLE)
async def test_what_can_be_no_request_is_refused(http: Http, call: Callable[[Http], Awaitable[Answer]]) -> None:
    with pytest.raises(ValueError, match=r"begins with https|at most|one of both"):
        await call(http)


async def test_in_a_test_the_test_answers_and_nothing_goes_out() -> None:
    bot = Bot()

    @bot.fallback
    async def rate(ctx: Context) -> None:  # pyright: ignore[reportUnusedFunction]
        answer = await ctx.http.get("https://rates.example/v1", params={"of": ctx.event.text})
        ctx.reply_text(f"{answer.json()['rate']}")

    asked: list[str] = []

    def rates(request: Request) -> Answer:
        asked.append(f"{request.method} {request.url}")
        return Answer.of({"rate": 1.5})

    assert (await BotTester(bot, http=rates).send("EUR"))[0].text == "1.5"
    assert asked == ["GET https://rates.example/v1?of=EUR"]
    with pytest.raises(NoNetwork, match=r"GET https://rates.example/v1\)"):
        await BotTester(bot).send("EUR")
