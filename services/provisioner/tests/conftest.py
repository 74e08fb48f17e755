"""One provisioner with a control database of its own."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from services.provisioner.tests.counter import Counter, open_counter
from services.provisioner.tests.workshop import Workshop, open_workshop
from tests.tenants import Tenants

if TYPE_CHECKING:
    from conftest import Platform


@pytest.fixture
async def shop(platform: Platform, tenants: Tenants, tmp_path: Path) -> AsyncGenerator[Workshop]:
    """Nobody has ordered a project yet."""
    async with open_workshop(platform, tenants, tmp_path) as made:
        yield made


@pytest.fixture
async def counter(shop: Workshop) -> AsyncGenerator[Counter]:
    """The owner's API of one ready project."""
    async with open_counter(shop) as opened:
        yield opened
