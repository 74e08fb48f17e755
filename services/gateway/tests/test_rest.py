"""The REST API before real owners: who sees what, what a project that comes or goes looks like, pages, scopes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat_common.bus.memory import MemoryBroker, MemoryBus
from loquat_events.catalog import DIRECTORY, INBOX
from loquat_events.conversations import HoldOrdered
from loquat_gateway.domain.scopes import ALL

from conftest import Platform
from services.gateway.tests.front import ANNA, Front, open_front

BELOW = ("", "/numbers", "/bot/deployments", "/bot/runs", "/bot/logs", "/contacts", "/conversations", "/ledger", "/dead-letters")


@pytest.fixture
async def front(platform: Platform) -> AsyncGenerator[Front]:
    async with open_front(platform) as made:
        yield made


@pytest.mark.promise("P4")
async def test_a_project_of_others_and_one_that_is_not_there_look_the_same_whatever_its_state(front: Front) -> None:
    owner, stranger = await front.key("org_a"), await front.key("org_b")
    ordered: str = (await front.ask(owner, "POST", "/v1/projects", {"name": "new"}))[1]["id"]
    await front.made("prj_making", state="creating")
    await front.made("prj_ready")
    for project in (ordered, "prj_making", "prj_ready", "prj_nobodys"):
        for tail in BELOW:
            status, problem = await front.ask(stranger, "GET", f"/v1/projects/{project}{tail}")
            assert (status, problem) == (404, {"status": 404, "code": "not_found", "title": "There is no such project"}), (project, tail)


async def test_a_project_that_is_being_made_is_seen_by_its_owner_and_answers_409_where_it_must_be_ready(front: Front) -> None:
    owner = await front.key()
    ordered: str = (await front.ask(owner, "POST", "/v1/projects", {"name": "new"}))[1]["id"]
    await front.made("prj_making", state="creating")
    for project in (ordered, "prj_making"):
        status, shown = await front.ask(owner, "GET", f"/v1/projects/{project}")
        assert (status, shown["status"]) == (200, "creating")
        for tail in ("/contacts", "/conversations", "/ledger"):
            status, problem = await front.ask(owner, "GET", f"/v1/projects/{project}{tail}")
            assert (status, problem["code"], "creating" in problem["detail"]) == (409, "project_not_ready", True)


async def test_a_projects_name_is_more_than_blanks_and_has_none_around_it(front: Front) -> None:
    owner = await front.key()
    assert (await front.ask(owner, "POST", "/v1/projects", {"name": " \t "}))[0] == 422
    assert (await front.ask(owner, "POST", "/v1/projects", {"name": " Third  "}))[1]["name"] == "Third"


async def test_a_deleted_project_is_404_and_not_being_made_for_ever(front: Front) -> None:
    owner = await front.key()
    project: str = (await front.ask(owner, "POST", "/v1/projects", {"name": "p"}, Idempotency_Key="k"))[1]["id"]
    await front.made(project)
    await front.noted(project)
    await front.deleted(project)
    front.later(seconds=10)
    for tail in BELOW:
        assert (await front.ask(owner, "GET", f"/v1/projects/{project}{tail}"))[0] == 404, tail
    status, problem = await front.ask(owner, "POST", "/v1/projects", {"name": "p"}, Idempotency_Key="k")
    assert (status, problem["code"]) == (409, "project_deleted")


@pytest.mark.parametrize("tombstone", [True, False])
async def test_what_was_made_and_deleted_while_no_gateway_ran_is_404_too(platform: Platform, tombstone: bool) -> None:
    async with open_front(platform) as first:
        owner = await first.key()
        project: str = (await first.ask(owner, "POST", "/v1/projects", {"name": "p"}))[1]["id"]
    broker = MemoryBroker()
    if tombstone:
        await MemoryBus("provisioner", broker).remove(DIRECTORY, project=project, lane="project")
    async with open_front(platform, broker) as second:
        if tombstone:
            await second.noted(project)
        assert (await second.ask(owner, "GET", f"/v1/projects/{project}"))[1]["status"] == "creating", "nobody can know yet"
        second.later(seconds=10) if tombstone else second.later(days=8)  # until then the order may be on the bus
        assert (await second.ask(owner, "GET", f"/v1/projects/{project}"))[0] == 404


async def test_a_gateway_whose_directory_is_behind_does_not_call_a_new_project_gone(platform: Platform) -> None:
    async with open_front(platform) as ahead, open_front(platform, MemoryBroker()) as behind:
        owner = await ahead.key()
        project: str = (await ahead.ask(owner, "POST", "/v1/projects", {"name": "p"}))[1]["id"]
        await ahead.made(project)
        await ahead.noted(project)
        status, shown = await behind.ask(owner, "GET", f"/v1/projects/{project}")
        assert (status, shown["status"]) == (200, "creating"), "not ready here, and not gone"


async def test_projects_come_in_pages_that_name_each_once(front: Front) -> None:
    owner = await front.key()
    for n in range(7):
        await front.made(f"prj_{n}")
    await front.made("prj_theirs", "org_b")
    seen, cursor = list[str](), ""
    while True:
        status, page = await front.ask(owner, "GET", f"/v1/projects?limit=3{cursor}")
        assert status == 200
        seen += [p["id"] for p in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
        await front.deleted(page["items"][-1]["id"])  # the place where the next page begins
    assert seen == [f"prj_{n}" for n in reversed(range(7))]
    for wrong in ("nonsense", "prj_theirs"):
        assert (await front.ask(owner, "GET", f"/v1/projects?cursor={wrong}"))[1]["code"] == "invalid_cursor"


async def test_dead_letters_of_all_consumers_come_in_pages_that_name_each_once(front: Front) -> None:
    owner = await front.key()
    await front.made("prj_1")
    wanted = set[str]()
    for n, consumer in enumerate(["bot-runner"] * 5 + ["connector"] * 2 + ["bot-runner", "connector"] * 3):
        wanted.add(f"{consumer}.{await dead(front, consumer, n)}")
    seen, cursor = list[str](), ""
    while True:
        status, page = await front.ask(owner, "GET", f"/v1/projects/prj_1/dead-letters?limit=2{cursor}")
        assert status == 200
        seen += [d["id"] for d in page["items"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert sorted(seen) == sorted(wanted)
    for wrong in ("nonsense", "W10", "eyJjb25uZWN0b3IiOjB9"):
        assert (await front.ask(owner, "GET", f"/v1/projects/prj_1/dead-letters?cursor={wrong}"))[1]["code"] == "invalid_cursor"


async def dead(front: Front, consumer: Any, n: int) -> int:
    number: int = await front.pools[consumer].fetchval(
        "INSERT INTO deferred (group_name, partition, seq, event_id, lane, project, event, state, attempts, next_at, reason, created_at)"
        " VALUES ('g', 't/0', $1, $2, 'prj_1:l', 'prj_1', '{}', 'dead', 1, now(), 'r', now() + $1::bigint * interval '1 second') RETURNING id",
        n,
        str(uuid4()),
    )
    return number


async def test_a_conversation_is_found_though_the_database_of_another_project_is_away(front: Front) -> None:
    owner, here, nowhere = await front.key(), uuid4(), uuid4()
    for project in ("prj_a", "prj_b", "prj_c"):
        await front.made(project)
    front.records.held.add(("prj_b", here))
    front.records.away = {"prj_a", "prj_c"}
    assert (await front.ask(owner, "GET", f"/v1/conversations/{here}/messages")) == (200, {"items": [], "next_cursor": None})
    status, problem = await front.ask(owner, "GET", f"/v1/conversations/{nowhere}/messages")
    assert (status, problem["code"]) == (503, "database_away"), "it may be in one of those"
    front.records.away = set()
    assert (await front.ask(owner, "GET", f"/v1/conversations/{nowhere}/messages"))[0] == 404


async def test_a_bots_file_in_a_folder_is_written_with_its_etag_and_a_conflict_comes_back_whole(front: Front) -> None:
    owner = await front.key()
    await front.made("prj_1")
    at = "/v1/projects/prj_1/bot/files/texts%2Fde.py"
    status, made = await front.ask(owner, "PUT", at, {"content": "A = 1\n"}, If_None_Match="*")
    assert (status, made["path"], made["author"]) == (200, "texts/de.py", (await front.ask(owner, "GET", "/v1/me"))[1]["key_id"])
    async with front.client.get(at, headers={"Authorization": f"Bearer {owner}"}) as answer:
        assert answer.headers["ETag"] == f'"{made["etag"]}"'
    status, told = await front.ask(owner, "PUT", at, {"content": "B = 2\n"}, If_Match='"another"')
    assert (status, told["code"], told["current"]["content"], told["given"]["content"]) == (412, "file_changed", "A = 1\n", "B = 2\n")
    assert (await front.ask(owner, "DELETE", at, If_Match=made["etag"]))[0] == 204


NUMBER = {"phone_number_id": "106", "waba_id": "w", "token": "EAA"}
TEXT = {"type": "text", "text": "hi"}
BODIES: dict[tuple[str, str], list[Any]] = {
    ("POST", "/v1/projects/{project_id}/contacts/{contact_id}/merge"): [{"into": str(UUID(int=3))}],
    ("POST", "/v1/projects"): [{"name": "p"}],
    ("POST", "/v1/projects/{project_id}/numbers"): [NUMBER],
    ("POST", "/v1/projects/{project_id}/bot/deployments"): [{"files": {}}],
    ("POST", "/v1/projects/{project_id}/messages"): [
        {"contact_id": str(ANNA), "message": TEXT},
        {"address": {"kind": "phone", "value": "4915"}, "message": TEXT},
    ],
    ("POST", "/v1/projects/{project_id}/conversations/{conversation_id}/hold"): [{"note": "mine"}],
    ("POST", "/v1/projects/{project_id}/dead-letters/{letter_id}/discard"): [{"reason": "r"}],
}


@pytest.mark.promise("P4")
async def test_each_route_can_be_used_with_its_own_scope_alone_and_not_without(front: Front) -> None:
    await front.made("prj_1")
    routes = [r for r in front.api.routes if r.scope is not None]
    for scope in ALL:
        with_it, without = await front.key(scopes=[scope]), await front.key(scopes=[s for s in ALL if s != scope])
        for route in (r for r in routes if r.scope == scope):
            at = {"project_id": "prj_1", "phone_number_id": "106", "contact_id": ANNA, "conversation_id": UUID(int=1)}
            more = {
                "version": "0" * 64,
                "file": "bot.py",
                "run_id": UUID(int=1),
                "key": "k",
                "name": "n",
                "order_id": UUID(int=2),
                "preview_id": f"clone_{0:032}",
            }
            path = route.path.format(**at, **more, letter_id="connector.1")
            for body in BODIES.get((route.method, route.path), [None]):
                status, problem = await front.ask(with_it, route.method, path, body)
                assert status != 403, (route.method, path, problem)
                assert (await front.ask(without, route.method, path, body))[0] == 403


async def test_holding_handing_back_and_resolving_are_orders_in_the_contacts_own_lane_once_per_idempotency_key(front: Front) -> None:
    await front.made("prj_1")
    here, owner = UUID(int=7), await front.key()
    front.records.held.add(("prj_1", here))
    at = f"/v1/projects/prj_1/conversations/{here}"
    status, known = await front.ask(owner, "GET", at)
    assert (status, known["holder"], known["needs_attention"]) == (200, "bot", False)
    ordered: dict[str, Any] = {}
    for _ in range(2):
        status, ordered = await front.ask(owner, "POST", f"{at}/hold", {"seconds": 60, "note": "mine"}, Idempotency_Key="one")
        assert status == 202
    await front.ask(owner, "POST", f"{at}/hold", {"for_people": True})
    await front.ask(owner, "POST", f"{at}/release")
    await front.ask(owner, "POST", f"{at}/resolve")
    events = [e for e in front.broker.events(INBOX) if isinstance(e.data, HoldOrdered)]
    assert {e.lane for e in events} == {"4915"}
    orders = [e.data for e in {e.id: e for e in events}.values()]
    assert [(o.holder, o.seconds, o.note, o.resolved) for o in orders if isinstance(o, HoldOrdered)] == [
        ("person", 60, "mine", False), ("people", None, None, False), ("bot", None, None, True), (None, None, None, True),
    ]  # fmt: skip
    assert str(events[0].id) == ordered["order_id"]
    assert (await front.ask(owner, "POST", f"{at}/hold", {"seconds": 0}))[0] == 422
    assert (await front.ask(owner, "POST", f"/v1/projects/prj_1/conversations/{UUID(int=8)}/hold", {}))[0] == 404
    assert (await front.ask(owner, "GET", "/v1/projects/prj_1/conversations?holder=people&needs_attention=true"))[0] == 200
    assert (await front.ask(owner, "GET", "/v1/projects/prj_1/conversations?holder=nobody"))[0] == 422
