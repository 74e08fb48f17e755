"""Deaths at random: services, bots and what forks them, databases. The seed says who and when."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from loquat_cli.process import Process
from loquat_cli.stack import Stack

from bench.processes import tree

PAUSE: Final = (1.0, 7.0)
"""Seconds between two deaths. What dies most needs two to be back; so nearly always somebody is away, and now and then two are."""
_ZYGOTE: Final = b"loquat_sandbox.zygote"
_DATABASES: Final = ("platform", "tenants")

Weights = Mapping[str, int]
EVERYBODY: Final[Weights] = {
    "worker": 6,
    "bot-runner": 4,
    "zygote": 3,
    "gateway": 3,
    "conversation-log": 3,
    "connector": 3,
    "deployment": 3,
    "schema-manager": 1,
    "provisioner": 1,
    "platform": 1,
    "tenants": 1,
}
"""How often each is the next. A deployment is no death, but it replaces workers."""
BUT_THE_RUNNER: Final[Weights] = {name: weight for name, weight in EVERYBODY.items() if name not in {"bot-runner", *_DATABASES}}
"""So that one runner lives long enough to be measured."""


@dataclass(frozen=True, slots=True)
class Blow:
    """Who died, and when (`time.time()`)."""

    target: str
    at: float


@dataclass(slots=True)
class Storm:
    """Blows of one run. `deaths` counts processes that the supervisor saw end, whoever ended them."""

    chance: random.Random
    blows: list[Blow] = field(default_factory=list[Blow])
    deaths: Counter[str] = field(default_factory=Counter[str])
    odd: list[str] = field(default_factory=list[str])
    """Ends of processes that nobody ended here."""

    def died(self, process: Process) -> None:
        """The supervisor's word."""
        self.deaths[process.name] += 1
        if self.deaths[process.name] > sum(b.target == process.name for b in self.blows):
            self.odd.append(f"{process.name} ended by itself: {process.last_end}")

    async def rage(self, stack: Stack, deploy: Callable[[], Awaitable[bool]], seconds: float, weights: Weights) -> None:
        """For so long. `deploy` deploys something; whether it did."""
        end, names = time.monotonic() + seconds, list(weights)
        while (pause := self.chance.uniform(*PAUSE)) < end - time.monotonic():
            await asyncio.sleep(pause)
            (target,) = self.chance.choices(names, [weights[n] for n in names])
            await self._strike(stack, deploy, target)

    async def _strike(self, stack: Stack, deploy: Callable[[], Awaitable[bool]], target: str) -> None:
        """Who is away already is left alone."""
        match target:
            case "deployment":
                if await deploy():
                    self.blows.append(Blow(target, time.time()))
            case "zygote" | "worker":
                there = bots(stack)
                pids = there.zygotes if target == "zygote" else there.workers
                if pids and _kill(self.chance.choice(pids)):
                    self.blows.append(Blow(target, time.time()))
            case _:
                self._end(stack.process(target))

    def _end(self, process: Process) -> None:
        if process.state != "running" or process.pid is None:
            return
        self.blows.append(Blow(process.name, time.time()))  # before it can be seen
        if (
            process.name in _DATABASES
        ):  # at once, and recovery at the next start; SIGKILL could tear a page in two, and tests write no full ones
            os.kill(process.pid, signal.SIGQUIT)
        else:
            process.kill()

    def struck(self, *targets: str) -> Sequence[float]:
        """When any of these died."""
        return [b.at for b in self.blows if b.target in targets]


@dataclass(frozen=True, slots=True)
class Bots:
    """Processes below the runner."""

    zygotes: Sequence[int]
    workers: Sequence[int]


def bots(stack: Stack) -> Bots:
    """Those that there are now. A worker is a process namespace deeper than what forked it; where there are none, a child of the zygote's."""
    runner = stack.process("bot-runner").pid
    zygotes, workers = list[int](), list[int]()
    for pid in tree(runner)[1:] if runner is not None else ():
        with suppress(OSError):
            if _ZYGOTE not in Path(f"/proc/{pid}/cmdline").read_bytes():
                continue
            status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
            depth, parent = len(status["NSpid"].split()), int(status["PPid"])
            if parent == runner:
                zygotes.append(pid)
            elif depth != 2:
                workers.append(pid)
    return Bots(zygotes, workers)


def _kill(pid: int) -> bool:
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True
