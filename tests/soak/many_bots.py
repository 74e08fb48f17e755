"""Three hundred projects whose people write while everything dies at random: no event is lost, none is handled twice, order is kept, memory is flat, and at
the end nothing is left.

Run by `make soak`. LOQUAT_SOAK_PROJECTS, _SECONDS, _RATE (messages per second) and _SEED change it; the seed is printed. What went wrong is said
sentence by sentence, and the logs are kept.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import aiohttp
import asyncpg
import pytest
from loquat_cli.restarts import Restarts
from loquat_cli.settings import StackSettings
from loquat_cli.stack import Stack
from loquat_events.catalog import SERVICES

from tests.neighbours import differences
from tests.remains import Growth, adopt, descriptors, groups, left_behind, mounts, own_memory, since
from tests.settlement import Settlement
from tests.storm import BUT_THE_RUNNER, EVERYBODY, Storm, Weights, bots
from tests.system.world import World, until

pytestmark = pytest.mark.timeout(7200)


def _given(name: str, default: object) -> str:
    return os.environ.get(f"LOQUAT_SOAK_{name}") or str(default)


PROJECTS: Final = int(_given("PROJECTS", 300))
SECONDS: Final = float(_given("SECONDS", 600))
RATE: Final = float(_given("RATE", 6))
SEED: Final = int(_given("SEED", random.SystemRandom().randrange(10**6)))
STORMY: Final = 0.6
"""Share of the time in which the runner and the databases die, too; in the rest one runner lives and its memory is looked at."""
EACH_WRITES: Final = 10  # messages of a person, about; a timer's bot has names for 50
PATIENCE: Final = 300.0
"""Seconds until all is done, when nobody writes or dies any more: three tries of a failing bot take 8, a lost sender's lease 15, a webhook's next repeat 60."""
REST: Final = 150.0
"""Seconds until an idle stack holds nothing of its projects: workers go after 15, connections of services after 60 to 90."""
SOON: Final = 10.0  # seconds for the kernel to let go of a worker
KNOWN: Final = 20.0
"""Seconds between an attempt whose fate nobody knows and the death that made it so: its lease and a restart."""
GROWTH: Final = 8.0
"""MiB that the runner may grow by in the last third of the calm: a few times what its samples scatter by. What leaks 8 KiB a call is found in 1,000."""
DESCRIPTORS: Final = 40
"""Open files that a resting runner may have more than one that has just started: its pool, what gateway and provisioner keep open (20 to 25 were seen)."""
SHOWN: Final = 40  # sentences of what is wrong; all of it is in a file
HOME: Final = Path(__file__).resolve().parents[2]
QUICK: Final = {
    "*": {"LOQUAT_BUS_LEASE": "3"},  # what a crash costs
    "bot-runner": {
        "LOQUAT_WORKERS": "60",
        "LOQUAT_WORKER_IDLE": "15",
    },  # fewer than projects: they make room for each other, and go at the end
}
SESSIONS: Final = "SELECT usename, count(*) FROM pg_stat_activity WHERE datname ^@ 'p_' AND pid <> pg_backend_pid() GROUP BY usename"


def say(text: str) -> None:
    """Its numbers are what it is for."""
    print(f"  {text}", flush=True)  # noqa: T201


@dataclass(slots=True)
class Soak:
    """One run, and what is wrong so far."""

    stack: Stack
    settlement: Settlement
    storm: Storm
    wrong: list[str] = field(default_factory=list[str])
    runners: set[str] = field(default_factory=set[str])
    growth: Growth = field(default_factory=Growth)
    sessions: Counter[str] = field(default_factory=Counter[str])

    @property
    def runner(self) -> int:
        """Its process; 0 while there is none."""
        return self.stack.process("bot-runner").pid or 0

    async def live(self, seconds: float, weights: Weights, *, measured: bool = False) -> None:
        """People write and the storm rages, for so long; then everybody is back."""
        async with asyncio.TaskGroup() as group:
            watching = group.create_task(self._watch(measured=measured))
            async with asyncio.TaskGroup() as both:
                both.create_task(self.storm.rage(self.stack, self.settlement.deploy, seconds, weights))
                both.create_task(self.settlement.write(seconds, RATE))
            watching.cancel()
        await until(self._up, "everybody is back", 60)

    async def _watch(self, *, measured: bool) -> None:
        while True:
            if pid := self.runner:
                self.runners.add(f"{pid}-{since(pid)}")
                if measured:
                    self.growth.samples.append(own_memory(pid))
            for cluster, name in zip(self.stack.clusters, ("platform", "tenants"), strict=True):
                try:
                    root = await cluster.connect()
                    there = await root.fetchval("SELECT count(*) - 1 FROM pg_stat_activity WHERE backend_type = 'client backend'")
                    await root.close()
                except (OSError, asyncpg.PostgresError, asyncpg.InterfaceError):
                    continue  # it has been struck
                self.sessions[name] = max(self.sessions[name], there)
            await asyncio.sleep(1.0)

    async def _up(self) -> bool:
        if any(p.state != "running" for p in self.stack.supervisor.processes.values()):
            return False
        try:
            async with asyncio.timeout(10):
                await asyncio.gather(*(self.stack.ready(n) for n in SERVICES))
        except TimeoutError:
            return False
        return True

    async def judge(self, end: float) -> None:
        """What is wrong with any project, once nothing is or the time is over."""
        left = self.settlement.neighbours
        while True:
            wrong = {n.project: differences(n, await self.settlement.found(n)) for n in left}
            left = [n for n in left if wrong[n.project]]
            if not left or time.monotonic() > end:
                break
            await asyncio.sleep(2.0)
        for neighbour in left:
            self.wrong += (*wrong[neighbour.project], *await self.settlement.evidence(neighbour))

    async def judge_unsure(self) -> None:
        """Each message whose fate nobody knows must have been under way when the connector died, or the database where it writes that down."""
        unsure, deaths = await self.settlement.unsure(), self.storm.struck("connector", "platform")
        say(f"messages whose fate nobody knows: {len(unsure)}")
        self.wrong += [f"nobody knows of a message at {at}, and nobody died" for at in unsure if all(abs(d - at) > KNOWN for d in deaths)]

    def judge_runner(self, fresh: int) -> None:
        """What the runner holds at rest, and has grown by. `fresh`: open files of one that has just started."""
        files, (before, after) = descriptors(self.runner), self.growth.thirds
        say(
            f"runner: {before:.1f} MiB of its own in the calm, {after:.1f} in its last third (bound +{GROWTH:g}), {own_memory(self.runner):.1f} at rest;"
        )
        say(f"  open files {fresh} fresh, {files} at rest (bound +{DESCRIPTORS})")
        if files > fresh + DESCRIPTORS:
            self.wrong.append(f"a resting runner has {files} open files, one that has just started {fresh}")
        if after - before > GROWTH:
            self.wrong.append(f"the runner grew by {after - before:.1f} MiB, from {before:.1f} to {after:.1f}")

    async def held(self) -> list[str]:
        """What an idle stack still holds of its projects."""
        held = [f"a worker of a bot runs: {worker}" for worker in bots(self.stack).workers]
        root = await self.stack.tenants.connect()
        try:
            return held + [f"{r['count']} sessions of {r['usename']}" for r in await root.fetch(SESSIONS)]
        finally:
            await root.close()

    async def grouped(self) -> list[str]:
        """Control groups of the runner's."""
        return [f"there is a control group: {group}" for group in groups(f"{self.runner}-{since(self.runner)}")]

    def tell(self) -> None:
        """The numbers."""
        people = [p for n in self.settlement.neighbours for p in n.people]
        say(f"{sum(len(p.wamids) for p in people)} messages of {len(people)} people; most connections: {dict(self.sessions)}")
        say(f"who died: {dict(Counter(b.target for b in self.storm.blows))}")
        say(f"errors in logs: {dict(errors(self.stack.logs))}")


