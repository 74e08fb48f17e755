"""The whole stack: idle, making projects, answering messages."""

from __future__ import annotations

import asyncio
import os
import statistics
import time
from pathlib import Path
from typing import Any

import aiohttp
from loquat_cli.stack import Stack

from bench.processes import cpu, memory, tree
from tests.system import webhooks

RATE, SECONDS, PROJECTS = 20, 15, 30
ECHO = (Path(__file__).resolve().parents[1] / "tests" / "system" / "bots" / "echo.py").read_text()


async def idle(stack: Stack) -> None:
    """Nobody writes: goal under 5 % of one core and 800 MB over all processes."""
    del stack
    await asyncio.sleep(8)
    pids = [p for p in tree(os.getpid()) if p != os.getpid()]
    before, began = cpu(pids), time.monotonic()
    await asyncio.sleep(20)
    share = (cpu(pids) - before) / (time.monotonic() - began)
    pss, rss = memory(pids)
    print(
        f"idle: {share * 100:.1f} % of one core (goal 5), {pss:.0f} MB with shared memory counted once, {rss:.0f} MB as a plain sum (goal 800); {len(pids)} processes"
    )


async def projects(stack: Stack) -> None:
    """Create to ready: goal p50 under 500 ms."""
    took = list[float]()
    async with _session(stack) as session:
        for n in range(PROJECTS):
            began = time.perf_counter()
            project = (await _call(session, "POST", "/v1/projects", {"name": f"bench {n}"}))["id"]
            while (await _call(session, "GET", f"/v1/projects/{project}"))["status"] != "ready":  # noqa: ASYNC110  (REST has no event)
                await asyncio.sleep(0.005)
            took.append((time.perf_counter() - began) * 1000)
    print(
        f"project create to ready: p50 {statistics.median(took):.0f} ms (goal 500), max {max(took):.0f} ms, n = {PROJECTS}, one after the other"
    )


async def replies(stack: Stack) -> None:
    """A webhook to the first reply at the simulator, 20 messages per second, a contact each: goal p50 under 40 ms."""
    owner = stack.owner
    async with _session(stack) as session:
        await _call(session, "POST", f"/v1/projects/{owner.project_id}/bot/deployments", {"files": {"bot.py": ECHO}, "message": "bench"})
        await _one(session, owner, "4917000000", "warm up")
        await asyncio.sleep(2)
        pids = [p for p in tree(os.getpid()) if p != os.getpid()]
        before, sent, tasks = cpu(pids), dict[str, float](), list[asyncio.Task[None]]()
        start = time.monotonic()
        for n in range(RATE * SECONDS):
            await asyncio.sleep(max(0.0, start + n / RATE - time.monotonic()))  # open loop: due by the clock, not by the answers
            contact = f"4917{n:07}"
            sent[contact] = time.time()
            tasks.append(asyncio.create_task(_one(session, owner, contact, f"message {n}")))
        await asyncio.gather(*tasks)
        await asyncio.sleep(3)
        used = cpu(pids) - before
        took = sorted([1000 * (first - at) for contact, at in sent.items() if (first := await _first(session, owner, contact)) is not None])
    lost = RATE * SECONDS - len(took)
    p99 = took[int(len(took) * 0.99)]
    print(
        f"webhook to reply at {RATE} per second: p50 {statistics.median(took):.1f} ms (goal 40), p99 {p99:.1f} ms, n = {len(took)}, unanswered {lost}"
    )
    print(
        f"  CPU per message over all processes: {used / (RATE * SECONDS) * 1000:.1f} ms (two replies each, statuses and the simulator included)"
    )


def _session(stack: Stack) -> aiohttp.ClientSession:
    return aiohttp.ClientSession(base_url=stack.owner.gateway, headers={"Authorization": f"Bearer {stack.owner.api_key}"})


async def _call(session: aiohttp.ClientSession, method: str, path: str, body: object = None) -> Any:
    async with session.request(method, path, json=body) as response:
        assert response.status < 300, f"{method} {path}: {response.status} {await response.text()}"
        return await response.json()


async def _one(session: aiohttp.ClientSession, owner: Any, contact: str, text: str) -> None:
    raw = webhooks.body(owner.phone_number_id, messages=[webhooks.text(contact, f"wamid.{contact}.{text}", text)])
    headers = {"X-Hub-Signature-256": webhooks.signature(owner.app_secret, raw), "Content-Type": "application/json"}
    async with session.post("/webhooks/whatsapp", data=raw, headers=headers) as response:
        assert response.status == 200


async def _first(session: aiohttp.ClientSession, owner: Any, contact: str) -> float | None:
    url = f"{owner.simulator}/api/messages?phone_number_id={owner.phone_number_id}&contact={contact}"
    async with session.get(url) as response:
        found = (await response.json())["messages"]
    return found[0]["at"] if found else None
