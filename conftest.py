"""Fixtures that every package's tests share: two real PostgreSQL clusters, a bootstrapped control database per test that asks for one."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import asyncpg
import pytest
from hypothesis import HealthCheck, settings
from loquat_common.bootstrap import bootstrap_database, bootstrap_roles, role_of, schema_of
from loquat_common.db import open_pool
from loquat_common.sql import Ident, compose
from loquat_embedded.postgres import Cluster
from loquat_events.catalog import SERVICES, Service
from loquat_sandbox import Measured, Sandbox, measure

from tests.grouping import scheduler, stacks_first
from tests.tenants import Tenants, open_tenants

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

PASSWORD = "a-password-of-tests"
TEMPLATE = "loquat_test_template"

# How long a machine with other work takes says nothing about the code.
settings.register_profile("loquat", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("loquat")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: object) -> object:
    """See `tests.grouping`."""
    return scheduler(config, log)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """See `tests.grouping`."""
    items[:] = stacks_first(items)


@pytest.fixture(scope="session")
def clusters_home() -> Generator[Path]:
    """Not pytest's own folder: only its owner may pass that, and the servers run as somebody else when we are root."""
    with tempfile.TemporaryDirectory(prefix="loquat-test-", ignore_cleanup_errors=True) as folder:
        Path(folder).chmod(0o711)
        yield Path(folder)


@pytest.fixture(scope="session")
async def platform_cluster(clusters_home: Path) -> AsyncGenerator[Cluster]:
    """The cluster of control databases, with the platform's roles and a bootstrapped template."""
    cluster = Cluster(clusters_home / "platform", durable=False, settings={"max_connections": "300"})
    await cluster.start()
    admin = await cluster.connect()
    await bootstrap_roles(admin, dict.fromkeys(SERVICES, PASSWORD))
    await admin.execute(compose("CREATE DATABASE {name}", name=Ident(TEMPLATE)))
    inside = await cluster.connect(TEMPLATE)
    await bootstrap_database(inside)
    await inside.close()
    await admin.close()
    yield cluster
    await cluster.stop()


@pytest.fixture(scope="session")
async def tenants(clusters_home: Path) -> AsyncGenerator[Tenants]:
    """The cluster of project databases, bootstrapped, with the sealed template."""
    opened = await open_tenants(clusters_home / "tenants")
    yield opened
    await opened.close()


@dataclass(slots=True)
class Platform:
    """A control database of its own for one test."""

    cluster: Cluster
    database: str
    pools: list[Pool] = field(default_factory=list["Pool"])

    def dsn(self, service: Service) -> str:
        """A service's login."""
        return self.cluster.dsn(self.database, user=role_of(service), password=PASSWORD)

    async def pool(self, service: Service, *, max_size: int = 8) -> Pool:
        """A service's pool; closed after the test."""
        pool = await open_pool(self.dsn(service), search_path=f"{schema_of(service)}, pg_catalog", max_size=max_size)
        self.pools.append(pool)
        return pool


@pytest.fixture
async def platform(platform_cluster: Cluster) -> AsyncGenerator[Platform]:
    """A fresh control database for one test; `open_platform` makes one for many."""
    async with open_platform(platform_cluster) as made:
        yield made


@asynccontextmanager
async def open_platform(platform_cluster: Cluster) -> AsyncGenerator[Platform]:
    """A fresh control database: roles, schemas and the bus are there, services have not migrated yet."""
    name = f"control_{uuid4().hex[:12]}"
    admin = await platform_cluster.connect()
    await admin.execute(compose("CREATE DATABASE {name} TEMPLATE {template}", name=Ident(name), template=Ident(TEMPLATE)))
    await admin.execute(compose("REVOKE ALL ON DATABASE {name} FROM PUBLIC", name=Ident(name)))
    await admin.execute(compose("GRANT CONNECT ON DATABASE {name} TO loquat_platform", name=Ident(name)))
    await admin.close()
    made = Platform(platform_cluster, name)
    yield made
    for pool in made.pools:
        pool.terminate()
    admin = await platform_cluster.connect()  # a new one: the test may have restarted the cluster
    await admin.execute(compose("DROP DATABASE {name} WITH (FORCE)", name=Ident(name)))
    await admin.close()


@pytest.fixture(scope="session")
async def measured(clusters_home: Path) -> AsyncGenerator[Measured]:
    """The highest isolation level that this machine gives, and what is missing for a higher one."""
    folder = clusters_home / "bundles"
    folder.mkdir()
    found = await measure(folder)
    yield found
    await found.sandbox.close()


@pytest.fixture
def sandbox(measured: Measured) -> Sandbox:
    """Where the bots of tests run."""
    return measured.sandbox


@pytest.fixture
def bundles(measured: Measured, clusters_home: Path) -> Path:
    """A folder whose contents bots can be shown."""
    del measured  # makes the folder above it
    folder = clusters_home / "bundles" / uuid4().hex
    folder.mkdir()
    return folder
