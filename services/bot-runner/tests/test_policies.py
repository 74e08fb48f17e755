"""Where a project's bot may connect to: set by its owner, closed before; and where it did."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, cast

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from loquat_bot_runner.adapters.egress import Visit
from loquat_bot_runner.adapters.policies import Policies
from loquat_bot_runner.domain.budget import HOUR, Budget
from loquat_bot_runner.domain.destinations import Policy, Refused
from loquat_bot_runner.http.egress import EgressApi
from loquat_common.http import Api
from loquat_common.tokens import Actor
from loquat_rest.egress import MOST_DESTINATIONS

from conftest import Platform
from tests.botbench import ANNA, migrated

if TYPE_CHECKING:
    import asyncpg

    Pool = asyncpg.Pool[asyncpg.Record]

PROJECT, OTHER = "prj_a", "prj_b"


@pytest.fixture
async def pool(platform: Platform) -> Pool:
    return await migrated(platform)


@pytest.fixture
async def policies(pool: Pool) -> Policies:
    return Policies(pool)


@pytest.fixture
async def client(policies: Policies) -> AsyncGenerator[TestClient[Any, Any]]:
    async def authenticate(_request: web.Request) -> Actor:
        return Actor("user", ANNA, "o", scopes=frozenset({"bots:read", "bots:write"}))

    api = Api("test", "1", authenticate=authenticate)
    listed: dict[str, object] = {PROJECT: SimpleNamespace()}
    directory = SimpleNamespace(get=listed.get)
    EgressApi(policies, cast("Any", directory)).add_to(api)
    async with TestClient(TestServer(api.app())) as made:
        yield made


async def ask(client: TestClient[Any, Any], method: str, path: str = "", json: Any = None, project: str = PROJECT) -> tuple[int, Any]:
    async with client.request(method, f"/internal/projects/{project}/bot/egress{path}", json=json) as response:
        return response.status, await response.json()


async def test_a_project_is_closed_until_its_owner_opens_hosts_and_a_change_holds_at_once(
    client: TestClient[Any, Any], policies: Policies
) -> None:
    assert await ask(client, "GET") == (200, {"hosts": [], "updated_at": None})
    assert await policies.of(PROJECT) == Policy()
    status, body = await ask(client, "PUT", json={"hosts": ["API.example.com.", "*.example.org", "api.example.com"]})
    assert (status, body["hosts"]) == (200, ["api.example.com", "*.example.org"])
    assert (await policies.of(PROJECT)).hosts == ("api.example.com", "*.example.org")
    assert await policies.of(OTHER) == Policy()
    assert (await ask(client, "GET"))[1] == body
    await ask(client, "PUT", json={"hosts": []})
    assert await policies.of(PROJECT) == Policy()


@pytest.mark.parametrize(
    ("hosts", "words"),
    [(["localhost"], "'localhost'"), (["ok.example.com", "https://x.org/a"], "https://x.org/a"), (["0x7f.1"], "four decimal numbers")],
)
async def test_what_is_no_host_is_refused_by_name_and_nothing_is_changed(
    client: TestClient[Any, Any], hosts: list[str], words: str
) -> None:
    await ask(client, "PUT", json={"hosts": ["kept.example.com"]})
    status, body = await ask(client, "PUT", json={"hosts": hosts})
    assert (status, body["code"]) == (422, "host_refused")
    assert words in body["detail"]
    assert (await ask(client, "GET"))[1]["hosts"] == ["kept.example.com"]


async def test_too_many_hosts_and_unknown_projects_are_refused(client: TestClient[Any, Any]) -> None:
    status, _ = await ask(client, "PUT", json={"hosts": [f"h{n}.example.com" for n in range(101)]})
    assert status == 422
    assert (await ask(client, "GET", project="prj_none"))[0] == 404


async def test_another_replica_hears_of_a_change_within_seconds(pool: Pool, policies: Policies) -> None:
    now = 0.0
    other = Policies(pool, lambda: now)
    assert await other.of(PROJECT) == Policy()
    await policies.set(PROJECT, ["api.example.com"], ANNA)
    assert await other.of(PROJECT) == Policy(), "it looks again after a moment"
    now = 5.0
    assert (await other.of(PROJECT)).hosts == ("api.example.com",)


@pytest.mark.promise("P4")
async def test_nothing_is_open_while_nobody_can_tell(platform: Platform, pool: Pool) -> None:
    policies = Policies(pool)
    await policies.set(PROJECT, ["*"], ANNA)
    await pool.close()
    with pytest.raises(Refused, match="try again"):
        await Policies(pool).of(PROJECT)
    assert platform


async def test_where_bots_went_is_counted_by_host_and_outcome_and_the_oldest_goes(client: TestClient[Any, Any], policies: Policies) -> None:
    for sent in (1, 2, 3):
        policies.seen(PROJECT, Visit("api.example.com", 443, sent, 10 * sent, "ok"))
    policies.seen(OTHER, Visit("other.example.com", 443, 0, 0, "off"))
    await policies.write()
    policies.seen(PROJECT, Visit("api.example.com", 443, 4, 40, "ok"))
    await policies.write()
    (found,) = (await ask(client, "GET", "/destinations"))[1]["items"]
    assert (found["host"], found["outcome"], found["connections"], found["sent"], found["received"]) == (
        "api.example.com",
        "ok",
        4,
        10,
        100,
    )
    for n in range(MOST_DESTINATIONS):
        policies.seen(PROJECT, Visit(f"h{n}.example.com", 443, 0, 0, "host"))
    await policies.write()
    found = (await ask(client, "GET", f"/destinations?limit={MOST_DESTINATIONS}"))[1]["items"]
    assert len(found) == MOST_DESTINATIONS
    assert "api.example.com" not in {f["host"] for f in found}
    assert len(await policies.destinations(OTHER, 10)) == 1


async def test_nothing_of_a_project_is_left_when_it_is_gone(pool: Pool, policies: Policies) -> None:
    await policies.set(PROJECT, ["*"], ANNA)
    policies.seen(PROJECT, Visit("api.example.com", 443, 0, 0, "ok"))
    await policies.write()
    await policies.forget(PROJECT)
    assert await policies.of(PROJECT) == Policy()
    assert await pool.fetchval("SELECT count(*) FROM destinations") == 0


def test_an_hours_budget_begins_anew_and_remembers_only_hours_that_run() -> None:
    budget = Budget()
    budget.spend("a", 10, 0.0)
    budget.spend("a", 5, HOUR - 1)
    assert (budget.spent("a", HOUR - 1), budget.spent("b", 0.0), budget.spent("a", HOUR)) == (15, 0, 0)
    budget.spend("b", 1, 2 * HOUR)
    assert list(budget._hours) == ["b"]
