"""The sweep: every database that is behind is brought forward, few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from loquat_common import metrics
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_schema_manager.adapters.store import Store
from loquat_schema_manager.domain.shapes import Outcome, Target, kind_of

_IDLE: Final = 300.0
"""Seconds between two looks at the rows when the directory is silent: another replica may have died over one of them."""
_TAKEN: Final = 1.0  # seconds until the next look at a database that is due and in another replica's hands
_AWAY: Final = 5.0  # seconds until the next look when the control database does not answer


class Sweep:
    """Follows the directory; `attempt` brings one database forward. Several replicas share the work row by row."""

    def __init__(self, store: Store, version: int, attempt: Callable[[Target], Awaitable[Outcome]], concurrency: int) -> None:
        self._store, self._version, self._attempt, self._concurrency = store, version, attempt, concurrency
        self._changed: dict[str, Target | None] = {}
        self._wake = asyncio.Event()
        self._log = get_logger()

    def listed(self, key: str, event: AnyEvent | None) -> None:
        """The directory has a new word about a project. A ready one is looked at; one that is being made comes from a fresh template."""
        data = event.data if event is not None else None
        if not isinstance(data, ProjectListed) or data.state in {"deleting", "deleted"}:
            self._changed[key.partition(":")[0]] = None
        elif data.state == "ready" and data.cluster is not None and data.database is not None:
            self._changed[data.project_id] = Target(data.cluster, data.database, data.project_id, data.epoch)
        else:
            return
        self._wake.set()

    async def run(self) -> None:
        """For ever. Sleeps until the directory changes or a database is due again."""
        while True:
            self._wake.clear()
            try:
                await self.once()
                behind, due = await self._store.outlook(self._version)
                metrics.schema_behind.set(behind)
                pause = _IDLE if due is None else min(max(due, _TAKEN), _IDLE)
            except Exception as error:
                if not is_gone(error):
                    raise
                self._log.warning("sweep.control_database_away", error=type(error).__name__)
                pause = _AWAY
            try:
                async with asyncio.timeout(pause):
                    await self._wake.wait()
            except TimeoutError:
                continue

    async def once(self) -> int:
        """Works until nothing is due; how many attempts were made."""
        await self._note()
        async with asyncio.TaskGroup() as group:
            workers = [group.create_task(self._worker()) for _ in range(self._concurrency)]
        return sum(w.result() for w in workers)

    async def _note(self) -> None:
        changed = dict(self._changed)
        if gone := [p for p, t in changed.items() if t is None]:
            await self._store.forget(gone)
        if targets := [t for t in changed.values() if t is not None]:
            await self._store.note(targets)
        for project, target in changed.items():
            if self._changed.get(project) == target:
                del self._changed[project]

    async def _worker(self) -> int:
        count = 0
        try:
            while (outcome := await self._store.work(self._version, self._attempt)) is not None:
                count += 1
                metrics.schema_attempts.labels(kind_of(outcome)).inc()
        except Exception as error:
            if not is_gone(error):
                raise
            self._log.warning("sweep.control_database_away", error=type(error).__name__)  # `run` meets the same and waits
        return count
