"""The API of backups, restores and clones: orders are durable, seen at once, the same for the same key; their way is shown."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any
from uuid import uuid4

import pytest
from loquat_common.bus.port import Done
from loquat_events.catalog import COMMANDS
from loquat_events.envelope import Payload
from loquat_events.projects import CreateProject, DropBackup, RestoreBackup, TakeBackup

from services.provisioner.tests.counter import USER, Counter, open_counter
from services.provisioner.tests.workshop import Workshop, delete


def ordered(counter: Counter, kind: type[Payload]) -> list[Any]:
    """The orders on the bus."""
    return [e.data for e in counter.shop.bus.broker.events(COMMANDS) if isinstance(e.data, kind)]


async def test_a_backup_is_ordered_seen_at_once_carried_out_and_shown(counter: Counter) -> None:
    made = await counter.good("POST", "/backups", {"note": "before the release"})
    assert (made["state"], made["note"], made["ordered_by"]) == ("taking", "before the release", USER)
    assert (await counter.good("GET", "/backups")) == {"items": [made], "most": 2}
    (order,) = ordered(counter, TakeBackup)
    await counter.bad("POST", f"/backups/{made['id']}/restore", status=409, code="backup_not_kept")
    assert isinstance(await counter.shop.handle(order), Done)
    shown = await counter.good("GET", f"/backups/{made['id']}")
    assert (shown["state"], shown["reason"]) == ("kept", None)
    assert shown["size_bytes"] > 8_000_000


async def test_a_restore_is_ordered_and_shown_with_its_epoch(counter: Counter) -> None:
    backup = (await counter.good("POST", "/backups", {}))["id"]
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    made = await counter.good("POST", f"/backups/{backup}/restore")
    assert (made["state"], made["backup_id"], made["epoch"]) == ("running", backup, None)
    assert await counter.good("GET", "/restores") == {"items": []}
    assert isinstance(await counter.shop.handle(ordered(counter, RestoreBackup)[0]), Done)
    (shown,) = (await counter.good("GET", "/restores"))["items"]
    assert (shown["id"], shown["state"], shown["epoch"], shown["ordered_by"]) == (made["id"], "done", 2, USER)


async def test_a_backup_is_forgotten_when_that_is_ordered(counter: Counter) -> None:
    backup = (await counter.good("POST", "/backups", {}))["id"]
    await counter.bad("DELETE", f"/backups/{backup}", status=409, code="backup_not_kept")
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    assert (await counter.good("DELETE", f"/backups/{backup}"))["state"] == "kept"
    await counter.shop.handle(ordered(counter, DropBackup)[0])
    assert (await counter.good("GET", f"/backups/{backup}"))["state"] == "dropped"
    await counter.bad("POST", f"/backups/{backup}/restore", status=409, code="backup_not_kept")


async def test_a_clone_is_ordered_and_its_copy_is_no_backup_of_the_owners(counter: Counter) -> None:
    made = (await counter.good("POST", "/clone", {"name": "A preview"}))["project_id"]
    (order,) = ordered(counter, TakeBackup)
    assert (order.clone_id, order.clone_name, order.ordered_by) == (made, "A preview", USER)
    await counter.shop.handle(order)
    (create,) = ordered(counter, CreateProject)
    await counter.shop.handle(create)
    assert (await counter.shop.row(made)).state == "ready"
    assert (await counter.good("GET", "/backups"))["items"] == []
    await counter.bad("GET", f"/backups/{order.backup_id}", status=404, code="not_found")


async def keyed(counter: Counter, path: str, key: str, body: Any = None) -> tuple[int, Any]:
    """The answer to a POST with an Idempotency-Key."""
    async with counter.http.post(counter.base + path, json=body or {}, headers={"Idempotency-Key": key}) as response:
        return response.status, await response.json(content_type=None)


async def test_the_same_key_for_another_backup_is_another_restore(counter: Counter) -> None:
    backups: list[str] = []
    for n in range(2):
        backups.append((await counter.good("POST", "/backups", {}))["id"])
        await counter.shop.handle(ordered(counter, TakeBackup)[n])
    answers: list[Any] = []
    for n, backup in enumerate(backups):
        answers += [(await keyed(counter, f"/backups/{backup}/restore", "one"))[1] for _ in range(2)]
        await counter.shop.handle(ordered(counter, RestoreBackup)[2 * n])
    ids = [a["id"] for a in answers]
    assert ids[0] == ids[1] != ids[2] == ids[3]
    assert [r["backup_id"] for r in (await counter.good("GET", "/restores"))["items"]] == backups[::-1]


@pytest.mark.promise("P4")
@pytest.mark.parametrize(("path", "body"), [("/backups", {}), ("/clone", {"name": "x"})])
async def test_of_many_orders_at_once_one_is_taken_and_the_others_hear_of_it(counter: Counter, path: str, body: dict[str, str]) -> None:
    answers = await asyncio.gather(*(counter.ask("POST", path, body) for _ in range(20)))
    assert sorted(status for status, _ in answers) == [202] + [409] * 19
    (order,) = ordered(counter, TakeBackup)
    assert {a["code"] for status, a in answers if status == 409} == {"busy"}
    assert all(str(order.backup_id) in a["detail"] for status, a in answers if status == 409)
    await counter.bad("POST", "/backups", {}, status=409, code="busy")
    await counter.shop.handle(order)
    await counter.good("POST", path, body)


async def test_an_order_that_is_repeated_is_answered_with_what_became_of_it(counter: Counter) -> None:
    backup = (await counter.good("POST", "/backups", {}))["id"]
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    path = f"/backups/{backup}/restore"
    assert (await keyed(counter, path, "one"))[1]["state"] == "running"
    (order,) = ordered(counter, RestoreBackup)
    await counter.shop.killed(order, "provisioner.restore.copied")
    status, running = await keyed(counter, path, "one")
    assert (status, running["state"], running["epoch"], running["ended_at"]) == (202, "running", 2, None)
    await counter.shop.handle(order)
    await counter.shop.handle(DropBackup(project_id=order.project_id, backup_id=order.backup_id, ordered_by=USER))
    status, done = await keyed(counter, path, "one")
    assert (status, done["state"], done["id"]) == (202, "done", str(order.restore_id))
    assert (await counter.good("GET", "/restores"))["items"] == [done]
    assert len(ordered(counter, RestoreBackup)) == 1, "what was handled is not said again"


async def test_a_restore_whose_order_is_a_dead_letter_does_not_run_any_more(counter: Counter) -> None:
    backup = (await counter.good("POST", "/backups", {}))["id"]
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    await keyed(counter, f"/backups/{backup}/restore", "one")
    (order,) = ordered(counter, RestoreBackup)
    await counter.shop.killed(order, "provisioner.restore.told")
    await counter.shop.pool.execute(
        "INSERT INTO deferred (group_name, partition, seq, event_id, lane, project, event, state, attempts, next_at, reason, ended_at)"
        " VALUES ('provisioner', 'projects.commands.v1/0', 1, $1, 'project', $2, '', 'dead', 3, now(), 'ValueError: inside', now())",
        str(order.restore_id),
        order.project_id,
    )
    (shown,) = (await counter.good("GET", "/restores"))["items"]
    assert (shown["state"], "dead letters" in shown["reason"], shown["ended_at"] is not None) == ("failed", True, True)
    assert (await keyed(counter, f"/backups/{backup}/restore", "one"))[1] == shown
    await counter.shop.pool.execute("UPDATE deferred SET state = 'deferred', ended_at = NULL")  # an operator gives it another try
    assert (await counter.good("GET", "/restores"))["items"][0]["state"] == "running"


async def test_nothing_else_is_ordered_while_a_restore_waits_or_runs(counter: Counter) -> None:
    backup = (await counter.good("POST", "/backups", {}))["id"]
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    await counter.good("POST", f"/backups/{backup}/restore")
    await counter.bad("POST", f"/backups/{backup}/restore", status=409, code="busy")
    (order,) = ordered(counter, RestoreBackup)
    await counter.shop.killed(order, "provisioner.restore.told")
    await counter.shop.pool.execute("DELETE FROM reservations")  # it is old, and the restore goes on
    problem = await counter.bad("POST", "/backups", {}, status=409, code="busy")
    assert str(order.restore_id) in problem["detail"]
    await counter.shop.handle(order)
    await counter.good("POST", "/backups", {})


async def test_an_order_whose_saying_was_cut_off_bars_the_project_for_minutes_only(counter: Counter) -> None:
    query = "INSERT INTO reservations (project_id, order_id, kind, reserved_at) VALUES ($1, $2, 'clone', now() - $3::interval)"
    await counter.shop.pool.execute(query, counter.project.project_id, uuid4(), timedelta(minutes=9))
    await counter.bad("POST", "/backups", {}, status=409, code="busy")
    await counter.shop.pool.execute("UPDATE reservations SET reserved_at = now() - interval '11 minutes'")
    await counter.good("POST", "/backups", {})


@pytest.mark.parametrize(("path", "body"), [("/backups", {}), ("/clone", {"name": "x"})])
async def test_the_same_key_is_the_same_order(counter: Counter, path: str, body: dict[str, str]) -> None:
    answers = [(await keyed(counter, path, key, body)) for key in ("one", "one", "two")]
    assert answers[0] == answers[1]
    assert answers[2][1]["code"] == "busy"
    await counter.shop.handle(ordered(counter, TakeBackup)[0])
    again, other = await keyed(counter, path, "one", body), await keyed(counter, path, "two", body)
    assert again[0] == other[0] == 202
    assert len({o.backup_id for o in ordered(counter, TakeBackup)}) == 2
    async with counter.http.post(counter.base + path, json=body, headers={"Idempotency-Key": "x" * 201}) as response:
        assert response.status == 422


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("POST", "/backups", {"note": "x" * 201}, "body.note"),
        ("POST", "/backups", {"notes": "x"}, "body.notes"),
        ("POST", "/clone", {"name": ""}, "body.name"),
        ("POST", "/clone", {"name": "x" * 101}, "body.name"),
        ("GET", "/backups/1'; DROP TABLE backups; --", None, "path.backup_id"),
    ],
)
async def test_bad_input_names_the_field(counter: Counter, method: str, path: str, body: Any, field: str) -> None:
    problem = await counter.bad(method, path, body, status=422, code="invalid_request")
    assert problem["errors"][0]["field"] == field


async def test_another_projects_backup_is_not_there(shop: Workshop) -> None:
    async with open_counter(shop) as one, open_counter(shop) as other:
        backup = (await one.good("POST", "/backups", {}))["id"]
        for method, path in (("GET", ""), ("DELETE", ""), ("POST", "/restore")):
            await other.bad(method, f"/backups/{backup}{path}", status=404, code="not_found")
        await one.bad("GET", f"/backups/{uuid4()}", status=404, code="not_found")


async def test_a_bus_that_is_away_is_a_problem_and_nothing_is_noted(counter: Counter) -> None:
    counter.shop.bus.broker.down = True
    await counter.bad("POST", "/backups", {}, status=503, code="unavailable")
    counter.shop.bus.broker.down = False
    assert (await counter.good("GET", "/backups"))["items"] == []
    await counter.good("POST", "/backups", {})


async def test_a_deleted_project_has_none(counter: Counter) -> None:
    await counter.shop.handle(delete(counter.project.project_id))
    for method, path in (("GET", "/backups"), ("POST", "/backups"), ("GET", "/restores"), ("POST", "/clone")):
        body = {"name": "x"} if path == "/clone" else {} if method == "POST" else None
        await counter.bad(method, path, body, status=404, code="not_found")
