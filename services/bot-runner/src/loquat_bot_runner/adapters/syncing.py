"""Keeps schedules in line: what the deployed version declares, the project's rows, and the due index."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import datetime
from typing import Any, Final

import asyncpg
from loquat_common.bus.port import Table
from loquat_common.db import DatabaseAway, WrongDatabase, is_gone
from loquat_common.directory import Directory
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_bot_runner.adapters.automations import Automation, Automations
from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.adapters.gate import Gate
from loquat_bot_runner.adapters.pointers import Pointers
from loquat_bot_runner.domain.schedules import Declared, Plan
from loquat_bot_runner.errors import CallFailed

_LATER: Final = (CallFailed, DatabaseAway, WrongDatabase, OSError, TimeoutError)
_BEYOND_US: Final = (asyncpg.PostgresError, asyncpg.InterfaceError, ValueError, TypeError, LookupError)
_AGAIN: Final = 5.0
"""Seconds until a project that could not be looked at is looked at again."""


Change = Callable[[ProjectListed], Awaitable[None]]


class Syncing:
    """Rows first, then the index, then the mark that it is done: whoever is cut off leaves the mark missing, and any replica does it again."""

    def __init__(
        self,
        index: DueIndex,
        automations: Automations,
        pointers: Pointers,
        gate: Gate,
        directory: Directory,
        failpoints: Failpoints,
        clock: Callable[[], datetime],
        nearer: Callable[[datetime], None] = lambda _: None,
    ) -> None:
        self._index, self._automations, self._pointers, self._gate = index, automations, pointers, gate
        self._directory, self._failpoints, self._clock, self._nearer = directory, failpoints, clock, nearer
        self._news = asyncio.Event()
        self._news.set()  # a crash may have left some
        self._epochs: dict[str, int] = {}
        self._renewed: set[str] = set()
        self._unready: set[str] = set()

    def listens(self, directory: Table, deployments: Table) -> None:
        """To deployments, and to projects whose database is restored: it has the schedules of its copy."""
        for key, event in directory.values().items():
            self._listed(key, event)
        directory.on_change(self._listed)
        deployments.on_change(self._deployed)

    def _deployed(self, _key: str, _event: AnyEvent | None) -> None:
        self._news.set()

    def _listed(self, key: str, event: AnyEvent | None) -> None:
        project = key.partition(":")[0]
        if event is None or not isinstance(event.data, ProjectListed):
            self._epochs.pop(project, None)
            self._unready.discard(project)
        elif event.data.state == "ready":
            if self._epochs.setdefault(project, event.data.epoch) != event.data.epoch:
                self._epochs[project] = event.data.epoch
                self._renewed.add(project)
            if project in self._renewed | self._unready:
                self._unready.discard(project)
                self._news.set()

    async def turn(self, project_id: str, automation: Automation, *, active: bool) -> bool:
        """Turns a schedule on or off. False: it is not declared any more.

        Raises:
            CallFailed, DatabaseAway, WrongDatabase: not now.
        """
        there = False

        async def change(project: ProjectListed) -> None:
            nonlocal there
            self._failpoints.hit("bot_runner.before_turn")
            there = await self._automations.turn(project, automation.id, active=active)
            self._failpoints.hit("bot_runner.after_turn")

        if not await self.sync(project_id, change):
            raise DatabaseAway("another version was deployed meanwhile")
        return there

    async def sync(self, project_id: str, change: Change | None = None) -> bool:
        """One project, after a change of its rows; False: another deployment was quicker, or it is not ready: then it is looked at when it is.

        Raises:
            CallFailed, DatabaseAway, WrongDatabase: nobody can know now.
        """
        self._unready.discard(project_id)
        current = await self._pointers.current(project_id)
        project = self._directory.get(project_id)
        if project is None or current is None or project.state != "ready":
            self._unready.add(project_id)
            return False
        declared = await self._gate.schedules(project, current.version)

        async def rows() -> tuple[int, Sequence[Mapping[str, Any]]]:
            if change is not None:
                await change(project)
            found = await self._automations.sync(project, declared)
            self._failpoints.hit("bot_runner.after_sync")
            return project.epoch, self._planned(found, declared)

        done = await self._index.plan(project_id, current.id, rows, changing=change is not None)
        self._failpoints.hit("bot_runner.after_plan")
        return done

    def _planned(self, found: Sequence[Automation], declared: Sequence[Declared]) -> list[Mapping[str, Any]]:
        plans, now = {d.name: d.plan for d in declared}, self._clock()
        out: list[Mapping[str, Any]] = []
        for one in found:
            if not one.active or (plan := plans.get(one.name)) is None:
                continue
            due_at = plan.after(now)
            self._nearer(due_at)
            out.append({"id": str(one.id), "name": one.name, "due_at": due_at.isoformat(), **_words(plan)})
        return out

    async def run(self) -> None:
        """After each deployment, for ever; sleeps while there is none."""
        while True:
            await self._news.wait()
            self._news.clear()
            if not await self.once():
                await asyncio.sleep(_AGAIN)
                self._news.set()

    async def once(self) -> bool:
        """Brings in line what is not; whether nothing is left to be done now."""
        try:
            for project in list(self._renewed):
                await self._index.unschedule(project)
                self._renewed.discard(project)
            waiting = await self._index.unscheduled()
        except Exception as error:
            if not is_gone(error):
                raise
            get_logger().warning("schedules.not_looked_at", error=type(error).__name__)
            return False
        return all([await self._one(project) for project in waiting])

    async def _one(self, project: str) -> bool:
        """One that cannot be done now keeps no other waiting, nor does one whose rows or declarations are beyond us."""
        try:
            return await self.sync(project) or project in self._unready
        except _LATER as error:
            get_logger().warning("schedules.later", project=project, error=type(error).__name__)
        except _BEYOND_US:
            get_logger().exception("schedules.later", project=project)
        return False


def _words(plan: Plan) -> dict[str, str]:
    return {"schedule": plan.expression, "tz": plan.tz, "catch_up": plan.catch_up}
