"""The owner's direct connection: closed until it is asked for, shown once, rotated, revoked; its password is kept nowhere."""

from __future__ import annotations

import asyncio
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from loquat_common.bus.port import Done
from loquat_events.projects import AccessChanged

from services.provisioner.tests.counter import SHOWN, USER, Counter, open_counter
from services.provisioner.tests.workshop import Workshop, delete, gone

pytestmark = pytest.mark.promise("P8")
CLOSED = (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError)


async def use(counter: Counter, access: dict[str, Any]) -> asyncpg.Connection[asyncpg.Record]:
    return await counter.shop.tenants.connect(access["database"], access["user"], access["password"])


async def can_log_in(counter: Counter) -> bool:
    return await counter.shop.root.fetchval("SELECT rolcanlogin FROM pg_roles WHERE rolname = $1", counter.names.login("direct"))


async def test_a_new_project_has_no_direct_connection(counter: Counter) -> None:
    assert await counter.good("GET", "/access") == dict.fromkeys(("host", "port", "database", "user", "since")) | {"exists": False}
    assert not await can_log_in(counter)
    assert "direct" not in await counter.shop.store.passwords(counter.project.project_id)
    assert await counter.sweep() == []


async def test_a_created_one_is_shown_once_with_the_public_address_and_has_the_owners_rights_and_no_more(counter: Counter) -> None:
    access = await counter.good("POST", "/access")
    url = urlsplit(str(access["url"]))
    assert ((url.hostname, url.port), url.username, url.password, url.path[1:]) == (
        SHOWN,
        counter.names.login("direct"),
        access["password"],
        counter.project.database,
    )
    direct = await use(counter, access)
    await direct.execute("CREATE TABLE mine (id int)")
    assert await direct.fetchval("SELECT tableowner FROM pg_tables WHERE tablename = 'mine'") == counter.names.owner
    for refused in ("DELETE FROM public.messages", "SELECT * FROM loquat.events", "CREATE TEMP TABLE t (a int)", "CREATE ROLE x"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await direct.execute(refused)
    shown = await counter.good("GET", "/access")
    assert (shown["exists"], shown["user"], shown["since"]) == (True, access["user"], access["since"])
    assert "password" not in shown
    assert await counter.sweep() == []
    await direct.close()


async def test_its_password_stands_in_no_row_event_or_log(counter: Counter) -> None:
    password = (await counter.good("POST", "/access"))["password"]
    assert len(password) >= 40
    events = [r.value.decode() for log in counter.shop.bus.broker.logs.values() for r in log if r.value]
    log = (counter.shop.tenants.cluster.home / "log").read_text(errors="replace")
    for text in (*await counter.shop.rows(), *events, *await counter.shop.cluster(), log):
        assert password not in text
    (told,) = counter.said(AccessChanged)
    assert (told.open, told.actor) == (True, USER)


async def test_a_rotated_one_has_another_password_and_sends_away_who_used_the_old_one(counter: Counter) -> None:
    old = await counter.good("POST", "/access")
    session = await use(counter, old)
    new = await counter.good("POST", "/access")
    await gone(session)
    assert new["password"] != old["password"]
    with pytest.raises(CLOSED):
        await use(counter, old)
    await (await use(counter, new)).close()


async def test_a_revoked_one_is_closed_its_sessions_end_and_the_reaper_leaves_it_closed(counter: Counter) -> None:
    access = await counter.good("POST", "/access")
    session = await use(counter, access)
    assert await counter.good("DELETE", "/access") is None
    await gone(session)
    with pytest.raises(CLOSED):
        await use(counter, access)
    assert await counter.sweep() == []
    assert not await can_log_in(counter)
    assert (await counter.good("GET", "/access"))["exists"] is False
    assert await counter.ask("DELETE", "/access") == (204, None), "harmless when repeated"
    assert [a.open for a in counter.said(AccessChanged)] == [True, False, False]


async def test_the_end_of_a_size_closure_does_not_open_what_was_never_asked_for(counter: Counter) -> None:
    await counter.shop.root.execute("UPDATE loquat_operations.projects SET size_limit = 1 WHERE database = $1", counter.project.database)
    assert await counter.weigh() == [f"closed {counter.project.database}"]
    await counter.shop.root.execute(
        "UPDATE loquat_operations.projects SET size_limit = 1 << 30 WHERE database = $1", counter.project.database
    )
    assert await counter.weigh() == [f"opened {counter.project.database}"]
    assert not await can_log_in(counter)
    await (await counter.shop.enter(counter.project, "bot")).close()


async def test_one_that_is_asked_for_while_the_project_is_over_its_size_opens_when_it_is_below(counter: Counter) -> None:
    set_size = "UPDATE loquat_operations.projects SET size_limit = $2 WHERE database = $1"
    await counter.shop.root.execute(set_size, counter.project.database, 1)
    await counter.weigh()
    access = await counter.good("POST", "/access")
    with pytest.raises(CLOSED):
        await use(counter, access)
    assert await counter.sweep() == []
    await counter.shop.root.execute(set_size, counter.project.database, 1 << 30)
    await counter.weigh()
    await (await use(counter, access)).close()


async def test_a_login_that_holds_its_own_role_cannot_hold_up_its_revocation(counter: Counter) -> None:
    access = await counter.good("POST", "/access")
    tenant = await use(counter, access)
    await tenant.execute("SET ROLE NONE; BEGIN")
    await tenant.execute(f"ALTER ROLE {access['user']} PASSWORD 'mine'")
    async with asyncio.timeout(4):  # below the cluster's lock time-out
        await counter.good("DELETE", "/access")
    await gone(tenant)
    with pytest.raises(CLOSED):
        await counter.shop.tenants.connect(access["database"], access["user"], "mine")


async def test_somebody_whom_a_closed_login_let_in_is_sent_away_by_the_reaper(counter: Counter) -> None:
    """Who was being let in while it was closed: the role may not enter, and yet there is a session."""
    access = await counter.good("POST", "/access")
    session = await use(counter, access)
    await counter.shop.root.execute("UPDATE loquat_operations.logins SET closed = true WHERE rolname = $1", access["user"])
    assert await counter.sweep() == [f"ended {access['user']}: closed", f"put back {access['user']}"]
    await gone(session)


async def test_a_cluster_that_is_away_is_a_problem_that_says_so(counter: Counter) -> None:
    await counter.databases.close()
    counter.shop.away = True
    for method in ("GET", "POST", "DELETE"):
        await counter.bad(method, "/access", status=503, code="database_away")
    counter.shop.away = False


async def test_a_project_that_is_deleted_has_no_access(counter: Counter) -> None:
    assert await counter.shop.handle(delete(counter.project.project_id)) == Done()
    for method in ("GET", "POST", "DELETE"):
        await counter.bad(method, "/access", status=404, code="not_found")


async def test_a_project_that_is_not_ready_is_no_place_for_it(shop: Workshop) -> None:
    async with open_counter(shop) as counter:
        await shop.store.state(counter.project.project_id, "failed", "a test")
        problem = await counter.bad("POST", "/access", status=409, code="project_not_ready")
        assert "failed" in problem["detail"]
