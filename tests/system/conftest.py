"""One stack per engine for all system tests: the real services as processes, real databases, the simulator as Meta."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator
from dataclasses import dataclass
from pathlib import Path

import aiohttp
import pytest
from loquat_cli.restarts import Restarts
from loquat_cli.settings import StackSettings
from loquat_cli.stack import Stack

from tests.system.engines import ENGINES
from tests.system.world import World


@dataclass(slots=True)
class Running:
    """A stack, and ways to make its processes die at a named point."""

    stack: Stack
    world: World
    points: Path

    def arm(self, point: str) -> None:
        """The next process that passes the point dies there."""
        (self.points / point).touch()

    def fired(self, point: str) -> bool:
        """Whether somebody died there since it was armed."""
        return not (self.points / point).exists() and any(self.points.glob(f"{point}.*.fired"))


@pytest.fixture(scope="session", params=ENGINES)
async def running(request: pytest.FixtureRequest) -> AsyncGenerator[Running]:
    """A stack on one engine."""
    with tempfile.TemporaryDirectory(prefix="loquat-system-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        points = home / "failpoints"
        points.mkdir()
        settings = StackSettings.for_tests(home, bus=request.param, failpoints_dir=points, drain_seconds=5)
        quick = {"*": {"LOQUAT_BUS_LEASE": "3"}, "connector": {"LOQUAT_MOVING_REST": "6"}}  # what crashes and moves cost
        async with (
            Stack(settings, overrides=quick, restarts=Restarts(first=0.05, longest=0.5), with_demo=False) as stack,
            aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session,
        ):
            owner = stack.owner
            world = World(
                gateway=owner.gateway,
                simulator=owner.simulator,
                api_key=owner.api_key,
                app_secret=owner.app_secret,
                verify_token=owner.verify_token,
                tenants=stack.tenants.connect,
                session=session,
            )
            yield Running(stack, world, points)


@pytest.fixture
async def world(running: Running) -> AsyncGenerator[World]:
    """The stack from outside; connections to databases are closed after the test, however it ends."""
    yield running.world
    while running.world.opened:
        await running.world.opened.pop().close()


@pytest.fixture(scope="session")
async def killed(running: Running) -> tuple[str, str]:
    """A project and its number for all tests that kill something."""
    project = await running.world.project("killed", {"bot.py": (Path(__file__).parent / "bots" / "echo.py").read_text()})
    return project, await running.world.number(project)
