"""Tables as the API shows them."""

from __future__ import annotations

from collections.abc import AsyncGenerator

import pytest
from loquat_schema_manager.http.tables import Tables

from tests.desk import Desk, open_desk
from tests.tenants import Project


@pytest.fixture
async def data(project: Project) -> AsyncGenerator[Desk]:
    async with open_desk(project, lambda api, editors, _bus: Tables(editors).add_to(api)) as made:
        yield made


async def test_tables_of_the_system_the_bot_and_the_person_stand_in_one_list(data: Desk) -> None:
    await (await data.bot()).execute("CREATE TABLE bookings (id uuid PRIMARY KEY)")
    names = [t["name"] for t in (await data.good("GET", "/tables"))["items"]]
    assert names == ["bookings", "contacts", "conversations", "messages"]
