"""The workers of this runner: started on the first event of a project, ended when idle, replaced on a new version."""

from __future__ import annotations

import asyncio
import shutil
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from uuid import UUID

from loquat_common import metrics
from loquat_common.logs import get_logger

from loquat_bot_runner.adapters.confine import Limits
from loquat_bot_runner.adapters.credentials import Credentials
from loquat_bot_runner.adapters.store import Store
from loquat_bot_runner.adapters.worker import Worker
from loquat_bot_runner.domain.replies import checked
from loquat_bot_runner.errors import BotError, CallFailed, DoesNotStart
from loquat_bot_runner.ports import Task

_SWEEP: Final = 15.0
_WAITING_LINES: Final = 10_000  # log lines not yet written, of all projects
_WAITING_LINES_OF_ONE: Final = 500  # of one; beyond it the newest are dropped and that is said


class Workers:
    """See `ports.Bots`."""

    def __init__(self, store: Store, credentials: Credentials, folder: Path, *, most: int, idle: float, limit: float, memory: int) -> None:
        self._store, self._credentials, self._folder = store, credentials, folder
        self._most, self._idle, self._limit, self._memory = most, idle, limit, memory
        self._workers: dict[tuple[str, str], Worker] = {}
        self._leaving: list[Worker] = []
        self._gates: dict[str, asyncio.Lock] = {}
        self._lines: asyncio.Queue[tuple[str, UUID | None, str, str]] = asyncio.Queue(_WAITING_LINES)
        self._waiting: Counter[str] = Counter()
        self._dropped: Counter[str] = Counter()
        self._log = get_logger()

    async def call(self, task: Task) -> dict[str, Any]:
        """See `ports.Bots`."""
        started = time.perf_counter()
        outcome = "ok"
        try:
            worker = await self._worker(task)
            result = await worker.call(
                self._limit,
                event=task.event,
                contact=task.contact,
                conversation=task.conversation,
                state=task.state,
                version=task.state_version,
            )
            return checked(result)
        except CallFailed as failure:
            outcome = type(failure).__name__
            self._note(task.project.project_id, UUID(task.event["id"]), "error", f"{failure.error}\n{failure.trace}".strip())
            raise
        finally:
            metrics.bot_calls.labels(outcome).inc()
            metrics.bot_call_seconds.observe(time.perf_counter() - started)

    async def _worker(self, task: Task) -> Worker:
        key = (task.project.project_id, task.version)
        worker = self._workers.get(key)
        if worker is not None and not worker.dead:
            return worker
        async with self._gates.setdefault(key[0], asyncio.Lock()):
            worker = self._workers.get(key)
            if worker is None or worker.dead:
                worker = await self._start(task)
            return worker

    async def _start(self, task: Task) -> Worker:
        project, version = task.project.project_id, task.version
        await self._make_room()
        folder = await self._unpacked(project, version)
        login = await self._credentials.of(task.project)
        database = f"postgresql://{quote(login.user)}:{quote(login.password)}@{login.host}:{login.port}/{quote(login.database)}"
        worker = Worker(project, Limits(self._memory), lambda _, level, text: self._note(project, None, level, text))
        try:
            await self._started(worker, folder, database)
        except OSError as error:
            raise BotError(f"no process could be started: {error.strerror}") from error
        self._leaving += [w for (p, _), w in self._workers.items() if p == project]
        self._workers = {k: w for k, w in self._workers.items() if k[0] != project}
        self._workers[project, version] = worker
        await self._see_off()
        return worker

    async def _started(self, worker: Worker, folder: Path, database: str) -> None:
        """A start that fails or is cancelled leaves no process behind."""
        try:
            await worker.start(folder, database)
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

    async def _unpacked(self, project: str, version: str) -> Path:
        folder = self._folder / version
        if folder.exists():
            return folder
        files = await self._store.files(project, version)
        if files is None:
            raise DoesNotStart(f"there is no version {version[:12]}")
        await asyncio.to_thread(_unpack, files, folder)
        return folder

    async def _make_room(self) -> None:
        """The longest-resting worker makes room; a busy one never does."""
        resting = sorted((w.used_at, k) for k, w in self._workers.items() if not w.busy)
        while len(self._workers) >= self._most and resting:
            _, key = resting.pop(0)
            await self._workers.pop(key).kill()

    async def run(self) -> None:
        """Ends idle workers, for ever."""
        while True:
            await asyncio.sleep(_SWEEP)
            now = time.monotonic()
            for key, worker in list(self._workers.items()):
                if worker.dead or (not worker.busy and now - worker.used_at > self._idle):
                    self._leaving.append(self._workers.pop(key))
            await self._see_off()

    async def write_logs(self) -> None:
        """Writes what bots say into the project's log, for ever."""
        while True:
            project, event, level, text = await self._lines.get()
            self._waiting[project] -= 1
            if self._waiting[project] <= 0:
                del self._waiting[project]
            lines = [line for line in text.replace("\0", "").splitlines() if line.strip()]
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
        self._lines.put_nowait((project, event, level, text))

    async def close(self) -> None:
        """Ends all."""
        workers, self._workers, self._leaving = [*self._workers.values(), *self._leaving], {}, []
        await asyncio.gather(*(w.kill() for w in workers))


def _unpack(files: dict[str, str], folder: Path) -> None:
    making = folder.with_name(f"{folder.name}.{time.monotonic_ns()}")
    for path, content in files.items():
        target = making / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        target.chmod(0o444)
    for made in (making, *(p for p in making.rglob("*") if p.is_dir())):
        made.chmod(0o755)
    try:
        making.rename(folder)
    except OSError:
        shutil.rmtree(making)  # another task was first; the content is the same
