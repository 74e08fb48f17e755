"""Contacts that were merged or erased: noted from the bus, followed by the link columns of projects' own tables. A table that refuses keeps no other."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Final

from aiohttp import web
from loquat_common.bus.port import Done, Outcome, Received
from loquat_common.db import is_gone
from loquat_common.failpoints import Failpoints
from loquat_common.logs import get_logger
from loquat_common.problems import Problem

from loquat_schema_manager.adapters.followed import FollowedRows
from loquat_schema_manager.adapters.following import Follower
from loquat_schema_manager.domain.followings import Following, LinkColumn, following_of

WORKERS: Final = 2
"""Projects at which one replica works at the same time."""
ATTEMPT: Final = 60.0
"""Seconds of one attempt at one following, and of one column in it: then it is another project's turn. Below `LEASE` by far."""
_LOOK: Final = 15.0  # seconds between two looks when nobody tells of anything: another replica may have died
_SOONEST: Final = 1.0  # what is due is in another one's hands
_AWAY: Final = 2.0  # seconds until the next try when the control database is away
_NOT_READY: Final = 5.0


class _Away(Exception):
    """The project's database is closed for a while: nobody's attempt."""


class Followings:
    """The handler of `projects.events.v1`, and the loop that does what it noted."""

    def __init__(
        self,
        rows: FollowedRows,
        follower: Follower,
        failpoints: Failpoints,
        *,
        attempt: float = ATTEMPT,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._rows, self._follower, self._failpoints = rows, follower, failpoints
        self._attempt, self._clock = attempt, clock
        self._news = [asyncio.Event() for _ in range(WORKERS)]
        self._log = get_logger()

    async def handle(self, received: Received) -> Outcome:
        """One event; most are nothing to us."""
        following = following_of(received.event)
        if following is not None:
            await self._rows.note(following)
            for news in self._news:
                news.set()
        return Done()

    async def run(self) -> None:
        """For ever. Each worker sleeps until something is noted or due: one that is long at a project keeps no other."""
        while not await self._released():  # noqa: ASYNC110  (no event tells that a database is back)
            await asyncio.sleep(_AWAY)
        async with asyncio.TaskGroup() as group:
            for n, news in enumerate(self._news):
                group.create_task(self._worker(news), name=f"following {n}")

    async def _released(self) -> bool:
        try:
            await self._rows.release()
        except Exception as error:
            if not is_gone(error):
                raise
            return False
        return True

    async def _worker(self, news: asyncio.Event) -> None:
        while True:
            news.clear()
            pause = _AWAY
            try:
                while await self.once():
                    continue
                due = await self._rows.due()
                pause = _LOOK if due is None else min(max(due, _SOONEST), _LOOK)
            except Exception as error:  # noqa: BLE001  (the loop's edge: the lease keeps this one away for a while, and nobody else)
                if is_gone(error):
                    self._log.warning("followings.later", error=type(error).__name__)
                else:
                    self._log.exception("followings.failed")
            try:
                async with asyncio.timeout(pause):
                    await news.wait()
            except TimeoutError:
                continue

    async def once(self) -> bool:
        """One attempt at one following that is due. False: none is."""
        following = await self._rows.claim()
        if following is None:
            return False
        try:
            columns = await self._columns(following)
        except Problem as problem:
            await self._not_now(following, problem)
            return True
        if columns is None:
            return True
        until = self._clock() + self._attempt
        for column in await self._rows.list(following.id, columns):
            if self._clock() >= until:
                break
            try:
                await self._column(following, column, until)
            except _Away as away:
                await self._rows.postpone(following.id, _NOT_READY, str(away))
                return True
        await self._rows.settle(following.id)
        return True

    async def _columns(self, following: Following) -> list[LinkColumn] | None:
        """The columns that there are; None: it is not to be followed, or not yet."""
        epoch = self._follower.epoch(following.project_id)
        if epoch > following.epoch:
            await self._rows.end(following.id, "the database was restored since")
            return None
        if epoch < following.epoch:
            await self._rows.postpone(following.id, _NOT_READY, "the directory is out of date")
            return None
        return await self._follower.columns(following)

    async def _not_now(self, following: Following, problem: Problem) -> None:
        if problem.status == web.HTTPNotFound.status_code:
            await self._rows.end(following.id, "the project is gone")
        else:
            await self._rows.postpone(following.id, _NOT_READY, problem.code)

    async def _is_away(self, following: Following, problem: Problem) -> bool:
        """A table may end its own session, so whether it was the cluster is found out by another one, that touches no table."""
        if problem.code == "database_away":
            return not await self._follower.answers(following.project_id)
        return problem.code == "project_not_ready"

    async def _column(self, following: Following, column: LinkColumn, until: float) -> None:
        """Batch by batch until none is left, or the time is over. A table that never has enough counts as one that refuses."""
        while True:
            try:
                step = await self._follower.step(following, column)
            except Problem as problem:
                if await self._is_away(following, problem):
                    raise _Away(problem.code) from None
                await self._rows.refused(following.id, column, f"{problem.code}: {problem.title}. {problem.detail or ''}".strip())
                return
            self._failpoints.hit("schema_manager.following.step")
            await self._rows.count(following.id, column, step.rows, done=not step.more)
            if not step.more:
                return
            if self._clock() >= until:
                await self._rows.refused(following.id, column, f"unfinished: There were more rows after {self._attempt:g} seconds")
                return
