"""Calls of one warm worker, each with a transaction on its project's database, against the same transaction by asyncpg in this process."""

from __future__ import annotations

import asyncio
import json
import os
import statistics
import tempfile
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Generator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

import asyncpg
from loquat_bot_runner.adapters.worker import Worker
from loquat_common.sql import Ident, compose
from loquat_sandbox import measure

from bench.processes import cpu, tree
from bench.sandbox import quiet
from tests.bots import login_of, started
from tests.tenants import PASSWORD, Desk, Project, message, open_tenants

if TYPE_CHECKING:
    Pool = asyncpg.Pool[asyncpg.Record]

ROUNDS, CALLS, IN_FLIGHT = 5, 1_000, 32
TRANSACTIONS = 4
"""At once, of both: as many as a worker's handlers have (`loquat.worker`)."""
READ = "SELECT count(*) FROM bookings WHERE contact_id = $1"
WRITE = "INSERT INTO bookings (contact_id, what) VALUES ($1, $2)"
BOT = f"""
from loquat import Bot
bot = Bot()

@bot.fallback
async def handle(ctx):
    before = await ctx.db.fetchval({READ!r}, ctx.contact.id)
    await ctx.db.execute({WRITE!r}, ctx.contact.id, ctx.event.text)
    ctx.reply_text(f"booking {{before + 1}}")
"""
BEGIN = "SELECT e->>'id' AS id, b.* FROM jsonb_array_elements($1) AS e, loquat.begin_event(e, NULL, NULL, false, false) AS b"

BASELINES = {"asyncpg in this process, its statements prepared": 100, "the same, unprepared": 0}

Call = Callable[[asyncpg.Record], Awaitable[object]]
Used = Callable[[], tuple[float, float]]
"""Seconds of processor time so far: of the client side, of the databases."""


Run = Callable[[list[asyncpg.Record], Used], Awaitable["Round"]]


@dataclass(frozen=True, slots=True)
class Round:
    """Of one call: seconds over all in flight; seconds of processor time of the client side, and of the databases."""

    wall: float
    ours: float
    databases: float

    @property
    def cpu(self) -> float:
        return self.ours + self.databases


async def calls() -> None:
    """All on one core: calls per second, and processor time per call. Goal: at least 0.5 of asyncpg's in-process calls, per core."""
    with tempfile.TemporaryDirectory(prefix="loquat-bench-calls-", ignore_cleanup_errors=True) as folder:
        home = Path(folder)
        home.chmod(0o711)
        (home / "bundles" / "bot").mkdir(parents=True)
        (home / "bundles" / "bot" / "bot.py").write_text(BOT)
        tenants = await open_tenants(home / "tenants", durable=True)
        project = await tenants.project()
        await (await project.login("bot")).execute(
            "CREATE TABLE bookings (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, contact_id uuid, what text);"
            "CREATE INDEX ON bookings (contact_id)"
        )
        more = compose("ALTER ROLE {bot} CONNECTION LIMIT 20", bot=Ident(project.names.login("bot")))  # the worker's and our own
        await (await project.root()).execute(more)
        sandbox = (await measure(home / "bundles")).sandbox
        with _one_core():
            worker = await started(sandbox, home / "bundles" / "bot", quiet, login_of(tenants, project), project.project_id)
            await _compare(project, worker)
            await worker.kill()
        await sandbox.close()
        await tenants.drop(project)
        await tenants.close()


async def _compare(project: Project, worker: Worker) -> None:
    events, databases = _Events(await Desk.of(project)), project.tenants.cluster.pid
    assert databases is not None
    kinds: dict[str, Run] = {
        "worker": lambda rows, used: _timed(_called(worker), rows, used),
        **{name: partial(_beside, project, statements) for name, statements in BASELINES.items()},
    }
    rounds: dict[str, list[Round]] = {name: [] for name in kinds}
    for _ in range(ROUNDS):
        for name, run in kinds.items():
            rounds[name].append(await run(await events.begun(CALLS), lambda: (_used(worker.pid), cpu(tree(databases)))))
    for name, taken in rounds.items():
        wall, ours, theirs = (statistics.median(getattr(r, field) for r in taken) for field in ("wall", "ours", "databases"))
        shown = " ".join(f"{1 / r.wall:.0f}" for r in taken)
        print(
            f"calls, {name}: {1 / wall:.0f} per second on one core ({shown}); {ours * 1e6:.0f} us of processor each"
            f" (runner and bot, or this process), and {theirs * 1e6:.0f} us of the databases'"
        )
    for name in BASELINES:
        for what, field in (("calls per second", "wall"), ("calls per second of processor", "cpu")):
            ratios = [getattr(b, field) / getattr(a, field) for a, b in zip(rounds["worker"], rounds[name], strict=True)]
            print(f"  of {name}, {what}: {statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f}; goal 0.5)")


