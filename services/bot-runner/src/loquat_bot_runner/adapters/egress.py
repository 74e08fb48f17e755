"""The way from a worker to the outside: an HTTP proxy that knows CONNECT, on a listening socket that only this worker can reach.

It looks the name up itself, and connects to the address that it has checked: a second look-up could be answered differently.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from ipaddress import ip_address
from typing import Final

from loquat_common import metrics

from loquat_bot_runner.adapters.listening import Listening
from loquat_bot_runner.adapters.mediadoor import NAME, MediaDoor
from loquat_bot_runner.adapters.pipe import Opening, Pipe, farewell
from loquat_bot_runner.domain.budget import Budget
from loquat_bot_runner.domain.destinations import Address, Destination, Guard, Policy, Refused, destination, permitted
from loquat_bot_runner.domain.pace import Pace

_HEAD: Final = 8 << 10  # bytes of a request's head
_HEAD_LIMIT: Final = 10.0  # seconds for all of it
_LOOKUP_LIMIT: Final = 5.0
_CONNECT_LIMIT: Final = 3.0  # to one address: one that is silent must not keep us from the next
_TRIED: Final = 4  # addresses
_LOOKUPS: Final = 8  # threads that wait for name servers, of all projects
_LOOKUPS_OF_ONE: Final = 2  # a project whose name server never answers keeps no others waiting
_CONNECTIONS: Final = 16  # of one worker at once; more wait in the kernel
_RATE, _BURST = 10_000.0, 2_500.0  # reads a second, both ways

PolicyOf = Callable[[str], Awaitable[Policy]]
"""A project's policy; raises Refused where nobody knows."""
Lookup = Callable[[str], Awaitable[Sequence[str]]]
"""The addresses of a name, as text; raises OSError."""


@dataclass(frozen=True, slots=True)
class Visit:
    """A connection that a bot made or wanted. `outcome`: ok, spent, late, lost, or why there was none."""

    host: str
    port: int
    sent: int
    received: int
    outcome: str


MediaOf = Callable[[Callable[[], int], Callable[[int], None]], MediaDoor]
"""A worker's door to files, given what says how many bytes are left, and what counts them."""
See = Callable[[str, Visit], None]
"""Takes note of a project's visit."""


async def closed(_project: str) -> Policy:
    """Nothing is open."""
    return Policy()


def unseen(_project: str, _visit: Visit) -> None:
    """Nobody takes note."""


