"""The bot's way to its own database: what passes, what does not, and what is left when somebody goes."""

from __future__ import annotations

import asyncio
import socket
import struct
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from loquat_bot_runner.adapters.credentials import Login
from loquat_bot_runner.adapters.links import Room, Times
from loquat_bot_runner.adapters.pgbridge import PostgresBridge
from loquat_provisioner.domain.life import Names

from tests.system.world import until
from tests.tenants import PASSWORD, Project, Tenants

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

Open = Callable[..., Awaitable["Door"]]
_RUNNING = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND state = 'active' AND query LIKE '%pg_sleep%'"
_FREE = """
SELECT current_setting('max_connections')::int - current_setting('reserved_connections')::int - current_setting('superuser_reserved_connections')::int
  - (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend')"""
_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"


@pytest.fixture(scope="module")
async def project(tenants: Tenants) -> AsyncGenerator[Project]:
    made = await tenants.project()
    yield made
    await tenants.drop(made)


@dataclass(slots=True)
class Door:
    """A served socket, and clients of it."""

    port: int
    login: Login
    bridge: PostgresBridge
    clients: list[Connection] = field(default_factory=list["Connection"])

    async def connect(self, **more: Any) -> Connection:
        """As a bot: it knows no password."""
        asked: dict[str, Any] = {"user": self.login.user, "database": self.login.database, "timeout": 10, **more}
        client = await asyncpg.connect(host="127.0.0.1", port=self.port, **asked)
        self.clients.append(client)
        return client

    async def say(self, packet: bytes) -> bytes:
        """The answer to raw bytes, to the end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(packet)
        async with asyncio.timeout(10):
            answer = await reader.read()
        writer.close()
        return answer


@pytest.fixture
async def opened(project: Project) -> AsyncGenerator[Open]:
    made: list[tuple[Door, socket.socket]] = []

    async def start(room: Room | None = None, logins: Any = None, **more: Any) -> Door:
        listener = socket.create_server(("127.0.0.1", 0))
        cluster = project.tenants.cluster
        login = Login(cluster.host, cluster.port, project.database, project.names.login("bot"), PASSWORD)

        async def known(_anew: bool) -> Login:
            return login

        bridge = PostgresBridge(listener, project.project_id, logins or known, room or Room(), **more)
        await bridge.start()
        door = Door(listener.getsockname()[1], login, bridge)
        made.append((door, listener))
        return door

    yield start
    for door, listener in made:
        for client in door.clients:
            client.terminate()
        await door.bridge.close()
        listener.close()
    await _gone(project)


async def _gone(project: Project) -> None:
    root = await project.root()

    async def none() -> bool:
        return await root.fetchval(_SESSIONS, project.names.login("bot")) == 0

    await until(none, "no session of the bot is left on the server")
    await project.close()


def packet(*words: str, version: int = 196_608) -> bytes:
    body = struct.pack("!I", version) + b"".join(w.encode() + b"\0" for w in words) + (b"\0" if words else b"")
    return struct.pack("!I", len(body) + 4) + body


@pytest.mark.promise("P8")
async def test_a_bot_works_on_its_database_without_ever_having_a_password(opened: Open) -> None:
    door = await opened()
    client = await door.connect(server_settings={"application_name": "a bot"})
    assert (
        await client.fetchval("SELECT current_setting('application_name') || ' in ' || current_database()")
        == f"a bot in {door.login.database}"
    )
    assert client.get_settings().server_encoding == "UTF8"
    assert await client.fetchval("SELECT pg_backend_pid()") == client.get_server_pid()
    async with client.transaction():
        rows = await client.fetch("SELECT repeat('x', 10000) AS text FROM generate_series(1, 500)")
    assert sum(len(r["text"]) for r in rows) == 5_000_000
    assert await client.fetchval("SELECT length($1)", "y" * 5_000_000) == 5_000_000
    with pytest.raises(asyncpg.UndefinedTableError):
        await client.execute("SELECT * FROM nothing_of_the_kind")
    await client.close()


@pytest.mark.promise("P4")
async def test_another_user_or_database_is_refused_with_the_reason(opened: Open, tenants: Tenants) -> None:
    door = await opened()
    other = Names.fresh()
    for asked in (
        {"user": "postgres"},
        {"database": "postgres"},
        {"user": "loquat_bot_runner"},
        {"user": other.login("bot"), "database": other.database},
    ):
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError, match="one database and one user"):
            await door.connect(**asked)
    assert tenants


@pytest.mark.parametrize(
    ("sent", "code"),
    [
        (packet("user", "x", "replication", "database"), b"C28000"),
        (packet("user", "x", "client_encoding", "LATIN1"), b"C22023"),
        (packet("user", "x", "client_encoding", "UTF8", "Client_Encoding", "EUC_TW"), b"C22023"),
        (packet("user", "x", version=131_072), b"C0A000"),
        (struct.pack("!II", 1 << 30, 196_608), b"C08P01"),
        (b"GET / HTTP/1.1\r\n\r\n", b"C08P01"),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", b"C08P01"),
        (struct.pack("!III", 12, 80_877_102, 1), b"C08P01"),
        (packet(version=80_877_103) * 3, b"C08P01"),
        (struct.pack("!II", 12, 196_608) + b"\xff\xff\0\0", b"C08P01"),
    ],
)
async def test_what_is_no_startup_of_a_bot_is_answered_with_an_error(opened: Open, sent: bytes, code: bytes) -> None:
    answer = (await (await opened()).say(sent)).lstrip(b"N")
    assert answer[:1] == b"E", answer
    assert code in answer


async def test_a_newer_minor_version_is_negotiated_down(opened: Open) -> None:
    door = await opened()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port)
    words = ("user", door.login.user, "database", door.login.database, "_pq_.grease", "x")
    writer.write(packet(*words, version=196_610))
    assert (await reader.readexactly(1)) == b"v"
    size, version, unknown = struct.unpack("!III", await reader.readexactly(12))
    assert (version, unknown, await reader.readexactly(size - 12)) == (196_608, 1, b"_pq_.grease\0")
    assert (await reader.readexactly(1)) == b"R"
    writer.close()


async def test_a_statement_that_the_bot_gives_up_is_cancelled_on_the_server(opened: Open, project: Project) -> None:
    client = await (await opened()).connect()
    with pytest.raises(TimeoutError):
        await client.execute("SELECT pg_sleep(600)", timeout=0.2)
    assert await client.fetchval("SELECT 1") == 1, "the connection lives"
    root = await project.root()
    assert await root.fetchval(_RUNNING, project.names.login("bot")) == 0


async def test_a_cancel_with_a_foreign_key_changes_nothing(opened: Open) -> None:
    door = await opened()
    client = await door.connect()
    sleeping = asyncio.create_task(client.fetchval("SELECT pg_sleep(0.3)::text"))
    assert await door.say(struct.pack("!IIII", 16, 80_877_102, client.get_server_pid(), 12345)) == b""
    assert await sleeping == ""


async def test_a_bot_that_is_killed_leaves_no_statement_behind(opened: Open, project: Project) -> None:
    client = await (await opened()).connect()
    lost = asyncio.create_task(client.execute("SELECT pg_sleep(600)"))
    root, user = await project.root(), project.names.login("bot")

    async def running(wanted: int) -> bool:
        return await root.fetchval(_RUNNING, user) == wanted

    await until(lambda: running(1), "the statement runs")
    client.terminate()
    await until(lambda: running(0), "the server has stopped it")
    await asyncio.gather(lost, return_exceptions=True)


async def test_connections_that_rest_are_closed_and_the_bots_pool_opens_others(opened: Open, project: Project) -> None:
    door = await opened(times=Times(idle=0.2))
    pool = await asyncpg.create_pool(
        host="127.0.0.1", port=door.port, user=door.login.user, database=door.login.database, min_size=1, max_size=1
    )
    first = await pool.fetchval("SELECT pg_backend_pid()")
    root = await project.root()

    async def closed() -> bool:
        return await root.fetchval("SELECT count(*) FROM pg_stat_activity WHERE pid = $1", first) == 0

    await until(closed, "the resting connection is closed")
    assert await pool.fetchval("SELECT pg_backend_pid()") != first
    await pool.close()


async def test_a_transaction_is_no_rest(opened: Open) -> None:
    client = await (await opened(times=Times(idle=0.05))).connect()
    async with client.transaction():
        first = await client.fetchval("SELECT pg_backend_pid()")
        await asyncio.sleep(0.3)
        assert await client.fetchval("SELECT pg_backend_pid()") == first


async def test_a_resting_connection_makes_room_and_a_busy_one_does_not(opened: Open) -> None:
    room = Room(most=1, wait=0.6)
    door = await opened(room)
    resting = await door.connect()
    busy = await door.connect()
    with pytest.raises(
        (asyncpg.ConnectionDoesNotExistError, asyncpg.InterfaceError, asyncpg.InternalClientError, asyncpg.IdleSessionTimeoutError)
    ):
        await resting.fetchval("SELECT 1")
    async with busy.transaction():
        with pytest.raises(asyncpg.TooManyConnectionsError, match="came free"):
            await door.connect()


async def test_in_a_cluster_that_is_full_a_resting_connection_makes_room_and_a_busy_one_is_not_the_bots_fault(
    opened: Open, project: Project
) -> None:
    door, began, cluster = await opened(), time.monotonic(), project.tenants.cluster
    first, crowd = await door.connect(), [await cluster.connect()]
    try:
        free = await crowd[0].fetchval(_FREE)
        crowd += await asyncio.gather(*(cluster.connect() for _ in range(free)))
        with pytest.raises(asyncpg.TooManyConnectionsError, match="reserved"):
            await cluster.connect(project.database, user=door.login.user, password=PASSWORD)
        second = await door.connect()
        assert (first.is_closed(), await second.fetchval("SELECT 1")) == (True, 1)
        await second.execute("BEGIN")
        with pytest.raises(asyncpg.TooManyConnectionsError):
            await door.connect()
        assert door.bridge.away_since(began)
    finally:
        for client in crowd:
            client.terminate()


async def test_a_project_has_a_few_connections_and_no_more(opened: Open) -> None:
    door = await opened(Room(per_project=2))
    kept = [await door.connect() for _ in range(2)]
    waiting = asyncio.create_task(door.connect())
    await kept[0].close()
    assert await (await waiting).fetchval("SELECT 1") == 1, "the one that waited got the place"


async def test_a_changed_password_is_asked_anew_and_the_bot_notices_nothing(opened: Open, project: Project) -> None:
    asked: list[bool] = []
    cluster = project.tenants.cluster

    async def logins(anew: bool) -> Login:
        asked.append(anew)
        secret = PASSWORD if anew else "the one of yesterday"
        return Login(cluster.host, cluster.port, project.database, project.names.login("bot"), secret)

    client = await (await opened(logins=logins)).connect()
    assert await client.fetchval("SELECT 1") == 1
    assert asked == [False, True]


async def test_where_others_could_reach_the_socket_a_ticket_is_shown(opened: Open) -> None:
    door = await opened(ticket="a-ticket")
    for wrong in ({}, {"password": "another"}, {"password": PASSWORD}):
        with pytest.raises((asyncpg.InvalidPasswordError, asyncpg.InterfaceError)):
            await door.connect(**wrong)
    assert await (await door.connect(password="a-ticket")).fetchval("SELECT 1") == 1


async def test_a_cluster_that_is_away_is_told_as_such(opened: Open, project: Project) -> None:
    async def logins(_anew: bool) -> Login:
        return Login("127.0.0.1", 1, project.database, project.names.login("bot"), PASSWORD)

    with pytest.raises(asyncpg.ConnectionFailureError, match="does not answer"):
        await (await opened(logins=logins)).connect()


async def test_a_bot_that_reads_nothing_holds_up_its_own_server_and_fills_nobodys_memory(opened: Open, project: Project) -> None:
    door = await opened()
    reader, writer = await asyncio.open_connection("127.0.0.1", door.port, limit=1 << 16)
    writer.write(packet("user", door.login.user, "database", door.login.database))
    query = b"SELECT repeat('x', 1000000) FROM generate_series(1, 1000)\0"
    writer.write(b"Q" + struct.pack("!I", len(query) + 4) + query)
    root = await project.root()

    async def stuck() -> bool:
        waits = await root.fetchval(
            "SELECT wait_event FROM pg_stat_activity WHERE usename = $1 AND state = 'active'", project.names.login("bot")
        )
        return waits == "ClientWrite"

    await until(stuck, "the server waits for its reader")
    (link,) = door.bridge._links.values()
    assert link._pipe.inner.transport.get_write_buffer_size() < 1 << 20
    assert reader
    writer.transport.abort()


@pytest.mark.promise("P4")
async def test_a_cluster_that_is_away_is_noted_but_not_on_the_word_of_a_connection_with_settings_of_its_own(opened: Open) -> None:
    async def nowhere(_anew: bool) -> Login:
        return Login("127.0.0.1", 1, "d", "u", "x")

    asked: dict[str, Any] = {"user": "u", "database": "d"}
    began, door = time.monotonic(), await opened(logins=nowhere)
    for settings in ({"options": "-c post_auth_delay=60"}, {}):
        assert not door.bridge.away_since(began)
        with pytest.raises(asyncpg.PostgresConnectionError):
            await door.connect(**asked, server_settings=settings)
    assert door.bridge.away_since(began)
    assert not door.bridge.away_since(time.monotonic())