class _Events:
    """Messages of new contacts whose run has begun: only such an event takes a result."""

    def __init__(self, desk: Desk) -> None:
        self._desk, self._last = desk, 0

    async def begun(self, number: int) -> list[asyncpg.Record]:
        made = [message(f"wa_id:49{n:011}") for n in range(self._last, self._last + number)]
        self._last += number
        rows = list[asyncpg.Record]()
        for start in range(0, number, 100):
            rows += await self._desk.runner.fetch(BEGIN, made[start : start + 100])
        assert {r["todo"] for r in rows} == {"run"}, rows[0]
        return rows


def _called(worker: Worker) -> Call:
    async def call(row: asyncpg.Record) -> None:
        event: dict[str, Any] = {"id": row["id"], "type": "text", "text": "a table for two", "content": {}}
        handled = await worker.handled(
            10,
            event=event,
            contact={"id": str(row["contact_id"])},
            conversation={"id": str(row["conversation_id"]), "number_id": "1"},
            state=row["state"],
            version=row["version"],
        )
        assert handled.recorded, handled

    return call


def _in_process(pool: Pool) -> Call:
    async def call(row: asyncpg.Record) -> None:
        async with pool.acquire() as connection, connection.transaction():
            before = await connection.fetchval(READ, row["contact_id"])
            await connection.execute(WRITE, row["contact_id"], "a table for two")
            result = json.dumps({"replies": [{"type": "text", "text": f"booking {before + 1}"}], "state": row["state"]})
            await connection.execute("SELECT loquat.record_result($1, $2, $3::text::jsonb)", UUID(row["id"]), row["version"], result)

    return call


async def _timed(call: Call, begun: list[asyncpg.Record], used: Used) -> Round:
    """All of them, so many in flight; the first tenth opens the connections and is not counted."""

    async def one_after_the_other(rows: Iterator[asyncpg.Record]) -> None:
        for row in rows:
            await call(row)

    async def all_of(rows: list[asyncpg.Record]) -> None:
        shared = iter(rows)
        await asyncio.gather(*(one_after_the_other(shared) for _ in range(IN_FLIGHT)))

    await all_of(begun[: CALLS // 10])
    began, (ours, databases) = time.perf_counter(), used()
    await all_of(begun[CALLS // 10 :])
    wall, (ours_then, databases_then) = time.perf_counter() - began, used()
    each = 1 / (len(begun) - CALLS // 10)
    return Round(wall * each, (ours_then - ours) * each, (databases_then - databases) * each)


async def _beside(project: Project, statements: int, begun: list[asyncpg.Record], used: Used) -> Round:
    """Asyncio's own loop in a thread; this one waits meanwhile."""

    async def run() -> Round:
        async with _pool(project, statements) as pool:
            return await _timed(_in_process(pool), begun, used)

    return await asyncio.to_thread(asyncio.run, run())


def _used(worker: int) -> float:
    return time.process_time() + cpu([worker])


@contextmanager
def _one_core() -> Generator[None]:
    """Of this process and all that it has started, and what they start meanwhile."""
    before, core = os.sched_getaffinity(0), {max(os.sched_getaffinity(0))}
    _pin(core)
    try:
        yield
    finally:
        _pin(before)


def _pin(cores: set[int]) -> None:
    for pid in tree(os.getpid()):
        with suppress(OSError):  # one that has ended meanwhile
            for thread in Path(f"/proc/{pid}/task").iterdir():
                os.sched_setaffinity(int(thread.name), cores)


@asynccontextmanager
async def _pool(project: Project, statements: int) -> AsyncGenerator[Pool]:
    cluster = project.tenants.cluster
    dsn = cluster.dsn(project.database, user=project.names.login("bot"), password=PASSWORD)
    async with asyncpg.create_pool(dsn, min_size=0, max_size=TRANSACTIONS, statement_cache_size=statements) as pool:
        yield pool
