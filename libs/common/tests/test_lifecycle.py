"""The life of a process: order of start and stop, drains first, deaths noticed; health says what is wrong."""

from __future__ import annotations

import asyncio
import os
import signal
import sys

import pytest
from aiohttp import ClientSession, web
from aiohttp.test_utils import TestClient, TestServer
from loquat_common.health import Health
from loquat_common.lifecycle import Lifecycle, Server


class Resource:
    def __init__(self, name: str, acts: list[str], *, fails: bool = False) -> None:
        self._name, self._acts, self._fails = name, acts, fails

    async def start(self) -> None:
        self._acts.append(f"start {self._name}")
        if self._fails:
            raise ConnectionError(self._name)

    async def stop(self) -> None:
        self._acts.append(f"stop {self._name}")

    async def drain(self, limit: float) -> bool:
        self._acts.append(f"drain {self._name} {limit:g}")
        return True


async def test_what_started_first_stops_last_and_drains_come_before_any_stop() -> None:
    acts: list[str] = []
    one, two = Resource("one", acts), Resource("two", acts)
    async with Lifecycle(3) as life:
        await life.enter("one", one.start, one.stop)
        await life.enter("two", two.start, two.stop)
        life.on_drain("two", two.drain)
    assert acts == ["start one", "start two", "drain two 3", "stop two", "stop one"]


async def test_a_start_that_fails_unwinds_what_was_started() -> None:
    acts: list[str] = []
    one, two = Resource("one", acts), Resource("two", acts, fails=True)
    with pytest.raises(ConnectionError, match="two"):
        async with Lifecycle(1) as life:
            await life.enter("one", one.start, one.stop)
            await life.enter("two", two.start, two.stop)
    assert acts == ["start one", "start two", "stop two", "stop one"]


async def test_the_death_of_a_task_ends_the_process_with_its_error() -> None:
    async def dies() -> None:
        raise ArithmeticError("seven")

    with pytest.raises(ArithmeticError, match="seven"):
        async with asyncio.timeout(5), Lifecycle(1) as life:
            life.spawn("dies", dies())
            await life.until_signalled()


async def test_sigterm_ends_the_wait_and_running_tasks_are_cancelled() -> None:
    ended: list[str] = []

    async def runs() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("runs")

    async with asyncio.timeout(5), Lifecycle(1) as life:
        life.spawn("runs", runs())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await life.until_signalled()
    assert ended == ["runs"]


async def test_a_start_that_waits_for_a_task_ends_with_the_tasks_error_when_that_dies() -> None:
    acts: list[str] = []

    async def dies() -> None:
        raise ConnectionError("the broker is away")

    one = Resource("one", acts)
    with pytest.raises(ConnectionError, match="the broker is away"):
        async with asyncio.timeout(5), Lifecycle(1) as life:
            await life.enter("one", one.start, one.stop)
            life.spawn("table", dies())
            await life.until(asyncio.Event().wait())
    assert acts == ["start one", "stop one"]


async def test_a_signal_during_a_start_that_waits_unwinds_it_and_is_no_error() -> None:
    acts: list[str] = []
    one = Resource("one", acts)
    async with asyncio.timeout(5), Lifecycle(1) as life:
        await life.enter("one", one.start, one.stop)
        life.spawn("table", asyncio.Event().wait())
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await life.until(asyncio.Event().wait())
        acts.append("went on")
    assert acts == ["start one", "stop one"]


async def test_a_start_that_waits_goes_on_with_what_it_waited_for() -> None:
    async def seven() -> int:
        return 7

    async with asyncio.timeout(5), Lifecycle(1) as life:
        life.spawn("table", asyncio.Event().wait())
        assert await life.until(seven()) == 7


_HANGS = """
import asyncio, os, signal
from loquat_common import lifecycle
lifecycle._WATCHDOG = 0.05

async def main():
    async with lifecycle.Lifecycle(0.05):
        asyncio.get_running_loop().call_soon(os.kill, os.getpid(), signal.SIGTERM)
        await asyncio.Event().wait()

asyncio.run(main())
"""


async def test_a_signal_ends_a_start_that_hangs_in_the_end() -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _HANGS, stdout=asyncio.subprocess.DEVNULL)
    try:
        async with asyncio.timeout(30):
            assert await process.wait() == 70
    finally:
        if process.returncode is None:
            process.kill()


async def test_a_resource_that_fails_to_stop_does_not_keep_the_others_open() -> None:
    acts: list[str] = []

    async def nothing() -> None:
        return

    async def fails() -> None:
        raise OSError("stuck")

    one = Resource("one", acts)
    async with Lifecycle(1) as life:
        await life.enter("one", one.start, one.stop)
        await life.enter("bad", nothing, fails)
    assert acts == ["start one", "stop one"]


async def test_a_server_takes_a_free_port_and_says_which() -> None:
    app = web.Application()
    server = Server(app, "127.0.0.1", 0)
    await server.start()
    try:
        async with ClientSession() as session, session.get(f"http://127.0.0.1:{server.port}/") as response:
            assert response.status == 404
    finally:
        await server.stop()


async def test_readiness_names_what_is_wrong_while_liveness_stays() -> None:
    async def good() -> None:
        return

    async def bad() -> None:
        raise ConnectionRefusedError("secret host")

    health = Health()
    health.add("bus", good)
    health.note("isolation", "level 0")
    async with TestClient(TestServer(health.app())) as client:
        assert (await client.get("/readyz")).status == 200
        health.add("database", bad)
        response = await client.get("/readyz")
        body = await response.json()
        assert (response.status, body["checks"]) == (503, {"bus": "ok", "database": "ConnectionRefusedError"})
        assert body["facts"] == {"isolation": "level 0"}
        assert (await client.get("/livez")).status == 200
        assert "loquat_pool_connections" in await (await client.get("/metrics")).text()