class Names:
    """The machine's resolver, in threads of its own: a name server that does not answer keeps nobody else's work waiting."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(_LOOKUPS, "names")

    async def lookup(self, name: str) -> list[str]:
        """See `Lookup`. The name is taken as it is: no search domain of ours is tried."""
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: socket.getaddrinfo(f"{name}.", None, type=socket.SOCK_STREAM)
        )
        return list(dict.fromkeys(str(answer[4][0]) for answer in found))

    def close(self) -> None:
        """Waits for nobody."""
        self._threads.shutdown(wait=False, cancel_futures=True)


@dataclass(slots=True)
class Outside:
    """What all proxies of a runner share; a test lets a server of its own be the outside."""

    lookup: Lookup
    guard: Guard = field(default_factory=Guard)
    budget: Budget = field(default_factory=Budget)
    itself: Callable[[Address], bool] = field(default_factory=lambda: _is_ours)
    most: int = 1_000
    _open: int = field(init=False, default=0)

    @contextmanager
    def place(self) -> Generator[None]:
        """For one of at most `most` connections: each costs this process two descriptors.

        Raises:
            Refused: there is none.
        """
        if self._open >= self.most:
            raise Refused("busy", "the platform has too many connections to the outside now; try again")
        self._open += 1
        try:
            yield
        finally:
            self._open -= 1


class Egress:
    """Serves one worker's socket."""

    def __init__(
        self, listener: socket.socket, project: str, policy: PolicyOf, outside: Outside, seen: See, media: MediaOf | None = None
    ) -> None:
        self._project, self._policy, self._outside, self._seen = project, policy, outside, seen
        self._listening = Listening(listener, self._serve, most=_CONNECTIONS, name="bot egress")
        self._lookups, self._pace = asyncio.Semaphore(_LOOKUPS_OF_ONE), Pace(_RATE, _BURST)
        self._media = media(lambda: self._left(Policy()), self._moved) if media is not None else None

    async def start(self) -> None:
        """Accepts from now on."""
        self._listening.start()

    async def close(self) -> None:
        """Ends all connections."""
        await self._listening.close()
        if self._media is not None:
            await self._media.close()

    async def _serve(self, connection: socket.socket) -> None:
        opening = Opening(_HEAD)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        transport, _ = await asyncio.get_running_loop().connect_accepted_socket(lambda: opening, connection)
        try:
            if (refusal := await self._answer(opening)) is not None:
                transport.write(refusal)
                await farewell(transport, opening)
        finally:
            transport.abort() if transport.get_write_buffer_size() == 0 else transport.close()

    async def _answer(self, opening: Opening) -> bytes | None:
        """Serves the request; what is to be answered if it is refused."""
        try:
            async with asyncio.timeout(_HEAD_LIMIT):
                head = await _head(opening)
            if head is None:
                return None
            if self._media is not None and _is_for(NAME, head):
                return await self._file(self._media, opening)
            line = _target(opening, head)
        except TimeoutError:
            return _response(HTTPStatus.REQUEST_TIMEOUT, f"the request was not complete within {_HEAD_LIMIT:g} s")
        except _BadRequest as bad:
            return _response(bad.status, bad.reason)
        wanted = Destination("", 0)
        try:
            wanted = destination(line)
            policy = await self._policy(self._project)
            with self._outside.place():
                await self._forward(opening, await self._connected(wanted, policy), wanted, policy)
        except Refused as refused:
            self._note(wanted if wanted.port else Destination(line[:100], 0), refused.outcome)
            status = (
                HTTPStatus.BAD_GATEWAY if refused.outcome in {"unknown", "unreachable", "unavailable", "busy"} else HTTPStatus.FORBIDDEN
            )
            return _response(status, refused.reason)
        return None

    async def _file(self, media: MediaDoor, opening: Opening) -> bytes | None:
        try:
            with self._outside.place():  # the connector's end costs a descriptor, too
                await media.take(opening, self._pace)
        except Refused as busy:
            return _response(HTTPStatus.BAD_GATEWAY, busy.reason)
        return None

    async def _connected(self, wanted: Destination, policy: Policy) -> asyncio.Transport:
        permitted(policy, wanted)
        if self._left(policy) <= 0:
            raise Refused("spent", f"the bot has moved {policy.hour_bytes} bytes in this hour; that is its limit")
        found = await self._addresses(wanted)
        self._outside.guard.check(wanted, found)
        if any(self._outside.itself(a) for a in found):
            raise Refused("private", f"{wanted.host} is this platform itself")
        return await _dial(wanted, found)

    async def _addresses(self, wanted: Destination) -> list[Address]:
        if (literal := wanted.address) is not None:
            return [literal]
        try:
            async with asyncio.timeout(_LOOKUP_LIMIT), self._lookups:
                return [ip_address(text) for text in await self._outside.lookup(wanted.host)]
        except TimeoutError:
            raise Refused("unknown", f"no name server told within {_LOOKUP_LIMIT:g} s what {wanted.host} stands for") from None
        except (OSError, ValueError):
            raise Refused("unknown", f"{wanted.host} is not known to the name servers") from None

    def _left(self, policy: Policy) -> int:
        return policy.hour_bytes - self._outside.budget.spent(self._project, asyncio.get_running_loop().time())

    async def _forward(self, opening: Opening, outer: asyncio.Transport, wanted: Destination, policy: Policy) -> None:
        opening.transport.pause_reading()
        pipe = Pipe(opening.transport, outer, self._pace, min(policy.connection_bytes, self._left(policy)))
        outcome = "lost"
        try:
            opening.transport.write(b"HTTP/1.1 200 Connected\r\n\r\n")
            pipe.open(bytes(opening.buffer))
            async with asyncio.timeout(policy.connection_seconds):
                await pipe.both_are_over()
            outcome = "spent" if pipe.spent else "ok"
        except TimeoutError:
            outcome = "late"
        finally:
            outer.abort()
            self._moved(pipe.inner.passed + pipe.outer.passed)
            self._note(wanted, outcome, pipe.inner.passed, pipe.outer.passed)

    def _moved(self, count: int) -> None:
        self._outside.budget.spend(self._project, count, asyncio.get_running_loop().time())

    def _note(self, wanted: Destination, outcome: str, sent: int = 0, received: int = 0) -> None:
        metrics.bot_egress.labels(outcome).inc()
        metrics.bot_egress_bytes.labels("sent").inc(sent)
        metrics.bot_egress_bytes.labels("received").inc(received)
        self._seen(self._project, Visit(wanted.host, wanted.port, sent, received, outcome))


