"""One connector with the simulator as Meta."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from importlib.resources import files
from pathlib import Path
from uuid import uuid4

import pytest
from loquat_common.bus import deferred
from loquat_common.migrate import load, migrate
from loquat_common.sql import Ident, compose
from loquat_embedded.postgres import Cluster

from conftest import TEMPLATE, Platform
from services.connector.tests.office import NUMBER, Office, open_office


@pytest.fixture(scope="session")
async def control(platform_cluster: Cluster) -> AsyncGenerator[Platform]:
    """A control database for all tests of this service: each empties its tables, which is quicker than another database."""
    made = Platform(platform_cluster, f"control_{uuid4().hex[:12]}")
    admin, name = await platform_cluster.connect(), Ident(made.database)
    await admin.execute(compose("CREATE DATABASE {name} TEMPLATE {template}", name=name, template=Ident(TEMPLATE)))
    await admin.close()
    async with (await made.pool("connector")).acquire() as connection:
        await migrate(connection, schema="connector", component="bus", migrations=deferred.migrations())
        await migrate(connection, schema="connector", component="connector", migrations=load(files("loquat_connector.migrations")))
    yield made
    for pool in made.pools:
        pool.terminate()
    admin = await platform_cluster.connect()  # a new one: another service's test may have restarted the cluster
    await admin.execute(compose("DROP DATABASE {name} WITH (FORCE)", name=name))
    await admin.close()


@pytest.fixture
async def bare_office(control: Platform, tmp_path: Path) -> AsyncGenerator[Office]:
    """Nobody has connected a number."""
    async with open_office(control, tmp_path) as made:
        yield made


@pytest.fixture
async def office(bare_office: Office) -> Office:
    """One project with one number."""
    await bare_office.attach(NUMBER)
    return bare_office
