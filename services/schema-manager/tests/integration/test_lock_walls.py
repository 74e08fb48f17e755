"""Locks that Postgres waits for before it asks whether one may have them: a tenant keeps nobody waiting by them, with no reaper at work."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Final

import asyncpg
import pytest

from tests.tenants import Desk, Project, Tenants, message

FREE: Final = "SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0; SET lock_timeout = 0"
"""A tenant's limits are his to set aside."""
ROOF: Final = "CREATE TABLE roof (LIKE public.messages) PARTITION BY LIST (direction)"
LONGEST: Final = 2.0
"""Seconds: the platform's own lock time-out, which it must not reach. A tenant's waits are bounded to less than that of commit_run, and still less for what is shared."""


@pytest.fixture
async def neighbour(tenants: Tenants) -> AsyncGenerator[Project]:
    made = await tenants.project()
    yield made
    await tenants.drop(made)


@asynccontextmanager
async def ambush(project: Project, hold: str, want: str) -> AsyncGenerator[None]:
    """One session holds a weak lock, another one waits for a strong one, again and again; who comes meanwhile stands behind it."""
    holder, waiter, begun, over = await project.login("bot"), await project.login("editor"), asyncio.Event(), asyncio.Event()
    await holder.execute(f"{FREE}; BEGIN; {hold}")
    await waiter.execute(FREE)
    refused = list[str]()

    async def wait() -> None:
        while not over.is_set():
            begun.set()
            try:
                await waiter.execute(want)
            except asyncpg.PostgresError as error:
                refused.append(error.sqlstate)

    waiting = asyncio.create_task(wait())
    try:
        await begun.wait()
        yield
    finally:
        over.set()
        await asyncio.wait([waiting])
        await holder.execute("ROLLBACK")
    assert set(refused) == {asyncpg.LockNotAvailableError.sqlstate}, "it waited each time, and never had it"


@pytest.mark.promise("P4")
@pytest.mark.parametrize(
    ("catalog", "want"),
    [
        ("pg_database", "CREATE RULE r AS ON INSERT TO {} DO INSTEAD NOTHING"),
        ("pg_authid", "ALTER TABLE roof ATTACH PARTITION {} DEFAULT"),
        ("pg_db_role_setting", "CREATE RULE r AS ON INSERT TO {} DO INSTEAD NOTHING"),
        ("pg_auth_members", "ALTER TABLE roof ATTACH PARTITION {} DEFAULT"),
    ],
)
async def test_a_tenant_keeps_nobody_out_of_the_cluster_by_a_lock_on_what_is_shared(
    project: Project, neighbour: Project, catalog: str, want: str
) -> None:
    await (await project.login("direct")).execute(ROOF)
    hold, want = f"PREPARE p AS SELECT FROM pg_catalog.{catalog}", want.format(f"pg_catalog.{catalog}")
    async with ambush(project, hold, want), asyncio.timeout(LONGEST):
        for _ in range(4):
            assert await (await neighbour.login("bot")).fetchval("SELECT 1") == 1


@pytest.mark.promise("P5")
@pytest.mark.parametrize(
    ("hold", "want"),
    [
        ("PREPARE p AS UPDATE public.messages SET text = ''", "CREATE TRIGGER t BEFORE INSERT ON public.messages EXECUTE FUNCTION pg_catalog.suppress_redundant_updates_trigger()"),
        ("PREPARE p AS DELETE FROM public.contacts", "CREATE TABLE linked (contact uuid REFERENCES public.contacts)"),
        ("SELECT FROM public.conversations", "ALTER TABLE roof ATTACH PARTITION public.conversations DEFAULT"),
        ("PREPARE p AS SELECT FROM loquat.events", "ALTER TABLE roof ATTACH PARTITION loquat.events DEFAULT"),
        ("PREPARE p AS SELECT FROM loquat.addresses", "CREATE RULE r AS ON INSERT TO loquat.addresses DO INSTEAD NOTHING"),
    ],
    ids=["trigger", "foreign key", "partition", "partition of loquat", "rule"],
)  # fmt: skip
async def test_a_tenant_keeps_the_platform_from_no_system_table(project: Project, desk: Desk, hold: str, want: str) -> None:
    await (await project.login("direct")).execute(ROOF)
    await desk.record(message("user_id:u1"))
    async with ambush(project, hold, want), asyncio.timeout(LONGEST):
        await desk.run(message("user_id:u2"), replies=[{"type": "text", "text": "x"}])


async def test_a_shorter_time_out_of_the_tenants_own_is_kept_and_a_longer_one_is_not(project: Project) -> None:
    bot = await project.login("bot")
    for given, expected in (("0", "1s"), ("5s", "1s"), ("300ms", "300ms"), ("1s", "1s"), ("1d", "1s")):
        await bot.execute(f"SET lock_timeout = '{given}'; BEGIN; CREATE TABLE any_table (a int)")
        assert await bot.fetchval("SELECT current_setting('lock_timeout')") == expected
        await bot.execute("ROLLBACK")


async def test_the_platforms_own_migrations_wait_as_they_say(project: Project) -> None:
    manager = await project.service("schema-manager")
    await manager.execute("SET ROLE loquat_system; SET lock_timeout = '3s'; BEGIN; COMMENT ON TABLE public.contacts IS 'x'")
    assert await manager.fetchval("SELECT current_setting('lock_timeout')") == "3s"
    await manager.execute("ROLLBACK")
