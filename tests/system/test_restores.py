"""A database that goes back to a point, and one that begins as a copy of another, with their bots at work through the whole stack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.system import webhooks
from tests.system.conftest import Running
from tests.system.world import World, balanced, until

ECHO = (Path(__file__).parent / "bots" / "echo.py").read_text()
ANNA = "4915112347001"

pytestmark = [
    pytest.mark.parametrize("running", ["postgres"], indirect=True),  # what is copied knows nothing of the bus
    pytest.mark.timeout(120),
]


async def say(world: World, number: str, text: str) -> None:
    assert await world.deliver(webhooks.body(number, messages=[webhooks.text(ANNA, f"wamid.{number}.{text}", text)])) == 200


async def sent(world: World, number: str) -> list[str]:
    """What Meta was asked to send from a number, every attempt."""
    items = (await world.simulate("GET", "/api/attempts"))["items"]
    return [a["body"]["text"]["body"] for a in items if a["phone_number_id"] == number and a["body"].get("type") == "text"]


async def state(world: World, project: str) -> dict[str, Any]:
    """What its database holds. Nobody is left inside: a copy wants it empty."""
    database = await world.database(project)
    try:
        return {
            "heard": [r["said"] for r in await database.fetch("SELECT said FROM public.heard ORDER BY said")],
            "messages": sorted(r["text"] for r in await database.fetch("SELECT text FROM public.messages")),
            "outbox": await database.fetchval("SELECT count(*) FROM loquat.outbox"),
            "open": await database.fetchval("SELECT count(*) FROM loquat.events WHERE outcome IS NULL"),
            "epoch": await database.fetchval("SELECT epoch FROM loquat.identity"),
        }
    finally:
        world.opened.remove(database)
        await database.close()


def answered(*texts: str) -> list[str]:
    return [f"{word}: {text}" for text in texts for word in ("one", "two")]


def holds(*texts: str) -> dict[str, Any]:
    """Of these conversations, and nothing to do."""
    return {"heard": sorted(texts), "messages": sorted([*texts, *answered(*texts)]), "outbox": 0, "open": 0}


@pytest.mark.promise("P2")
@pytest.mark.promise("P7")
async def test_a_restored_project_sends_nothing_again_and_answers_what_came_meanwhile_once(running: Running, world: World) -> None:
    project = await world.project("restored", {"bot.py": ECHO})
    number, base = await world.number(project), f"/v1/projects/{project}/database"
    await say(world, number, "before")
    await world.got(number, ANNA, 2)
    await world.quiet(project)
    backup = (await world.good("POST", f"{base}/backups", {"note": "a point"}))["id"]

    async def kept() -> bool:
        return (await world.good("GET", f"{base}/backups/{backup}"))["state"] == "kept"

    await until(kept, "the backup is kept")
    await say(world, number, "after")
    await world.got(number, ANNA, 4)
    await world.quiet(project)
    assert await state(world, project) == {**holds("after", "before"), "epoch": 1}

    shut, swapped = "provisioner.restore.shut", "provisioner.restore.swapped"
    running.arm(shut)  # the provisioner dies with the database closed, and goes on when its lease is over
    running.arm(swapped)
    order: dict[str, Any] = {"headers": {"Idempotency-Key": "back"}}
    ordered = await world.good("POST", f"{base}/backups/{backup}/restore", **order)

    async def closed() -> bool:
        return running.fired(shut)

    await until(closed, "the database is closed")
    await say(world, number, "during")
    assert not running.fired(swapped), "the message came before the copy took its place"

    async def over() -> dict[str, Any] | None:
        answer = await world.rest("GET", f"{base}/restores")
        return next((r for r in answer.body["items"] if r["state"] != "running"), None) if answer.status == 200 else None

    done = await until(over, "the restore is over", 60)
    assert (done["id"], done["state"], done["epoch"], running.fired(swapped)) == (ordered["id"], "done", 2, True)
    assert await world.good("POST", f"{base}/backups/{backup}/restore", **order) == done
    await world.got(number, ANNA, 6)
    await say(world, number, "last")
    said = answered("before", "after", "during", "last")
    assert [m["text"] for m in await world.got(number, ANNA, 8)] == said
    ledger = await world.quiet(project)
    assert await sent(world, number) == said, "each of them once, and nothing of the past again"
    assert balanced(ledger), ledger
    assert (ledger["accepted"], ledger["handled"], ledger["dead"]) == (3, 3, 0)
    assert await state(world, project) == {**holds("before", "during", "last"), "epoch": 2}


@pytest.mark.promise("P4")
async def test_a_clone_has_the_rows_and_no_number_and_says_nothing(world: World) -> None:
    source = await world.project("source", {"bot.py": ECHO})
    number = await world.number(source)
    await say(world, number, "hello")
    await world.got(number, ANNA, 2)
    await world.quiet(source)
    clone: str = (await world.good("POST", f"/v1/projects/{source}/database/clone", {"name": "preview"}))["project_id"]

    async def ready() -> bool:
        answer = await world.rest("GET", f"/v1/projects/{clone}")
        return answer.status == 200 and answer.body["status"] == "ready"

    await until(ready, "the clone is ready")
    copied = {**holds("hello"), "epoch": 2}
    assert await state(world, clone) == copied
    assert (await world.good("GET", f"/v1/projects/{clone}/numbers"))["items"] == []

    await say(world, number, "to the source")
    await world.got(number, ANNA, 4)
    ledgers = [await world.quiet(p) for p in (source, clone)]
    assert all(balanced(ledger) for ledger in ledgers), ledgers
    assert await sent(world, number) == answered("hello", "to the source"), "of the source alone"
    assert await state(world, clone) == copied
    assert await state(world, source) == {**holds("hello", "to the source"), "epoch": 1}
