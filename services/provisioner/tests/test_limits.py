"""An owner sees what the database holds and how near its limits are; limits are chosen within bounds, and the reaper enforces them."""

from __future__ import annotations

import asyncio
from dataclasses import asdict
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_common.bounds import OutOfBounds
from loquat_events.projects import LimitsChanged
from loquat_provisioner.adapters.reaper import Ages
from loquat_provisioner.domain.limits import LEAST, Limits, changed
from loquat_provisioner.handlers.limits import PendingLimits

from services.provisioner.tests.counter import MOST, USER, Counter
from services.provisioner.tests.workshop import gone
from tests.system.world import until

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

pytestmark = pytest.mark.promise("P4")
HOUR = timedelta(hours=1)
LONG = Ages(HOUR, HOUR, HOUR, HOUR)


async def editor(counter: Counter) -> Connection:
    return await counter.shop.enter(counter.project, "editor")


async def test_usage_shows_size_rows_connections_and_how_near_the_limits_are(counter: Counter) -> None:
    one = await editor(counter)
    await one.execute("CREATE TABLE orders (id int PRIMARY KEY); INSERT INTO orders SELECT generate_series(1, 3000); ANALYZE orders")
    shown = await counter.good("GET", "/usage")
    assert 8_000_000 < shown["size_bytes"] < 20_000_000
    assert shown["size_share"] == round(shown["size_bytes"] / (1 << 30), 4)
    tables = {t["name"]: t for t in shown["tables"]}
    assert set(tables) == {"orders", "contacts", "conversations", "messages"}
    assert (tables["orders"]["rows_estimate"], tables["orders"]["system"], tables["contacts"]["system"]) == (3000, False, True)
    assert tables["orders"]["size_bytes"] > 100_000
    assert shown["rows_estimate"] == 3000
    assert {x["login"]: (x["connections"], x["limit"]) for x in shown["logins"]} == {"bot": (0, 6), "editor": (1, 4), "direct": (0, 4)}
    assert next(x["share"] for x in shown["logins"] if x["login"] == "editor") == 0.25
    assert shown["closed_for_size"] is False
    assert shown["limits"] == asdict(Limits())
    await one.close()


async def test_a_table_that_somebody_holds_is_shown_without_its_size_and_holds_up_nothing(counter: Counter) -> None:
    holder = await editor(counter)
    await holder.execute("CREATE TABLE held (id int); CREATE TABLE free (id int)")
    await holder.execute("BEGIN; LOCK TABLE held IN ACCESS EXCLUSIVE MODE")
    tables = {t["name"]: t["size_bytes"] for t in (await counter.good("GET", "/usage"))["tables"]}
    assert tables["held"] is None
    assert tables["free"] == 0
    await holder.close()


async def test_a_table_named_like_an_attack_is_only_a_name(counter: Counter) -> None:
    hostile = 'x"; DROP TABLE y; --\u202e'
    one = await editor(counter)
    await one.execute(f'CREATE TABLE "{hostile.replace(chr(34), chr(34) * 2)}" (id int)')
    assert hostile in [t["name"] for t in (await counter.good("GET", "/usage"))["tables"]]
    await one.close()


async def test_limits_are_kept_put_in_force_on_the_cluster_and_told(counter: Counter) -> None:
    change = {"size_bytes": 2 << 30, "bot_connections": 2, "direct_connections": 3, "statement_seconds": 100, "transaction_seconds": 200}
    shown = await counter.good("PATCH", "/limits", change)
    assert shown["limits"] == {**asdict(Limits()), **change}
    assert shown == await counter.good("GET", "/limits")
    assert (shown["most"], shown["least"]) == (asdict(MOST), asdict(LEAST))
    limits = await counter.shop.root.fetch(
        "SELECT rolname, rolconnlimit FROM pg_roles WHERE rolname ~ $1", f"^{counter.project.database}_[bed]"
    )
    assert {r["rolname"].rpartition("_")[2]: r["rolconnlimit"] for r in limits} == {"bot": 2, "editor": 4, "direct": 3}
    bots = [await counter.shop.enter(counter.project, "bot") for _ in range(2)]
    with pytest.raises(asyncpg.TooManyConnectionsError):
        await counter.shop.enter(counter.project, "bot")
    assert await bots[0].fetchval("SELECT current_setting('statement_timeout')") == "100s"
    assert await bots[0].fetchval("SELECT current_user") == counter.names.owner
    assert await counter.sweep() == [], "what is so shall be so"
    (told,) = counter.said(LimitsChanged)
    assert (told.actor, told.size_bytes, told.connections["bot"]) == (USER, 2 << 30, 2)
    assert await counter.shop.store.passwords(counter.project.project_id) is not None
    for bot in bots:
        await bot.close()


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"size_bytes": 1}, "size_bytes"),
        ({"size_bytes": 1 << 62}, "size_bytes"),
        ({"size_bytes": 1 << 90}, "size_bytes"),
        ({"bot_connections": 0}, "bot_connections"),
        ({"bot_connections": -1}, "bot_connections"),
        ({"editor_connections": 3}, "editor_connections"),
        ({"direct_connections": 11}, "direct_connections"),
        ({"statement_seconds": 0}, "statement_seconds"),
        ({"statement_seconds": 61}, "statement_seconds"),
        ({"transaction_seconds": 601}, "transaction_seconds"),
        ({"statement_seconds": "1; DROP"}, "statement_seconds"),
        ({"superuser": 1}, "superuser"),
    ],
)
async def test_a_limit_out_of_bounds_is_named_and_nothing_changes(counter: Counter, change: dict[str, Any], field: str) -> None:
    problem = await counter.bad("PATCH", "/limits", change, status=422, code="invalid_request")
    assert problem["errors"][0]["field"] == f"body.{field}"
    assert (await counter.good("GET", "/limits"))["limits"] == asdict(Limits())
    assert counter.said(LimitsChanged) == []


