"""Merging and erasing contacts by REST: what is refused at once, what is ordered, and how far an order is."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import UTC, datetime
from typing import Any
from uuid import UUID, uuid4

import pytest
from loquat_conversation_log.adapters.orders import Orders
from loquat_events.catalog import CONTACTS
from loquat_events.contacts import EraseContact, MergeContacts
from loquat_gateway.domain.scopes import ALL
from loquat_schema_manager.adapters.followed import FollowedRows
from loquat_schema_manager.domain.followings import Following, LinkColumn

from conftest import Platform
from services.gateway.tests.front import Front, open_front

A, B, GONE, MERGED, NOBODY = (UUID(int=n) for n in range(1, 6))
PROJECT = "/v1/projects/prj_1"


@pytest.fixture
async def front(platform: Platform) -> AsyncGenerator[Front]:
    async with open_front(platform) as made:
        await made.made("prj_1")
        made.records.changed.update({GONE: {"erased_at": datetime.now(UTC)}, MERGED: {"merged_into": B}, NOBODY: None})
        yield made


async def merge(front: Front, key: str, contact: UUID, into: UUID) -> tuple[int, Any]:
    return await front.ask(key, "POST", f"{PROJECT}/contacts/{contact}/merge", {"into": str(into)})


def commands(front: Front) -> list[Any]:
    return [e.data for e in front.broker.events(CONTACTS)]


async def test_the_same_wish_is_the_same_order_and_stands_in_the_audit_record(front: Front) -> None:
    key = await front.key()
    first, again = await merge(front, key, A, B), await merge(front, key, A, B)
    assert (first[0], first[1]["state"], first[1]["kind"], first[1]["into"]) == (202, "waiting", "merge", str(B))
    assert first == again
    erased = await front.ask(key, "DELETE", f"{PROJECT}/contacts/{B}")
    assert (erased[0], erased[1]["kind"], erased[1]["into"]) == (202, "erase", None)
    events = front.broker.events(CONTACTS)
    assert [(type(e.data), e.lane) for e in events] == [(MergeContacts, "contacts")] * 2 + [(EraseContact, "contacts")]
    assert [str(e.id) for e in events] == [first[1]["id"], first[1]["id"], erased[1]["id"]]
    rows = await front.pools["gateway"].fetch("SELECT action, actor FROM audit_log ORDER BY id")
    assert [r["action"] for r in rows] == [f"contact.merge {A}", f"contact.merge {A}", f"contact.erase {B}"]
    assert {r["actor"] for r in rows} == {first[1]["ordered_by"]}


async def test_what_cannot_be_done_is_refused_at_once_and_ordered_of_nobody(front: Front) -> None:
    key = await front.key()
    answers = [
        await merge(front, key, A, A),
        await merge(front, key, NOBODY, B),
        await merge(front, key, A, NOBODY),
        await merge(front, key, GONE, B),
        await merge(front, key, A, MERGED),
        await merge(front, key, MERGED, A),
        await front.ask(key, "DELETE", f"{PROJECT}/contacts/{NOBODY}"),
        await front.ask(key, "DELETE", f"{PROJECT}/contacts/{MERGED}"),
        await front.ask(key, "POST", f"{PROJECT}/contacts/{A}/merge", {"into": "x"}),
    ]
    assert [(status, problem["code"]) for status, problem in answers] == [
        (422, "same_contact"),
        (404, "not_found"),
        (404, "not_found"),
        (409, "contact_erased"),
        (409, "contact_merged"),
        (409, "contact_merged"),
        (404, "not_found"),
        (409, "contact_merged"),
        (422, "invalid_request"),
    ]
    assert answers[4][1]["merged_into"] == str(B)
    assert commands(front) == []
    assert (await merge(front, key, MERGED, B))[0] == 202, "it is so already"


@pytest.mark.promise("P4")
async def test_nobody_without_the_scope_and_nobody_of_another_organization(front: Front) -> None:
    weak, stranger = await front.key(scopes=[s for s in ALL if s != "contacts:write"]), await front.key("org_b")
    order = (await merge(front, await front.key(), A, B))[1]["id"]
    for key, status in ((weak, 403), (stranger, 404)):
        assert (await merge(front, key, A, B))[0] == status
        assert (await front.ask(key, "DELETE", f"{PROJECT}/contacts/{A}"))[0] == status
    assert (await front.ask(weak, "GET", f"{PROJECT}/contact-orders/{order}"))[0] == 200
    assert (await front.ask(stranger, "GET", f"{PROJECT}/contact-orders/{order}"))[0] == 404
    await front.made("prj_2", "org_b")
    assert (await front.ask(stranger, "GET", f"/v1/projects/prj_2/contact-orders/{order}"))[0] == 404
    only = await front.key(scopes=["contacts:write"])
    assert (await merge(front, only, A, B))[0] == 202
    assert (await front.ask(only, "DELETE", f"{PROJECT}/contacts/{A}"))[0] == 202


async def test_a_merged_contact_says_whom_it_is_and_an_erased_one_is_gone(front: Front) -> None:
    key = await front.key()
    status, shown = await front.ask(key, "GET", f"{PROJECT}/contacts/{MERGED}")
    assert (status, shown["merged_into"], shown["language"]) == (200, str(B), "de")
    status, problem = await front.ask(key, "GET", f"{PROJECT}/contacts/{GONE}")
    assert (status, problem["code"]) == (410, "contact_erased")


async def test_an_order_can_be_watched_until_the_projects_own_tables_have_followed(front: Front) -> None:
    key = await front.key()
    order = UUID((await merge(front, key, A, B))[1]["id"])
    orders, rows = Orders(front.pools["conversation-log"]), FollowedRows(front.pools["schema-manager"], lambda: 0.5)

    async def state() -> tuple[str, int, list[str]]:
        status, shown = await front.ask(key, "GET", f"{PROJECT}/contact-orders/{order}")
        assert status == 200
        return shown["state"], shown["rows"], [f"{t['table']}.{t['column']} {t['state']}" for t in shown["tables"]]

    assert await state() == ("waiting", 0, [])
    await orders.end(order, "done", epoch=1)
    assert await state() == ("following", 0, [])
    following, columns = Following(uuid4(), order, "prj_1", 1, (A,), B, "k"), [LinkColumn("t", c, "contact", False) for c in ("x", "y")]
    await rows.note(following)
    await rows.list(following.id, columns)
    await rows.count(following.id, columns[0], 7, done=True)
    assert await state() == ("following", 7, ["t.x done", "t.y open"])
    await rows.count(following.id, columns[1], 2, done=True)
    await rows.settle(following.id)
    assert await state() == ("done", 9, ["t.x done", "t.y done"])
    await orders.end(order, "refused", reason="merged", epoch=1)
    shown = (await front.ask(key, "GET", f"{PROJECT}/contact-orders/{order}"))[1]
    assert (shown["state"], shown["reason"]) == ("refused", "merged")


async def test_an_order_that_the_bus_does_not_take_is_given_again(front: Front) -> None:
    key = await front.key()
    front.broker.down = True
    assert (await merge(front, key, A, B))[0] == 503
    front.broker.down = False
    assert (await merge(front, key, A, B))[0] == 202
    assert len(commands(front)) == 1


@pytest.mark.promise("P7")
async def test_an_erase_takes_the_persons_dead_letters_sends_and_lines_and_nobody_elses(front: Front) -> None:
    key = await front.key()
    for person, name in ((A, "Anna"), (B, "Bea")):
        await front.pools["bot-runner"].execute(
            "INSERT INTO logs (project_id, event_id, level, line) VALUES ('prj_1', $1, 'info', $2)", person, f"about {name}"
        )
        await front.pools["bot-runner"].execute(
            "INSERT INTO runs (project_id, event_id, attempt, outcome, duration_ms, error, started_at) VALUES ('prj_1', $1, 1, 'x', 1, $2, now())",
            person,
            f"of {name}",
        )
        await front.pools["bot-runner"].execute(
            "INSERT INTO due (project_id, id, kind, epoch, due_at, look_at, lane, body)"
            " VALUES ('prj_1', $1, 'timer', 1, now(), now(), $2, jsonb_build_object('conversation_id', $1::uuid))",
            person,
            name,
        )
    for recipient, name, state in (
        ("4915", "Anna", "accepted"),
        ("4915", "Anna", "queued"),
        ("4915", "Anna", "sending"),
        ("4916", "Bea", "queued"),
    ):
        await front.pools["connector"].execute(
            "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, deadline) VALUES ($1, 'prj_1', '1', $2, false, $3, $4, now())",
            uuid4(),
            recipient,
            {"text": f"to {name}"},
            state,
        )
    for consumer in ("bot-runner", "connector"):
        for n, lane in enumerate(("4915", "4916")):
            await front.pools[consumer].execute(
                "INSERT INTO deferred (group_name, partition, seq, event_id, lane, project, event, state, attempts, next_at, reason)"
                " VALUES ('g', 'p/0', $1, 'e', 'prj_1:' || $2, 'prj_1', 'x', 'dead', 1, now(), 'r')",
                n,
                lane,
            )
    assert (await front.ask(key, "DELETE", f"{PROJECT}/contacts/{A}"))[0] == 202
    runner, connector = front.pools["bot-runner"], front.pools["connector"]
    assert [r["line"] for r in await runner.fetch("SELECT line FROM logs")] == ["about Bea"]
    assert [r["error"] for r in await runner.fetch("SELECT error FROM runs ORDER BY id")] == [None, "of Bea"]
    assert [r["lane"] for r in await runner.fetch("SELECT lane FROM due")] == ["Bea"]
    sends = await connector.fetch("SELECT recipient, message::text, state, wamid FROM sends ORDER BY seq")
    assert [tuple(r) for r in sends] == [
        ("erased", "{}", "accepted", None),
        ("erased", "{}", "expired", None),
        ("erased", "{}", "sending", None),
        ("4916", '{"text": "to Bea"}', "queued", None),
    ]
    for consumer in ("bot-runner", "connector"):
        assert [r["lane"] for r in await front.pools[consumer].fetch("SELECT lane FROM deferred")] == ["prj_1:4916"]


@pytest.mark.promise("P7")
async def test_a_contact_with_more_addresses_than_one_question_takes_is_erased(front: Front) -> None:
    many = [str(n) for n in range(1001)]
    front.records.changed[A] = {"addresses": [{"kind": "phone", "value": v} for v in many]}
    pool = front.pools["connector"]
    await pool.executemany(
        "INSERT INTO sends (message_id, project_id, number_id, recipient, is_user_id, message, state, deadline) VALUES ($1, 'prj_1', '1', $2, false, '{}', 'queued', now())",
        [(uuid4(), many[0]), (uuid4(), many[-1])],
    )
    assert (await front.ask(await front.key(), "DELETE", f"{PROJECT}/contacts/{A}"))[0] == 202
    assert {r["recipient"] for r in await pool.fetch("SELECT recipient FROM sends")} == {"erased"}