class _BadRequest(Exception):
    """What came is no request that is served."""

    def __init__(self, status: HTTPStatus, reason: str) -> None:
        super().__init__(reason)
        self.status, self.reason = status, reason


async def _head(opening: Opening) -> bytes | None:
    """All lines of a request before its body, which stay in the buffer; None: the client went."""
    while (end := opening.buffer.find(b"\r\n\r\n", 0, _HEAD)) < 0:
        if len(opening.buffer) >= _HEAD:
            raise _BadRequest(HTTPStatus.BAD_REQUEST, f"the head of a request has at most {_HEAD} bytes")
        if not await opening.more():
            return None
    return bytes(opening.buffer[: end + 4])


def _is_for(name: str, head: bytes) -> bool:
    """Whether this is a plain request to a server of that name."""
    return head.split(b" ", 2)[1:2] != [] and head.split(b" ", 2)[1].lower().startswith(f"http://{name}/".encode())


def _target(opening: Opening, head: bytes) -> str:
    """Where the client wants to go. What follows the head stays in the buffer."""
    words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
    del opening.buffer[: len(head)]
    if len(words) != 3 or not words[2].startswith("HTTP/1."):  # noqa: PLR2004  (method, target, version)
        raise _BadRequest(HTTPStatus.BAD_REQUEST, "this is no request of HTTP/1")
    if words[0] != "CONNECT":
        raise _BadRequest(
            HTTPStatus.METHOD_NOT_ALLOWED, "this proxy knows CONNECT only: use https://, or let the client tunnel http:// too"
        )
    return words[1]


def _response(status: HTTPStatus, reason: str) -> bytes:
    """Many clients show of a refused CONNECT what stands behind the status and nothing else: the reason stands there too."""
    phrase = " ".join(reason.encode("ascii", "replace").decode().split())
    body = f"{reason}\n".encode()
    allow = "Allow: CONNECT\r\n" if status == HTTPStatus.METHOD_NOT_ALLOWED else ""
    head = f"HTTP/1.1 {status.value} {phrase}\r\n{allow}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    return f"{head}Connection: close\r\n\r\n".encode() + body


async def _dial(wanted: Destination, found: Sequence[Address]) -> asyncio.Transport:
    """To the first of the checked addresses that answers."""
    loop = asyncio.get_running_loop()
    for address in found[:_TRIED]:
        try:
            async with asyncio.timeout(_CONNECT_LIMIT):
                transport, _ = await loop.create_connection(lambda: Opening(_HEAD), address.compressed, wanted.port)
        except OSError:  # a time-out is one
            continue
        transport.pause_reading()
        return transport
    raise Refused("unreachable", f"{wanted.host} does not answer on port {wanted.port}")


def _is_ours(address: Address) -> bool:
    """Whether the address is one of this machine's: the kernel would then send from it. No packet leaves."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004  (IPv4)
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.connect((address.compressed, 9))
            return probe.getsockname()[0] == address.compressed
    except OSError:
        return False  # there is no way to it at all: dialling says so
