"""`loquat up` as a newcomer meets it: real processes, one folder, started, talked to, killed, stopped, started again."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from loquat_embedded.child import alive, gone

PATIENCE = 60.0
OWNER_KEYS = {"email", "password", "api_key", "gateway", "simulator", "project_id", "phone_number_id", "app_secret", "verify_token"}
PORTS = ("PLATFORM_PORT", "TENANTS_PORT", "GATEWAY_PORT", "SIMULATOR_PORT", "INTERNAL_PORTS", "KAFKA_PORT")


class Newcomer:
    """Somebody at a terminal."""

    def __init__(self, home: Path) -> None:
        self.home = home
        ports = {f"LOQUAT_{p}": "0" for p in PORTS}
        quick = {"LOQUAT_DURABLE": "false", "LOQUAT_BUS_LEASE": "2"}  # a killed service's work is free for its successor after the lease
        self._environment = {**os.environ, **ports, **quick, "LOQUAT_HOME": str(home)}

    async def start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "loquat_cli",
            *words,
            env=self._environment,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )

    async def run(self, *words: str) -> tuple[int | None, str]:
        process = await self.start(*words)
        async with asyncio.timeout(PATIENCE):
            out, _ = await process.communicate()
        return process.returncode, out.decode()

    @asynccontextmanager
    async def up(self) -> AsyncGenerator[asyncio.subprocess.Process]:
        process = await self.start("up")
        assert process.stdout is not None
        said = b""
        try:
            async with asyncio.timeout(PATIENCE):
                while b"Loquat is up" not in said:
                    line = await process.stdout.readline()
                    assert line, said.decode()
                    said += line
            yield process
        finally:
            if process.returncode is None:
                process.terminate()
                async with asyncio.timeout(PATIENCE):
                    await process.wait()

    def read(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / name).read_text())
        return found

    def pids(self) -> dict[str, int]:
        return {name: p["pid"] for name, p in self.read("state.json")["processes"].items()}


@pytest.fixture
def newcomer() -> Generator[Newcomer]:
    with tempfile.TemporaryDirectory(prefix="loquat-up-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Newcomer(Path(folder) / "home")


async def all_gone(pids: dict[str, int]) -> None:
    async with asyncio.timeout(PATIENCE):
        for pid in pids.values():
            await gone(pid)


async def test_it_starts_is_talked_to_survives_a_kill_stops_and_finds_its_data_again(newcomer: Newcomer) -> None:
    async with newcomer.up() as process:
        owner = newcomer.read("owner.json")
        assert set(owner) == OWNER_KEYS
        assert all(owner.values())
        assert (newcomer.home / "owner.json").stat().st_mode & 0o777 == 0o600
        code, said = await newcomer.run("say", "hello")
        assert code == 0, said

        code, said = await newcomer.run("up")
        assert code == 1
        assert f"already runs in {newcomer.home} (process {process.pid})" in said

        before = newcomer.pids()
        for name in ("bot-runner", "platform"):
            os.kill(before[name], signal.SIGKILL)
        code, said = await newcomer.run("say", "are you still there?", "--wait", "30")
        assert code == 0, said
        code, said = await newcomer.run("status")
        assert code == 0, said
        assert "killed by SIGKILL" in said
        after = newcomer.pids()
        assert {n for n in before if before[n] != after[n]} >= {"bot-runner", "platform"}

        process.send_signal(signal.SIGINT)
        async with asyncio.timeout(PATIENCE):
            assert await process.wait() == 0
        assert not [n for n, pid in after.items() if alive(pid)]
        assert (await newcomer.run("status"))[0] == 3

    async with newcomer.up() as process:
        again = newcomer.read("owner.json")
        assert {k: again[k] for k in OWNER_KEYS - {"gateway", "simulator"}} == {k: owner[k] for k in OWNER_KEYS - {"gateway", "simulator"}}
        code, said = await newcomer.run("say", "hello again")
        assert code == 0, said
        code, said = await newcomer.run("project", "list")
        assert said.count("prj_") == 1

        pids = newcomer.pids()
        process.kill()
        await process.wait()
        await all_gone(pids)


async def test_a_busy_port_is_told_before_anything_is_started(newcomer: Newcomer) -> None:
    async def nobody(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    server = await asyncio.start_server(nobody, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    newcomer._environment["LOQUAT_GATEWAY_PORT"] = str(port)
    code, said = await newcomer.run("up")
    server.close()
    assert code == 1
    assert f"port {port}, for the gateway, is taken by another program: end that, or set LOQUAT_GATEWAY_PORT" in said
    assert not (newcomer.home / "platform").exists()


async def test_a_setting_that_cannot_be_is_named(newcomer: Newcomer) -> None:
    newcomer._environment["LOQUAT_GATEWAY_PORT"] = "many"
    code, said = await newcomer.run("up")
    assert code == 1
    assert "LOQUAT_GATEWAY_PORT: Input should be a valid integer" in said
