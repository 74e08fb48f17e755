"""Neighbours in busy loops: how late the runner's own loop is meanwhile, and what a well-behaved project's call takes."""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import tempfile
import time
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Self

from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.errors import CallFailed
from loquat_sandbox import Sandbox, measure

from bench.sandbox import ECHO, call, percentile, quiet
from tests.bots import started

ROUNDS, SECONDS, NEIGHBOURS = 3, 8.0, 8
FIRST = 1.0
"""Seconds in which the neighbours still are what everybody is: after 0.2 s of processor time each of them gives way."""
LOOPS = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    while True:\n        pass\n"
_BEAT, _PAUSE, _WATCH = 0.002, 0.02, 0.1  # seconds; the last is how often the runner looks at busy workers


async def neighbours() -> None:
    """Goal: the loop's lag p99 under 1 ms while eight bots are in busy loops."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-bots-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        for name, text in (("echo", ECHO), ("loops", LOOPS)):
            (home / name).mkdir()
            (home / name / "bot.py").write_text(text)
        sandbox = (await measure(home)).sandbox
        behaved = await started(sandbox, home / "echo", quiet, project="behaved")
        for n in range(ROUNDS):
            _tell(f"round {n + 1}, alone", await _seen(behaved, []))
            async with _looping(sandbox, home / "loops") as loops:
                at_first, later = await _seen(behaved, loops, FIRST), await _seen(behaved, loops)
            _tell(f"round {n + 1}, {NEIGHBOURS} busy loops, their first second", at_first)
            _tell(f"round {n + 1}, {NEIGHBOURS} busy loops, then (goal 1 ms)", later)
        await behaved.kill()
        await sandbox.close()


@asynccontextmanager
async def _looping(sandbox: Sandbox, folder: Path) -> AsyncGenerator[list[Worker]]:
    loops = [await started(sandbox, folder, quiet, project=f"loops_{n}") for n in range(NEIGHBOURS)]
    busy = [asyncio.create_task(_endless(w)) for w in loops]
    yield loops
    await asyncio.gather(*(w.kill() for w in loops))
    await asyncio.gather(*busy)


async def _endless(worker: Worker) -> None:
    with suppress(CallFailed):
        await call(worker, 60)


async def _seen(behaved: Worker, loops: list[Worker], seconds: float = SECONDS) -> tuple[list[float], list[float]]:
    """Milliseconds: how late the loop was, and what each call took."""
    took = list[float]()

    async def calls() -> None:
        while True:
            began = time.perf_counter()
            await call(behaved)
            took.append((time.perf_counter() - began) * 1000)
            await asyncio.sleep(_PAUSE)

    async def watch() -> None:
        while True:
            await asyncio.sleep(_WATCH)
            for worker in (behaved, *loops):
                worker.watch()

    tasks = [asyncio.create_task(calls()), asyncio.create_task(watch())]
    with Beat(_BEAT) as beat:
        await asyncio.sleep(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return beat.late, took


class Beat:
    """The kernel's clock rings every so many seconds. The loop's own timers are no measure: they are rounded up to whole milliseconds."""

    def __init__(self, seconds: float) -> None:
        self.late = list[float]()
        """Milliseconds from when it rang to when the loop heard it."""
        self._every, self._libc = int(seconds * 1e9), ctypes.CDLL(None, use_errno=True)

    def __enter__(self) -> Self:
        self._clock = self._libc.timerfd_create(time.CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        assert self._clock >= 0
        self._next = time.monotonic_ns() + self._every
        setting = struct.pack("qqqq", *divmod(self._every, 10**9), *divmod(self._next, 10**9))
        assert self._libc.timerfd_settime(self._clock, 1, setting, None) == 0  # TFD_TIMER_ABSTIME
        asyncio.get_running_loop().add_reader(self._clock, self._rang)
        return self

    def __exit__(self, *_error: object) -> None:
        asyncio.get_running_loop().remove_reader(self._clock)
        os.close(self._clock)

    def _rang(self) -> None:
        """Each beat that the loop slept through counts, with its own lateness."""
        (times,) = struct.unpack("q", os.read(self._clock, 8))
        now = time.monotonic_ns()
        self.late += [(now - self._next - n * self._every) / 1e6 for n in range(times)]
        self._next += times * self._every


def _tell(what: str, seen: tuple[list[float], list[float]]) -> None:
    late, took = seen
    print(
        f"{what}: the runner's loop is late by p50 {percentile(late, 0.5):.2f}, p99 {percentile(late, 0.99):.2f}, at most {max(late):.1f} ms;"
        f" another project's call p50 {percentile(took, 0.5):.2f}, p99 {percentile(took, 0.99):.2f}, at most {max(took):.1f} ms (n = {len(took)})"
    )
