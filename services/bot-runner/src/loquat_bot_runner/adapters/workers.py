"""The workers of this runner: started on the first event of a project, ended when idle, replaced on a new version."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any, Final
from uuid import UUID
from weakref import WeakValueDictionary

import msgspec
from loquat import protocol
from loquat_common import metrics
from loquat_common.logs import get_logger
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.bundles import Bundles
from loquat_bot_runner.adapters.housing import Housing
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.domain.configuration import Setting
from loquat_bot_runner.domain.gate import Loaded, overstated
from loquat_bot_runner.domain.limits import BotLimits
from loquat_bot_runner.domain.replies import checked
from loquat_bot_runner.domain.schedules import declared
from loquat_bot_runner.domain.tools import Tool
from loquat_bot_runner.errors import CallFailed, DoesNotStart, PackagesRefused, ProjectDatabaseAway
from loquat_bot_runner.ports import Task, Voice

_SWEEP: Final = 15.0
_WATCH: Final = 0.1  # seconds; a look costs 30 us and only at busy workers
_MOST_QUERIES: Final = 2**31 - 1  # that are noted: the number is the bot's own word
_LOADING: Final = 4  # versions that are loaded at once to hear what they declare
_PATIENCE: Final = 25.0  # seconds until one's turn: two that do not load in time may be before it
_MOST_KNOWN: Final = 10_000  # versions of which it is remembered what they want
_ALL: Final = (True, True, True)  # what a version may want that nobody has started yet
_WAITING_LINES: Final = 10_000  # log lines not yet written, of all projects
_WAITING_LINES_OF_ONE: Final = 500  # of one; beyond it the newest are dropped and that is said


class Workers:
    """See `ports.Bots`."""

    def __init__(
        self,
        store: Store,
        bundles: Bundles,
        housing: Housing,
        *,
        most: int,
        idle: float,
        in_use: Callable[[str], Collection[str]] = lambda _: (),
    ) -> None:
        """`in_use`: the versions of a project that somebody is answered by; the last one that was called stays besides."""
        self._store, self._bundles, self._housing = store, bundles, housing
        self._most, self._idle = most, idle
        self._in_use, self._loading = in_use, asyncio.Semaphore(_LOADING)
        self._workers: dict[tuple[str, str], Worker] = {}
        self._leaving: list[Worker] = []
        self._gates: dict[str, asyncio.Lock] = {}
        self._turns = WeakValueDictionary[str, asyncio.Lock]()
        self._wants: dict[str, tuple[bool, bool, bool]] = {}  # whether a version observes, gathers, takes back; it never changes
        self._lines: asyncio.Queue[tuple[str, UUID | None, str, str]] = asyncio.Queue(_WAITING_LINES)
        self._waiting: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._log = get_logger()

    async def call(self, task: Task, voice: Voice | None = None) -> dict[str, Any]:
        """See `ports.Bots`."""
        started = time.perf_counter()
        outcome = "ok"
        try:
            worker = await self._worker(task)
            handled = await worker.run(task, voice)
            said = voice.said if voice is not None else 0
            return {**checked(handled.result, worker.limits.messages, said), "queries": min(max(handled.queries, 0), _MOST_QUERIES)}
        except CallFailed as failure:
            outcome = type(failure).__name__
            self._note(task.project.project_id, UUID(task.event["id"]), "error", f"{failure.error}\n{failure.trace}".strip())
            raise
        finally:
            metrics.bot_calls.labels(outcome).inc()
            metrics.bot_call_seconds.observe(time.perf_counter() - started)

    def observes(self, project: str) -> bool:
        """See `ports.Bots`."""
        return any(self._wants.get(version, _ALL)[0] for version in self._in_use(project))

    def gathers(self, project: str) -> bool:
        """See `ports.Bots`."""
        return any(self._wants.get(version, _ALL)[1] for version in self._in_use(project))

    def takes_back(self, project: str) -> bool:
        """See `ports.Bots`."""
        return any(self._wants.get(version, _ALL)[2] for version in self._in_use(project))

    async def _worker(self, task: Task) -> Worker:
        key = (task.project.project_id, task.version)
        limits = await self._housing.limits(key[0])
        if (worker := self._serving(key, limits)) is not None:
            return worker
        async with self._gates.setdefault(key[0], asyncio.Lock()):
            return self._serving(key, limits) or await self._start(task)

    def _serving(self, key: tuple[str, str], limits: BotLimits) -> Worker | None:
        """One that may take another call: others' limits are not these."""
        worker = self._workers.get(key)
        return worker if worker is not None and not (worker.dead or worker.worn or worker.limits != limits) else None

    async def _start(self, task: Task) -> Worker:
        project, version = task.project.project_id, task.version
        await self._make_room()
        folder = await self._bundles.of(project, version)
        worker, ready = await self._started(task.project, folder)
        if len(self._wants) >= _MOST_KNOWN:
            self._wants.clear()
        self._wants[version] = (ready.observes, ready.gathers, ready.takes_back)
        kept = set(self._in_use(project)) - {version}
        replaced = [k for k in self._workers if k[0] == project and k[1] not in kept]
        self._leaving += [self._workers.pop(k) for k in replaced]
        self._workers[project, version] = worker
        await self._see_off()
        return worker

    async def load(self, project: ProjectListed, version: str) -> Loaded:
        """See `ports.Loads`. What it prints meanwhile goes to the project's log, as that of a deployed bot."""
        async with self._turn(project.project_id):
            try:
                worker, ready = await self._started(project, await self._bundles.of(project.project_id, version))
            except PackagesRefused as refused:
                self._note(project.project_id, None, "error", refused.error)
                raise
            await asyncio.shield(worker.kill())
        settings = {s.key: Setting(s.key, s.kind, s.nullable, s.help, s.default) for s in ready.settings}
        needs = {need.table: tuple(need.columns) for need in ready.needs}
        schedules = tuple(declared([msgspec.structs.asdict(s) for s in ready.schedules]))
        tools = tuple(Tool(t.name, t.description, t.parameters) for t in ready.tools)
        loaded = Loaded(tuple(ready.states), needs, settings, schedules, tools)
        if (reason := overstated(loaded)) is not None:
            raise DoesNotStart(reason)
        return loaded

    @asynccontextmanager
    async def _turn(self, project: str) -> AsyncGenerator[None]:
        """One version of a project at a time: those that do not load in time keep no other project from its turn."""
        own = self._turns.setdefault(project, asyncio.Lock())
        async with AsyncExitStack() as stack:
            try:
                async with asyncio.timeout(_PATIENCE):
                    await stack.enter_async_context(own)
                    await stack.enter_async_context(self._loading)
            except TimeoutError:
                raise ProjectDatabaseAway("too many versions are being loaded") from None
            yield

    async def _started(self, project: ProjectListed, folder: Path) -> tuple[Worker, protocol.Ready]:
        """A start that fails or is cancelled leaves no process behind."""

        def write(event: str | None, level: str, text: str) -> None:
            self._note(project.project_id, UUID(event) if event is not None else None, level, text)

        worker, database = await self._housing.worker(project, folder, write)
        try:
            return worker, await worker.start(database)
        except BaseException:
            await asyncio.shield(worker.kill())
            raise

    async def _see_off(self) -> None:
        """Ends replaced workers that have answered their last call."""
        over = [w for w in self._leaving if w.dead or not w.busy]
        self._leaving = [w for w in self._leaving if w not in over]
        metrics.bot_workers.set(len(self._workers) + len(self._leaving))
        for worker in over:
            await worker.kill()

    async def _make_room(self) -> None:
        """The longest-resting worker makes room; a busy one never does."""
        while len(self._workers) >= self._most:  # looked at anew each time: while one ends, another takes up work or goes
            resting = [(w.used_at, k) for k, w in self._workers.items() if not w.busy]
            if not resting:
                return
            await self._workers.pop(min(resting)[1]).kill()

    async def run(self) -> None:
        """Ends idle workers, for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for key, worker in list(self._workers.items()):
                if worker.dead or (not worker.busy and (worker.worn or now - worker.used_at > self._idle)):
                    self._leaving.append(self._workers.pop(key))
            await self._see_off()

    async def watch(self) -> None:
        """Looks at what busy workers take of the machine, for ever."""
        while True:
            await asyncio.sleep(_WATCH)
            for worker in (*self._workers.values(), *self._leaving):
                worker.watch()

    async def write_logs(self) -> None:
        """Writes what bots say into the project's log, for ever."""
        while True:
            project, event, level, text = await self._lines.get()
            self._waiting[project] -= 1
            if self._waiting[project] <= 0:
                del self._waiting[project]
            lines = [line for line in text.splitlines() if line.strip()]
            try:
                await self._store.log(project, event, level, lines)
            except Exception:  # noqa: BLE001  (a line that cannot be kept must not stop bots)
                self._log.exception("bot.log_not_written")

    def _note(self, project: str, event: UUID | None, level: str, text: str) -> None:
        """Of a project that says more than is written, the newest is dropped; its neighbours' lines are not."""
        if self._waiting[project] >= _WAITING_LINES_OF_ONE or self._lines.full():
            self._dropped[project] += 1
            return
        if dropped := self._dropped.pop(project, 0):
            text = f"{text}\n({dropped} lines before this were not kept: too many at once)"
        self._waiting[project] += 1
        self._lines.put_nowait((project, event, level, self._store.said(project, text)))

    async def close(self) -> None:
        """Ends all."""
        workers, self._workers, self._leaving = [*self._workers.values(), *self._leaving], {}, []
        await asyncio.gather(*(w.kill() for w in workers))
