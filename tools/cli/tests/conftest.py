"""The commands against a gateway that a test plays."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from aiohttp.test_utils import TestServer
from loquat_cli.app import build
from loquat_cli.owner import Owner

from tools.cli.tests.played import KEY, Calls, Run, played


@pytest.fixture
async def calls() -> Calls:
    return []


@pytest.fixture
async def gateway(calls: Calls) -> AsyncGenerator[TestServer]:
    async with played(calls) as server:
        yield server


@pytest.fixture
def run(gateway: TestServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Run:
    owner = Owner(
        email="o@example.org",
        password="p",
        api_key=KEY,
        gateway=str(gateway.make_url("")),
        simulator="http://127.0.0.1:1",
        project_id="prj_1",
        phone_number_id="1",
        app_secret="s",
        verify_token="v",
    )
    owner.save(tmp_path / "owner.json")
    monkeypatch.setenv("LOQUAT_HOME", str(tmp_path))

    async def command(*words: str) -> None:
        await build().run_async(words, result_action="return_value", exit_on_error=False)

    return command
