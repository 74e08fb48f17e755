"""Workers at the highest isolation level of this machine: how quickly one is there, what a call costs around the handler, what resting ones hold."""

from __future__ import annotations

import asyncio
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any
from uuid import UUID

from loquat_bot_runner.adapters.aside import Aside
from loquat_bot_runner.adapters.worker import Worker
from loquat_sandbox import Sandbox, measure

from bench.processes import cpu, memory
from tests.bots import started

STARTS, CALLS, RESTING = 200, 3_000, 500
STARTER = Path(__file__).resolve().parents[1] / "bots" / "starter"
ECHO = "from loquat import Bot\nbot = Bot()\n\n@bot.fallback\nasync def handle(ctx):\n    ctx.reply_text(ctx.event.text)\n"
ONE = str(UUID(int=1))


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


async def sandbox() -> None:
    """Cold start of the starter bot: goals p50 15 ms, p99 60 ms. A warm call without the handler's time: goal p50 0.3 ms. 500 resting: 3 GiB, no CPU."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-bots-") as folder:
        home = Path(folder)
        home.chmod(0o755)
        (home / "echo").mkdir()
        (home / "echo" / "bot.py").write_text(ECHO)
        shutil.copytree(STARTER, home / "starter")
        measured = await measure(home)
        report = measured.sandbox.report()
        print(f"isolation level {report['isolation']} ({report['name']})")
        await _cold(measured.sandbox, home)
        await _warm(measured.sandbox, home / "echo")
        await _resting(measured.sandbox, home / "echo")
        await measured.sandbox.close()


def quiet(_call: object, _level: str, _text: str) -> None:
    return


async def _cold(sandbox: Sandbox, home: Path) -> None:
    first = await _starts(sandbox, home / "starter")
    assert await Aside().compile(home / "starter")
    again = await _starts(sandbox, home / "starter")
    spawned: list[float] = []
    for _ in range(10):
        began = time.perf_counter()
        process = await asyncio.create_subprocess_exec(sys.executable, "-c", "import loquat.worker")
        await process.wait()
        spawned.append((time.perf_counter() - began) * 1000)
    for name, took in (("a version's first two starts", first), ("every later one, compiled", again)):
        p50 = statistics.median(took)
        print(
            f"cold start, starter bot, {name}: p50 {p50:.1f} ms (goal 15), p99 {percentile(took, 0.99):.1f} ms (goal 60), least {min(took):.1f},"
            f" n = {STARTS}; {p50 / statistics.median(spawned):.2f} of spawning an interpreter that imports the SDK ({statistics.median(spawned):.0f} ms)"
        )


async def _starts(sandbox: Sandbox, folder: Path) -> list[float]:
    """Milliseconds of each."""
    took: list[float] = []
    for n in range(STARTS):
        began = time.perf_counter()
        worker = await started(sandbox, folder, quiet, project=f"prj_{n}")
        took.append((time.perf_counter() - began) * 1000)
        await worker.kill()
    return took


async def _warm(sandbox: Sandbox, folder: Path) -> None:
    worker = await started(sandbox, folder, quiet)
    await call(worker)
    took: list[float] = []
    for _ in range(CALLS):
        began = time.perf_counter()
        await call(worker)
        took.append((time.perf_counter() - began) * 1000)
    began, before = time.perf_counter(), time.process_time()
    for _ in range(CALLS // 30):
        await asyncio.gather(*(call(worker) for _ in range(30)))
    seconds, ours = time.perf_counter() - began, time.process_time() - before
    await worker.kill()
    print(
        f"warm call around an empty handler: p50 {statistics.median(took):.3f} ms (goal 0.3), p99 {percentile(took, 0.99):.3f} ms;"
        f" 30 at once {CALLS / seconds:.0f} per second, {ours / CALLS * 1e6:.0f} us of the runner's processor each"
    )


async def _resting(sandbox: Sandbox, folder: Path) -> None:
    workers = [await started(sandbox, folder, quiet, project=f"prj_{n}") for n in range(RESTING)]
    for worker in workers:
        await call(worker)
    pids = [w.pid for w in workers]
    before = cpu(pids)
    await asyncio.sleep(5)
    used, (pss, rss) = cpu(pids) - before, memory(pids)
    print(
        f"{RESTING} resting bots: {pss:.0f} MB with shared memory counted once (goal 3072), {rss:.0f} MB as a plain sum; {used:.2f} s of CPU in 5 s"
    )
    await asyncio.gather(*(w.kill() for w in workers))


async def call(worker: Worker, limit: float = 5) -> dict[str, Any]:
    """Of a handler that needs no database."""
    event: dict[str, Any] = {"id": ONE, "type": "text", "text": "hi", "content": {}}
    return await worker.call(
        limit, event=event, contact={"id": ONE}, conversation={"id": ONE, "number_id": "1"}, state="unstructured", version=0
    )
