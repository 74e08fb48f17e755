"""One zygote for each level and module."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest
from loquat_sandbox import Level, Limits, Measured, Sandbox, measure

from tests.confined import Say, loaded, printed

LEVELS = [Level.CONFINED, Level.CONTAINED, Level.HARDENED]


@pytest.fixture(scope="module")
def shelf(clusters_home: Path, request: pytest.FixtureRequest) -> Path:
    folder = clusters_home / f"shelf-{request.path.stem}"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module", params=LEVELS, ids=lambda level: level.label)
async def at_level(request: pytest.FixtureRequest, shelf: Path) -> AsyncGenerator[Measured]:
    """A sandbox at exactly this level; what a machine cannot give is said by name."""
    level: Level = request.param
    found = await measure(shelf, level)
    if found.sandbox.level != level:
        await found.sandbox.close()
        pytest.skip(f"this machine does not give isolation level {level:d} ({level.label}): {'; '.join(found.missing)}")
    yield found
    await found.sandbox.close()


@pytest.fixture
def sandbox(at_level: Measured) -> Sandbox:
    return at_level.sandbox


@pytest.fixture
def say(sandbox: Sandbox, shelf: Path) -> Say:
    """What a bot prints that is this code."""

    async def run(code: str, project: str = "prj", limits: Limits | None = None) -> str:
        made = await loaded(sandbox, shelf, code, project, limits or Limits())
        try:
            return await printed(made)
        finally:
            await made.close()

    return run
