"""The baseline: aiohttp on uvloop, a handler that reads the body, checks the HMAC, answers 200. `python -m bench.bare SECRET`."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import sys

import uvloop
from aiohttp import web


async def main(secret: bytes) -> None:
    async def handle(request: web.Request) -> web.Response:
        raw = await request.read()
        signed = "sha256=" + hmac.digest(secret, raw, hashlib.sha256).hex()
        good = hmac.compare_digest(signed, request.headers["X-Hub-Signature-256"])
        return web.Response(status=200 if good else 401)

    app = web.Application(client_max_size=4 << 20)
    app.router.add_post("/", handle)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1].encode()))
