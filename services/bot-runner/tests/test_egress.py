"""The bot's way to the outside, with real servers on loopback that the test declares to be outside."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from loquat_bot_runner.adapters import egress
from loquat_bot_runner.adapters.egress import Egress, Names, Outside, Visit
from loquat_bot_runner.domain.destinations import Address, Guard, Policy

from tests.system.world import until

HOST = "api.example.com"


class Lax(Guard):
    """Takes one address of this machine for the outside: the test's own servers, on 127.0.0.2."""

    def outside(self, address: Address) -> bool:
        return address in self.lets or super().outside(address)

    lets = (IPv4Address("127.0.0.2"),)


class Laxer(Lax):
    lets = (IPv4Address("127.0.0.1"),)


class Zone:
    """A name server: each name gives one answer after the other, the last for ever."""

    def __init__(self, **names: list[list[str]]) -> None:
        self.names = {k.replace("_", "."): v for k, v in names.items()}
        self.asked: list[str] = []

    async def lookup(self, name: str) -> list[str]:
        self.asked.append(name)
        answers = self.names.get(name)
        if answers is None:
            raise socket.gaierror(-2, "Name or service not known")
        return answers.pop(0) if len(answers) > 1 else answers[0]


@dataclass(slots=True)
class Proxy:
    port: int
    zone: Zone
    visits: list[Visit]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def say(self, text: str | bytes, *, then: bytes = b"") -> str:
        """The answer to raw bytes, to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(text.encode("latin-1") if isinstance(text, str) else text)
        writer.write(then)
        async with asyncio.timeout(15):
            answer = await reader.read()
        writer.close()
        return answer.decode("latin-1")

    async def connect(self, authority: str) -> str:
        return await self.say(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())

    async def seen(self) -> Visit:
        async def any_() -> Visit | None:
            return self.visits[-1] if self.visits else None

        return await until(any_, "a visit is noted")


Open = Callable[..., Awaitable[Proxy]]


@pytest.fixture
async def opened() -> AsyncGenerator[Open]:
    made: list[tuple[Egress, socket.socket]] = []

    async def start(policy: Policy, zone: Zone | None = None, outside: Outside | None = None) -> Proxy:
        zone = zone or Zone(api_example_com=[["127.0.0.2"]])
        listener = socket.create_server(("127.0.0.1", 0))
        visits = list[Visit]()

        async def of(_project: str) -> Policy:
            return policy

        proxy = Egress(
            listener, "prj", of, outside or Outside(zone.lookup, Lax(), itself=lambda _: False), lambda _, visit: visits.append(visit)
        )
        await proxy.start()
        made.append((proxy, listener))
        return Proxy(listener.getsockname()[1], zone, visits)

    yield start
    for proxy, listener in made:
        await proxy.close()
        listener.close()


@dataclass(frozen=True, slots=True)
class Site:
    port: int
    trust: ssl.SSLContext


@pytest.fixture(scope="module")
async def site(tmp_path_factory: pytest.TempPathFactory) -> AsyncGenerator[Site]:
    """An HTTPS server of HOST."""
    folder = tmp_path_factory.mktemp("tls")
    context = _certified(folder)
    app = web.Application()

    async def hello(_request: web.Request) -> web.Response:
        return web.Response(text="hello from outside")

    async def large(_request: web.Request) -> web.Response:
        return web.Response(body=b"x" * (4 << 20))

    async def away(request: web.Request) -> web.Response:
        raise web.HTTPFound(request.query["to"])

    app.add_routes([web.get("/", hello), web.get("/large", large), web.get("/away", away)])
    runner = web.AppRunner(app)
    await runner.setup()
    served = web.TCPSite(runner, "127.0.0.2", 0, ssl_context=context)
    await served.start()
    yield Site(runner.addresses[0][1], ssl.create_default_context(cafile=str(folder / "cert.pem")))
    await runner.cleanup()


def _certified(folder: Path) -> ssl.SSLContext:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, HOST)])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - timedelta(days=1), now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(HOST)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    (folder / "key.pem").write_bytes(secret)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def allowing(site: Site, *hosts: str) -> Policy:
    return Policy(hosts or (HOST,), ports=(site.port,))


async def fetch(proxy: Proxy, site: Site, path: str = "/", *, host: str = HOST) -> str:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"https://{host}:{site.port}{path}", proxy=proxy.url, ssl=site.trust) as answer,
    ):
        return await answer.text()


async def test_an_allowed_host_is_reached_with_tls_from_end_to_end(opened: Open, site: Site) -> None:
    proxy = await opened(allowing(site))
    assert await fetch(proxy, site) == "hello from outside"
    visit = await proxy.seen()
    assert (visit.host, visit.port, visit.outcome) == (HOST, site.port, "ok")
    assert visit.received > visit.sent > 100
    assert proxy.zone.asked == [HOST]


async def test_an_address_that_does_not_answer_makes_way_for_the_next(opened: Open, site: Site) -> None:
    class Both(Lax):
        lets = (IPv4Address("127.0.0.2"), IPv4Address("127.0.0.3"))

    zone = Zone(api_example_com=[["127.0.0.3", "127.0.0.2"]])
    proxy = await opened(allowing(site), zone, Outside(zone.lookup, Both(), itself=lambda _: False))
    assert await fetch(proxy, site) == "hello from outside"
    zone.names["api.example.com"] = [["127.0.0.3"]]
    assert (await proxy.connect(f"{HOST}:{site.port}")).startswith(f"HTTP/1.1 502 {HOST} does not answer on port {site.port}")


async def test_nothing_is_reached_by_default_and_the_answer_says_what_to_do(opened: Open) -> None:
    proxy = await opened(Policy())
    answer = await proxy.connect(f"{HOST}:443")
    assert answer.startswith("HTTP/1.1 403 this project's bot may not connect to the outside")
    assert f"`loquat bot egress allow {HOST}` opens it, or PUT .../bot/egress" in answer
    assert proxy.zone.asked == [], "not even its name is looked up: names can carry data"
    assert (await proxy.seen()).outcome == "off"


@pytest.mark.promise("P4")
async def test_a_name_that_is_public_first_and_private_then_is_asked_once(opened: Open, site: Site) -> None:
    """DNS rebinding."""
    proxy = await opened(allowing(site), Zone(api_example_com=[["127.0.0.2"], ["127.0.0.1"]]))
    assert await fetch(proxy, site) == "hello from outside"
    assert (await proxy.connect(f"{HOST}:{site.port}")).startswith("HTTP/1.1 403"), "the next connection is checked anew"
    assert proxy.zone.asked == [HOST, HOST], "once for each connection: what was checked is what was dialled"


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "found", [["127.0.0.1"], ["127.0.0.2", "10.0.0.1"], ["169.254.169.254"], ["::ffff:127.0.0.2"], ["fd00:ec2::254"], ["64:ff9b::7f00:2"]]
)
async def test_a_name_that_stands_for_the_inside_is_refused(opened: Open, site: Site, found: list[str]) -> None:
    proxy = await opened(allowing(site, "*"), Zone(api_example_com=[found]))
    answer = await proxy.connect(f"{HOST}:{site.port}")
    assert answer.startswith("HTTP/1.1 403")
    assert not any(a in answer for a in found), "what names stand for inside is not told"


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    "authority",
    [
        "127.0.0.1:{}",
        "169.254.169.254:{}",
        "[::1]:{}",
        "[::ffff:7f00:1]:{}",
        "2130706433:{}",
        "0x7f000001:{}",
        "0177.0.0.1:{}",
        "localhost:{}",
        "x@127.0.0.1:{}",
        "127.0.0.1%00:{}",
    ],
)
async def test_literals_and_disguises_of_the_inside_are_refused(opened: Open, site: Site, authority: str) -> None:
    proxy = await opened(allowing(site, "*"))
    assert (await proxy.connect(authority.format(site.port))).startswith("HTTP/1.1 403")
    assert proxy.zone.asked == []


@pytest.mark.promise("P4")
async def test_a_redirect_leads_nowhere_that_a_request_would_not(opened: Open, site: Site) -> None:
    proxy = await opened(allowing(site, "*"), Zone(api_example_com=[["127.0.0.2"]], inside_example_com=[["10.0.0.1"]]))
    with pytest.raises(aiohttp.ClientHttpProxyError, match="403"):
        await fetch(proxy, site, f"/away?to=https://inside.example.com:{site.port}/")
    async with aiohttp.ClientSession() as session:
        plain = f"https://{HOST}:{site.port}/away?to=http://169.254.169.254/latest"
        async with session.get(plain, proxy=proxy.url, ssl=site.trust) as answer:
            assert answer.status == 405


@pytest.mark.promise("P4")
async def test_this_machine_is_not_outside_on_any_of_its_addresses(opened: Open, site: Site) -> None:
    zone = Zone(api_example_com=[["127.0.0.1"]])
    proxy = await opened(allowing(site, "*"), zone, Outside(zone.lookup, Laxer()))
    answer = await proxy.connect(f"{HOST}:{site.port}")
    assert "this platform itself" in answer


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET http://api.example.com/ HTTP/1.1\r\nHost: api.example.com\r\n\r\n", 405),
        ("POST / HTTP/1.1\r\n\r\n", 405),
        ("CONNECT\r\n\r\n", 400),
        ("CONNECT a b c HTTP/1.1\r\n\r\n", 400),
        ("CONNECT api.example.com:443 SPDY/3\r\n\r\n", 400),
        ("\x16\x03\x01 hello\r\n\r\n", 400),
        ("CONNECT api.example.com:443 HTTP/1.1\r\nX: " + "y" * 9000 + "\r\n\r\n", 400),
        ("x" * 300_000, 400),
        ("CONNECT exämple.com:443 HTTP/1.1\r\n\r\n", 403),
        ("CONNECT api.example.com:22 HTTP/1.1\r\n\r\n", 403),
        ("CONNECT unknown.example.com:443 HTTP/1.1\r\n\r\n", 502),
    ],
)
async def test_a_bad_request_is_answered_with_its_reason(opened: Open, head: str, status: int) -> None:
    proxy = await opened(Policy(("*",)))
    answer = await proxy.say(head)
    assert answer.startswith(f"HTTP/1.1 {status} "), answer
    assert len(answer.rpartition("\r\n\r\n")[2]) > 10, "in words"


async def test_a_head_that_comes_byte_by_byte_has_an_end(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_HEAD_LIMIT", 0.3)
    proxy = await opened(Policy(("*",)))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    reading = asyncio.create_task(reader.read())
    for letter in b"CONNECT api.exam":
        writer.write(bytes([letter]))
        await asyncio.sleep(0.03)
    assert (await reading).startswith(b"HTTP/1.1 408 ")
    writer.close()


async def test_more_bytes_than_allowed_end_the_connection(opened: Open, site: Site) -> None:
    proxy = await opened(replace(allowing(site), connection_bytes=1 << 20))
    with pytest.raises(aiohttp.ClientError):
        await fetch(proxy, site, "/large")
    visit = await proxy.seen()
    assert visit.outcome == "spent"
    assert visit.received < 2 << 20


async def test_the_hours_bytes_are_counted_over_connections(opened: Open, site: Site) -> None:
    proxy = await opened(replace(allowing(site), hour_bytes=5 << 20))
    assert len(await fetch(proxy, site, "/large")) == 4 << 20
    await proxy.seen()
    with pytest.raises(aiohttp.ClientError):
        await fetch(proxy, site, "/large")
    assert "in this hour" in await proxy.connect(f"{HOST}:{site.port}")


async def test_a_connection_ends_when_its_time_is_over(opened: Open, site: Site) -> None:
    proxy = await opened(replace(allowing(site), connection_seconds=0.2))
    assert (await proxy.connect(f"{HOST}:{site.port}")).startswith("HTTP/1.1 200 ")
    assert (await proxy.seen()).outcome == "late"


async def test_all_projects_together_have_so_many_connections_and_no_more(opened: Open, site: Site) -> None:
    zone = Zone(api_example_com=[["127.0.0.2"]])
    full = Outside(zone.lookup, Lax(), itself=lambda _: False, most=0)
    proxy = await opened(allowing(site), zone, full)
    assert "too many connections" in await proxy.connect(f"{HOST}:{site.port}")
    full.most = 1
    assert await fetch(proxy, site) == "hello from outside"

    async def ended() -> bool:
        return [v.outcome for v in proxy.visits] == ["busy", "ok"]

    await until(ended, "the first connection is over")
    assert await fetch(proxy, site) == "hello from outside", "the place is given back"


async def test_a_name_server_that_never_answers_costs_only_the_one_who_asks(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(egress, "_LOOKUP_LIMIT", 0.2)

    async def never(_name: str) -> list[str]:
        await asyncio.Event().wait()
        return []

    proxy = await opened(Policy(("*",)), None, Outside(never))
    answers = await asyncio.gather(*(proxy.connect(f"{HOST}:443") for _ in range(5)))
    assert all(a.startswith("HTTP/1.1 502") and "no name server" in a for a in answers)


async def test_a_server_that_closes_its_side_may_still_be_told_the_rest(opened: Open) -> None:
    """Half-close, both ways."""
    heard = asyncio.get_running_loop().create_future()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"first word")
        writer.write_eof()
        heard.set_result(await reader.read())
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.2", 0)
    port = server.sockets[0].getsockname()[1]
    proxy = await opened(Policy((HOST,), ports=(port,)))
    reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
    writer.write(f"CONNECT {HOST}:{port} HTTP/1.1\r\n\r\nearly, ".encode())
    assert (await reader.read()).endswith(b"\r\n\r\nfirst word")
    writer.write(b"last word")
    writer.write_eof()
    assert await heard == b"early, last word"
    writer.close()
    server.close()


async def test_the_machines_resolver_takes_a_name_as_it_is() -> None:
    names = Names()
    with pytest.raises(OSError):  # noqa: PT011  (whatever the resolver calls it)
        await names.lookup("no-such-name.invalid")
    names.close()
