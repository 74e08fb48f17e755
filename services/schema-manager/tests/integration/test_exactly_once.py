"""Two runners on the same lanes, killed and frozen over and over, conversation-log beside them: every effect is there exactly once."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import signal
import sys
from asyncio.subprocess import Process
from collections import Counter
from pathlib import Path
from typing import Any, Final
from uuid import NAMESPACE_URL, UUID, uuid5

import asyncpg
import pytest

from tests.tenants import PASSWORD, Desk, Project, Tenants

EVENTS: Final = 500
CONVERSATIONS: Final = 20
SPLIT: Final = 5
"""Conversations whose contact arrives under two addresses, so on two lanes at once."""
PATIENCE: Final = 120.0  # seconds; 10 to 15 are usual


def reply_id(event: str, n: int) -> str:
    digest = bytearray(hashlib.sha256(UUID(event).bytes + n.to_bytes(4, "big")).digest()[:16])
    digest[6], digest[8] = digest[6] & 15 | 128, digest[8] & 63 | 128
    return str(UUID(bytes=bytes(digest)))


def make_events(projects: list[Project]) -> list[dict[str, Any]]:
    events: list[dict[str, Any]] = []
    for i in range(EVENTS):
        person, n = i % CONVERSATIONS, i // CONVERSATIONS
        wamid = f"wamid.{i}"
        element = {
            "id": str(uuid5(NAMESPACE_URL, wamid)),
            "kind": "message",
            "number_id": "1",
            "name": f"contact {person}",
            "addresses": [{"kind": "user_id", "value": f"u{person}"}, {"kind": "phone", "value": f"+49{person:08}"}],
            "message": {"type": "text", "text": f"message {n}", "wamid": wamid, "raw": json.dumps({"n": n})},
        }
        lane = f"{person}:{n % 2}" if person < SPLIT else f"{person}"
        events.append({"database": projects[person % len(projects)].database, "lane": lane, "books": i % 3 != 0, "element": element})
    return events


async def log_everything_twice(desk: Desk, elements: list[dict[str, Any]]) -> None:
    """conversation-log, in batches of two sizes."""
    for size in (40, 97):
        left = list(elements)
        while left:
            try:
                await desk.record(*left[:size])
                left = left[size:]
            except (asyncpg.DeadlockDetectedError, asyncpg.LockNotAvailableError):
                continue  # the bus would bring the batch again


async def spawn(folder: Path, name: str) -> Process:
    return await asyncio.create_subprocess_exec(sys.executable, str(Path(__file__).parent / "runner.py"), str(folder), name)


async def keep_running(folder: Path, name: str) -> int:
    """Starts a runner anew until it ends well; how often it was killed."""
    kills = 0
    while True:
        process = await spawn(folder, name)
        try:
            code = await process.wait()
        except BaseException:
            process.kill()
            raise
        if code == 0:
            return kills
        assert code == -signal.SIGKILL, f"runner {name} ended with {code}"
        kills += 1


async def freeze_now_and_then(folder: Path) -> None:
    """A third runner that is stopped for longer than anybody waits, wakes up, and goes on with what it knew."""
    while True:
        process = await spawn(folder, "frozen")
        with contextlib.suppress(ProcessLookupError):  # it was done, or its own failpoint killed it
            try:
                for _ in range(3):
                    await asyncio.sleep(0.7)  # the time in which it gets somewhere
                    process.send_signal(signal.SIGSTOP)
                    await asyncio.sleep(1.2)
                    process.send_signal(signal.SIGCONT)
                await asyncio.sleep(0.3)
            finally:
                if process.returncode is None:
                    process.kill()
                await process.wait()


@pytest.mark.promise("P2")
@pytest.mark.promise("P3")
@pytest.mark.promise("P7")
async def test_every_effect_is_there_exactly_once_whoever_dies_or_freezes(tenants: Tenants, tmp_path: Path) -> None:
    projects = [await tenants.project() for _ in range(2)]
    for project in projects:
        editor = await project.login("editor")
        await editor.execute("CREATE TABLE bookings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, event_id uuid)")
    events = make_events(projects)
    address = {"host": tenants.cluster.host, "port": tenants.cluster.port, "password": PASSWORD}
    (tmp_path / "work.json").write_text(json.dumps({"events": events, "recording": True, **address}))
    (tmp_path / "finished").touch()
    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for project in projects:
            mine = [e["element"] for e in events if e["database"] == project.database]
            group.create_task(log_everything_twice(await Desk.of(project), mine))
        frozen = group.create_task(freeze_now_and_then(tmp_path))
        kills = sum(await asyncio.gather(*(keep_running(tmp_path, f"runner {n}") for n in range(2))))
        frozen.cancel()
    ways = Counter((tmp_path / "ways").read_text().split())
    assert kills > 3, "a torture test that kills nobody shows nothing"
    assert ways["done"], ways
    published = set((tmp_path / "published").read_text().split())
    for project in projects:
        await verify(project, [e for e in events if e["database"] == project.database], published)
        await tenants.drop(project)


async def verify(project: Project, events: list[dict[str, Any]], published: set[str]) -> None:
    root, ids = await project.root(), Counter(e["element"]["id"] for e in events)
    bookings = Counter(str(r[0]) for r in await root.fetch("SELECT event_id FROM bookings"))
    assert bookings == Counter(e["element"]["id"] for e in events if e["books"]), "one booking per event that books"
    inbound = Counter(str(r[0]) for r in await root.fetch("SELECT id FROM public.messages WHERE direction = 'in'"))
    assert inbound == ids, "one message per event"
    outcomes = await root.fetch("SELECT coalesce(outcome, 'waiting') AS outcome, count(*) AS n FROM loquat.events GROUP BY 1")
    assert {r["outcome"]: r["n"] for r in outcomes} == {"handled": len(events)}
    conversations = await root.fetch(
        "SELECT c.contact_id, c.status, c.state, c.version, count(e.id) AS events FROM public.conversations AS c"
        " JOIN loquat.events AS e ON e.conversation_id = c.id GROUP BY c.id"
    )
    assert all(c["version"] == c["events"] and c["state"] == f"s{c['events']}" for c in conversations), (
        "every state counted each event once"
    )
    assert all((c["status"] == "closed") == (c["events"] == 7) for c in conversations), "a conversation ends at its seventh event"
    results = await root.fetch("SELECT event_id, version FROM loquat.results")
    wanted = {reply_id(str(r["event_id"]), n + 1) for r in results for n in range(1 + (r["version"] + 1) % 2)}
    stored = {str(r[0]) for r in await root.fetch("SELECT id FROM public.messages WHERE direction = 'out'")}
    assert stored == wanted
    assert wanted <= published
    assert await root.fetchval("SELECT count(*) FROM loquat.outbox") == 0