async def nothing(look: Callable[[], Awaitable[Sequence[str]]], end: float) -> Sequence[str]:
    """What `look` still sees when the time is over; empty as soon as it sees nothing."""
    while True:
        if not (seen := await look()) or time.monotonic() > end:
            return seen
        await asyncio.sleep(1.0)


def errors(logs: Path) -> Counter[str]:
    """Lines of services' logs that say error, by service and what happened."""
    found = Counter[str]()
    for log in logs.glob("*.log"):
        for line in log.read_text(errors="replace").splitlines():
            if line.startswith("{") and '"error"' in line and (said := json.loads(line)).get("level") == "error":
                found[f"{log.stem} {said.get('event')}"] += 1
    return found


@asynccontextmanager
async def soaking(home: Path) -> AsyncGenerator[Soak]:
    """A stack of its own."""
    chance = random.Random(SEED)  # noqa: S311  (an order, no secret)
    storm = Storm(chance)
    settings = StackSettings.for_tests(home, drain_seconds=5)
    async with (
        Stack(settings, overrides=QUICK, restarts=Restarts(first=0.05, longest=0.5), with_demo=False, died=storm.died) as stack,
        aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=50)) as session,
    ):
        owner = stack.owner
        world = World(
            gateway=owner.gateway,
            simulator=owner.simulator,
            api_key=owner.api_key,
            app_secret=owner.app_secret,
            verify_token=owner.verify_token,
            tenants=stack.tenants.connect,
            session=session,
        )
        soak = Soak(stack, Settlement(stack, world, random.Random(SEED)), storm)  # noqa: S311
        try:
            yield soak
        finally:
            soak.tell()


