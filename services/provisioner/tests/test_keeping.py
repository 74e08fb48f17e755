"""The API of backups, restores and clones: orders are durable, seen at once, the same for the same key; their way is shown."""

from __future__ import annotations

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


@pytest.mark.parametrize(("path", "body"), [("/backups", {}), ("/clone", {"name": "x"})])
async def test_the_same_key_is_the_same_order(counter: Counter, path: str, body: dict[str, str]) -> None:
    keys = ["one", "one", "two"]
    answers: list[Any] = []
    for key in keys:
        async with counter.http.post(counter.base + path, json=body, headers={"Idempotency-Key": key}) as response:
            answers.append(await response.json())
    assert answers[0] == answers[1] != answers[2]
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


async def test_a_deleted_project_has_none(counter: Counter) -> None:
    await counter.shop.handle(delete(counter.project.project_id))
    for method, path in (("GET", "/backups"), ("POST", "/backups"), ("GET", "/restores"), ("POST", "/clone")):
        body = {"name": "x"} if path == "/clone" else {} if method == "POST" else None
        await counter.bad(method, path, body, status=404, code="not_found")
