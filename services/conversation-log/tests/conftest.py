"""Two projects of the tenant cluster, and connections as the conversation-log has them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from loquat_common.db import ProjectPools, as_service
from loquat_common.settings import ClusterAddress
from pydantic import SecretStr

from tests.tenants import PASSWORD, Project, Tenants


@pytest.fixture(scope="session")
async def two_projects(tenants: Tenants) -> tuple[Project, Project]:
    """Made once: each test leaves their schema alone."""
    return await tenants.project(), await tenants.project()


@pytest.fixture
async def project(two_projects: tuple[Project, Project]) -> AsyncGenerator[Project]:
    """An empty project."""
    yield two_projects[0]
    await two_projects[0].wipe()


@pytest.fixture
async def neighbour(two_projects: tuple[Project, Project]) -> AsyncGenerator[Project]:
    """Another one beside it."""
    yield two_projects[1]
    await two_projects[1].wipe()


@pytest.fixture
async def pools(tenants: Tenants) -> AsyncGenerator[ProjectPools]:
    """As in the service's own wiring."""
    address = ClusterAddress(host=tenants.cluster.host, port=tenants.cluster.port, password=SecretStr(PASSWORD))
    made = ProjectPools(as_service({"tenants": address}, "loquat_conversation_log"), cap=20)
    yield made
    await made.close()
