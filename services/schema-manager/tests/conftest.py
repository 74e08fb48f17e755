"""A tenant cluster for this package's tests, and one project with the platform's two readers at work on it."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from tests.tenants import Desk, Project, Tenants, open_tenants


@pytest.fixture(scope="session")
async def tenants(clusters_home: Path) -> AsyncGenerator[Tenants]:
    """The cluster, bootstrapped, with the sealed template."""
    opened = await open_tenants(clusters_home / "schema-manager-tenants")
    yield opened
    await opened.close()


@pytest.fixture
async def project(tenants: Tenants) -> AsyncGenerator[Project]:
    """A fresh project for one test."""
    made = await tenants.project()
    yield made
    await tenants.drop(made)


@pytest.fixture
async def desk(project: Project) -> Desk:
    """bot-runner and conversation-log on the test's project."""
    return await Desk.of(project)
