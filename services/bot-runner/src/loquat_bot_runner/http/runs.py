"""Runs and the log."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from aiohttp import web
from loquat_common.http import Api
from loquat_common.problems import Problem, not_found
from loquat_rest import botruns as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.store import RunFilter, StillWriting, Store
from loquat_bot_runner.http.versions import BELOW

_LINES = 200  # of one run's log


class RunsApi:
    """What the bot did, and what it said."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        api.serve(shapes.RUNS, self.runs, below=BELOW)
        api.serve(shapes.RUN, self.run, below=BELOW)
        api.serve(shapes.LOGS, self.logs, below=BELOW)

    async def runs(self, _request: web.Request, *, path: OneProject, query: shapes.RunsQuery) -> shapes.RunList:
        """Newest first, or what follows."""
        chosen = RunFilter(query.outcome, query.version, query.conversation, query.event, query.since)
        with _told():
            found = await self._store.runs(path.project_id, query.before, query.limit, chosen, after=query.after)
        return shapes.RunList(items=[shapes.Run(**r.model_dump()) for r in found])

    async def run(self, _request: web.Request, *, path: shapes.OneRun) -> shapes.RunDetail:
        """With what was said during its event."""
        found = await self._store.run(path.project_id, path.run_id)
        if found is None:
            raise not_found("run")
        lines = await self._store.of_event(path.project_id, found.event_id, _LINES)
        return shapes.RunDetail(log=[shapes.LogLine(**line.model_dump()) for line in lines], **found.model_dump())

    async def logs(self, _request: web.Request, *, path: OneProject, query: shapes.LogsQuery) -> shapes.LogList:
        """Newest first, or what follows."""
        with _told():
            found = await self._store.logs(path.project_id, query.before, query.limit, after=query.after, event=query.event)
        missed = bool(found) and bool(query.after) and not await self._store.reaches(path.project_id, query.after or 0)
        return shapes.LogList(items=[shapes.LogLine(**line.model_dump()) for line in found], missed=missed)


@contextmanager
def _told() -> Generator[None]:
    try:
        yield
    except StillWriting:
        raise Problem(503, "busy", "What is newest is being written", "Try again in a moment") from None