@given(st.dictionaries(st.sampled_from(sorted(asdict(LEAST))), st.integers(-10, 1 << 40)))
def test_no_change_leaves_the_bounds(change: dict[str, int]) -> None:
    refused: list[str] = []
    after = Limits()
    try:
        after = changed(after, change, MOST)
    except OutOfBounds as error:
        refused.append(error.field)
    assert {*refused} <= {*change, "statement_seconds"}
    assert refused or all(asdict(after)[name] == value for name, value in change.items())
    for name, value in asdict(after).items():
        assert asdict(LEAST)[name] <= value <= asdict(MOST)[name]
    assert after.statement_seconds <= after.transaction_seconds


@pytest.mark.parametrize(
    ("field", "state", "reason"), [("statement", "SELECT pg_sleep(60)", "statement"), ("transaction", "BEGIN", "transaction")]
)
async def test_the_reaper_goes_by_the_projects_own_ages(counter: Counter, field: str, state: str, reason: str) -> None:
    """A session may set its own time-outs as it likes; another project keeps the reaper's."""
    other = await counter.shop.project()
    await counter.good("PATCH", "/limits", {"statement_seconds": 1, "transaction_seconds": 1 if field == "transaction" else 60})
    sessions = [await counter.shop.enter(p, "bot") for p in (counter.project, other)]
    pids = [s.get_server_pid() for s in sessions]
    for session in sessions:
        await session.execute("SET statement_timeout = 0; SET transaction_timeout = 0; SET idle_in_transaction_session_timeout = 0")
    running = [asyncio.create_task(s.execute(state)) for s in sessions]

    async def old() -> bool:
        query = "SELECT count(*) = 2 FROM pg_stat_activity WHERE pid = ANY ($1) AND clock_timestamp() - xact_start > interval '1.1 second'"
        return await counter.shop.root.fetchval(query, pids)

    await until(old, "both are older than a second")
    assert await counter.sweep(LONG) == [f"ended {counter.names.login('bot')}: {reason}"]
    await gone(sessions[0])
    assert not sessions[1].is_closed()
    sessions[1].terminate()
    await asyncio.wait(running)


async def test_over_its_size_the_answer_says_so_and_what_is_deleted_by_the_editor_opens_it_again(counter: Counter) -> None:
    one = await editor(counter)
    await one.execute("CREATE TABLE fat (t text); ALTER TABLE fat ALTER t SET STORAGE EXTERNAL")
    await one.execute("INSERT INTO fat SELECT repeat('x', 1000000) FROM generate_series(1, 20)")
    await counter.good("PATCH", "/limits", {"size_bytes": 16 << 20})
    assert await counter.weigh() == [f"closed {counter.project.database}"]
    shown = await counter.good("GET", "/usage")
    assert shown["closed_for_size"] is True
    assert shown["size_share"] > 1
    with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
        await counter.shop.enter(counter.project, "bot")
    assert await counter.sweep() == []
    await gone(one)
    one = await editor(counter)
    with pytest.raises(asyncpg.ReadOnlySQLTransactionError):
        await one.execute("INSERT INTO fat VALUES ('y')")
    await one.execute("SET default_transaction_read_only = off")
    await one.execute("TRUNCATE fat")
    assert await counter.weigh() == [f"opened {counter.project.database}"]
    assert (await counter.good("GET", "/usage"))["closed_for_size"] is False
    await (await counter.shop.enter(counter.project, "bot")).close()
    await one.close()


async def test_limits_chosen_while_the_cluster_is_away_are_in_force_once_it_is_back(counter: Counter) -> None:
    await counter.databases.close()
    counter.shop.away = True
    await counter.bad("PATCH", "/limits", {"bot_connections": 2}, status=503, code="database_away")
    pending = PendingLimits(counter.shop.store, counter.chosen, {"tenants": counter.databases})
    assert await pending.once() == 0
    counter.shop.away = False
    assert await pending.once() == 1
    assert await pending.once() == 0
    assert await counter.shop.root.fetchval("SELECT rolconnlimit FROM pg_roles WHERE rolname = $1", counter.names.login("bot")) == 2
