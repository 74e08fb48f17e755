"""A generator that costs little: bodies signed before the run, raw sockets on uvloop. `python -m bench.load HOST PORT PATH SECRET SECONDS CONNECTIONS NUMBER`.

Prints answers of 200 per second.
"""

from __future__ import annotations

import asyncio
import sys
import time
from typing import cast
from uuid import uuid4

import uvloop

from tests.system import webhooks

BODIES = 90_000  # more than a round uses up: a repeated body would be a repeated event


class Connection(asyncio.Protocol):
    """One request after the other."""

    def __init__(self, requests: list[bytes], stop: float) -> None:
        self._requests, self._stop = requests, stop
        self.good = 0
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is one without saying so
        self._next()

    def _next(self) -> None:
        if time.monotonic() >= self._stop or not self._requests:
            self._transport.close()
            return
        self._transport.write(self._requests.pop())

    def data_received(self, data: bytes) -> None:
        if data.startswith(b"HTTP/1.1"):
            self.good += data.startswith(b"HTTP/1.1 200")
            self._next()

    def connection_lost(self, exc: Exception | None) -> None:
        del exc
        self.ended.set_result(None)


async def main(host: str, port: str, path: str, secret: str, seconds: str, connections: str, number: str) -> None:
    requests = list[bytes]()
    for n in range(BODIES):
        body = webhooks.body(number, messages=[webhooks.text(f"4917{n:07}", f"wamid.{uuid4().hex}", "hello")])
        head = f"POST {path} HTTP/1.1\r\nHost: {host}\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
        requests.append(f"{head}X-Hub-Signature-256: {webhooks.signature(secret, body)}\r\n\r\n".encode() + body)
    loop, stop = asyncio.get_running_loop(), time.monotonic() + float(seconds)
    made = [(await loop.create_connection(lambda: Connection(requests, stop), host, int(port)))[1] for _ in range(int(connections))]
    await asyncio.gather(*(c.ended for c in made))
    print(sum(c.good for c in made) / float(seconds))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))
