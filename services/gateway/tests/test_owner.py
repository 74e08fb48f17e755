"""The first owner: made once, by whoever holds the key already."""

from __future__ import annotations

from importlib.resources import files

from loquat_common.migrate import load, migrate
from loquat_gateway.adapters.people import Owner, People
from loquat_gateway.domain.scopes import ALL

from conftest import Platform


async def test_an_owner_is_made_once_found_again_by_its_key_and_kept_from_others(platform: Platform) -> None:
    """Who noted the key and died before the answer came asks again with it."""
    pool = await platform.pool("gateway")
    async with pool.acquire() as connection:
        await migrate(connection, schema="gateway", component="gateway", migrations=load(files("loquat_gateway.migrations")))
    people, owner = People(pool), Owner.fresh("owner@example.org")
    assert await people.create_owner(owner, ALL)
    assert await people.create_owner(owner, ALL)
    assert not await people.create_owner(Owner.fresh("another@example.org"), ALL)
    assert await pool.fetchval("SELECT count(*) FROM users") == 1
    holder = await people.holder(owner.api_key)
    assert holder is not None
    assert holder.scopes == frozenset(ALL)
    assert await people.holder(Owner.fresh("x").api_key) is None
