"""One suite for every engine: crashes, several members, a frozen one, an engine that goes away. What memory cannot show is said."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import Counter, defaultdict
from pathlib import Path

import pytest
from loquat_common.bus.limits import Limits
from loquat_common.bus.port import BusUnavailable, Done, Outcome, Received

from libs.common.tests.bus.engines import PATIENCE, Engine, KafkaEngine, PostgresEngine, event, neighbours, number, until


def without_memory(engine: Engine, request: pytest.FixtureRequest, reason: str) -> None:
    """A gap of the fake, named: the test must fail there, or the gap is closed."""
    if engine.name == "memory":
        request.applymarker(pytest.mark.xfail(reason=reason, strict=True, raises=AssertionError))


@pytest.mark.promise("P2")
async def test_a_crash_loses_nothing_and_repeats_no_more_than_the_span(engine: Engine) -> None:
    seen: Counter[int] = Counter()

    async def handle(received: Received) -> Outcome:
        await asyncio.sleep(0.001)
        seen[number(received.event)] += 1
        return Done()

    (project,) = neighbours(1)
    limits = Limits(span=100)
    await engine.publish(event(project, f"lane{n % 20}", n) for n in range(600))
    for crash in range(3):
        member = await engine.member(handle, limits=limits)
        await until(lambda crash=crash: len(seen) > 100 * (crash + 1), "it is in the middle")
        await member.crash()
    await engine.member(handle, limits=limits)
    await until(lambda: len(seen) == 600, "all are handled")
    assert sum(seen.values()) - 600 <= 3 * (100 + 200)  # span, and one fetch that overshoots it


@pytest.mark.promise("P3")
async def test_two_members_share_the_partitions_and_never_a_lane_when_one_joins_and_one_leaves(
    engine: Engine, request: pytest.FixtureRequest
) -> None:
    without_memory(engine, request, "memory has groups of one member")
    seen: Counter[int] = Counter()
    order: dict[str, list[int]] = defaultdict(list)
    by_member: Counter[str] = Counter()
    running: Counter[str] = Counter()

    def handler(name: str):
        async def handle(received: Received) -> Outcome:
            lane = f"{received.event.projectid} {received.event.lane}"
            running[lane] += 1
            assert running[lane] == 1, "two members in one lane"
            try:
                await asyncio.sleep(0.002)
            finally:
                running[lane] -= 1
            if number(received.event) not in seen:
                order[lane].append(number(received.event))
            seen[number(received.event)] += 1
            by_member[name] += 1
            return Done()

        return handle

    projects = [p for _ in range(8) for p in neighbours(1)]

    async def feed(first: int) -> None:
        await engine.publish(event(projects[n % 8], f"lane{n % 5}", n) for n in range(first, first + 400))

    first = await engine.member(handler("first"), replica="first")
    await feed(0)
    await until(lambda: len(seen) > 100, "the first works")
    await engine.member(handler("second"), replica="second")
    for part in range(1, 400):  # as many as it takes until the second has joined
        await feed(part * 400)
        await until(lambda part=part: len(seen) == (part + 1) * 400, "all so far are handled", 8 if engine.name == "memory" else PATIENCE)
        if by_member["second"] > 0:
            break
    assert by_member["second"] > 0, "the second got partitions"
    total = len(seen)
    assert await first.drain()
    await feed(total)
    await until(lambda: len(seen) == total + 400, "the second takes over")
    assert all(found == sorted(found) for found in order.values())
    assert sum(seen.values()) - len(seen) <= 1_000


@pytest.mark.promise("P3")
async def test_a_frozen_member_loses_its_partitions_and_does_no_harm_when_it_wakes(engine: Engine, request: pytest.FixtureRequest) -> None:
    without_memory(engine, request, "memory has no other process")
    seen: Counter[int] = Counter()

    async def handle(received: Received) -> Outcome:
        seen[number(received.event)] += 1
        return Done()

    (project,) = neighbours(1)
    other = await _other_process(engine)
    try:
        await engine.publish(event(project, f"lane{n}", n) for n in range(10))
        assert other.stdout is not None
        async with asyncio.timeout(PATIENCE):
            assert await other.stdout.readline() == b"handled\n"
        other.send_signal(signal.SIGSTOP)
        await engine.member(handle, replica="second")
        await engine.publish(event(project, f"lane{n}", n) for n in range(10, 40))
        await until(lambda: set(seen) >= set(range(10, 40)), "the other one takes over")
        other.send_signal(signal.SIGCONT)
        await engine.publish(event(project, f"lane{n}", n) for n in range(40, 60))
        await until(lambda: set(seen) >= set(range(10, 60)), "it goes on")
    finally:
        other.kill()
        await other.wait()


async def _other_process(engine: Engine) -> asyncio.subprocess.Process:
    assert isinstance(engine, PostgresEngine | KafkaEngine)
    servers = engine.broker.servers if isinstance(engine, KafkaEngine) else ""
    arguments = [engine.name, engine.platform.dsn(engine.service), engine.group, servers]
    folder = Path(__file__).resolve().parents[4]
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "libs.common.tests.bus.member",
        *arguments,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        stdout=asyncio.subprocess.PIPE,
    )


@pytest.mark.promise("P1")
async def test_an_engine_that_restarts_loses_nothing_and_consumers_go_on(engine: Engine, request: pytest.FixtureRequest) -> None:
    without_memory(engine, request, "memory is gone when it restarts")
    seen: Counter[int] = Counter()

    async def handle(received: Received) -> Outcome:
        seen[number(received.event)] += 1
        return Done()

    (project,) = neighbours(1)
    member = await engine.member(handle)
    await engine.publish(event(project, f"lane{n % 5}", n) for n in range(50))
    await until(lambda: len(seen) == 50, "all are handled")
    await engine.restart()
    kept, refused = list[int](), 0
    async with asyncio.timeout(90):
        n = 50
        while len(kept) < 30:
            try:
                await engine.publish([event(project, f"lane{n % 5}", n)])
                kept.append(n)
            except BusUnavailable:
                refused += 1
                await asyncio.sleep(0.1)
            n += 1
    await until(lambda: set(kept) <= set(seen), "all that was confirmed is handled", 60)
    assert not member.task.done(), "the consumer goes on"
