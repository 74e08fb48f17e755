"""One project of the tenant cluster with the platform's two readers at work on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib.resources import files
from typing import TYPE_CHECKING

import pytest
from loquat_common.migrate import load, migrate
from loquat_schema_manager.adapters.store import Store

from tests.tenants import Desk, Project, Tenants

if TYPE_CHECKING:
    from conftest import Platform


@pytest.fixture(scope="session")
async def shared_project(tenants: Tenants) -> Project:
    """One project for all tests that leave its schema alone."""
    return await tenants.project()


@pytest.fixture
async def project(shared_project: Project) -> AsyncGenerator[Project]:
    """An empty project for one test."""
    yield shared_project
    await shared_project.wipe()


@pytest.fixture
async def desk(project: Project) -> Desk:
    """bot-runner and conversation-log on the test's project."""
    return await Desk.of(project)


@pytest.fixture
async def store(platform: Platform) -> Store:
    """schema-manager's rows in a fresh control database, without chance."""
    pool = await platform.pool("schema-manager")
    async with pool.acquire() as connection:
        migrations = load(files("loquat_schema_manager.migrations"))
        await migrate(connection, schema="schema_manager", component="schema-manager", migrations=migrations)
    return Store(pool, lambda: 0.0)