@pytest.fixture
def home(monkeypatch: pytest.MonkeyPatch) -> Iterable[Path]:
    """Where all of it is, its temporary files too; the logs are kept if the test fails."""
    with tempfile.TemporaryDirectory(prefix="loquat-soak-") as folder:
        home = Path(folder)
        home.chmod(0o711)
        (home / "tmp").mkdir()
        (home / "tmp").chmod(0o1777)
        monkeypatch.setenv("TMPDIR", str(home / "tmp"))
        yield home


async def test_nothing_is_lost_or_doubled_and_nothing_is_left_whoever_dies(home: Path) -> None:
    say(f"soak: seed {SEED}, {PROJECTS} projects, {SECONDS:g} s, {RATE:g} messages per second")
    adopt()
    kept = HOME / "build" / f"soak-{SEED}"
    try:
        async with soaking(home) as soak:
            await run(soak)
    finally:
        shutil.copytree(home / "logs", kept, dirs_exist_ok=True)
    wrong = [*soak.wrong, *left_behind(), *mounts(home), *(f"left: {p}" for p in (home / "tmp").iterdir())]
    wrong += [f"left: {group}" for runner in soak.runners for group in groups(runner)]
    if wrong:
        (kept / "wrong.txt").write_text("\n".join(wrong))
        say("\n".join(wrong[:SHOWN]))
        pytest.fail(f"{len(wrong)} things are wrong; seed {SEED}; all of it, and the logs, in {kept}")
    shutil.rmtree(kept)


async def run(soak: Soak) -> None:
    """Made, stormed upon, looked at."""
    fresh, began = descriptors(soak.runner), time.monotonic()
    await soak.settlement.settle(PROJECTS, max(3, math.ceil(RATE * SECONDS / PROJECTS / EACH_WRITES)))
    say(f"made in {time.monotonic() - began:.0f} s, with bots, tables, numbers")
    await soak.live(SECONDS * STORMY, EVERYBODY)
    await soak.live(SECONDS * (1 - STORMY), BUT_THE_RUNNER, measured=True)
    began = time.monotonic()
    await soak.settlement.end_schedules()
    soak.wrong += [f"still waiting: {w}" for w in await nothing(soak.settlement.waiting, began + PATIENCE)]
    await soak.judge(began + PATIENCE)
    say(f"all done {time.monotonic() - began:.0f} s after the last message")
    began = time.monotonic()
    soak.wrong += [f"at rest: {held}" for held in await nothing(soak.held, began + REST)]
    say(f"at rest {time.monotonic() - began:.0f} s later")
    await soak.settlement.deploy()  # a worker begins and ends: what a killed zygote's workers had goes with it
    soak.wrong += [f"at rest: {held}" for held in await nothing(soak.grouped, time.monotonic() + SOON)]
    if not soak.wrong:
        await soak.judge(began)  # what was done twice late
    await soak.judge_unsure()
    soak.judge_runner(fresh)
    soak.wrong += [*soak.storm.odd, *soak.settlement.refused]
