"""Schedules that the deployed code declares."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from uuid import UUID, uuid4

from aiohttp import web
from loquat_common.bus.port import Bus, BusUnavailable
from loquat_common.directory import Directory
from loquat_common.http import ACTOR, Api
from loquat_common.problems import Problem, not_found
from loquat_events.conversations import ScheduleFired
from loquat_events.envelope import Event, Payload
from loquat_events.ids import schedule_id
from loquat_events.projects import ProjectListed
from loquat_rest import botschedules as shapes
from loquat_rest.operation import OneProject

from loquat_bot_runner.adapters.automations import Automation, Automations
from loquat_bot_runner.adapters.due import DueIndex
from loquat_bot_runner.adapters.syncing import Syncing
from loquat_bot_runner.http.ready import ready
from loquat_bot_runner.http.versions import BELOW

_LONGEST_KEY = 200


class SchedulesApi:
    """On, off, now; and what was."""

    def __init__(
        self, automations: Automations, index: DueIndex, syncing: Syncing, directory: Directory, bus: Bus, clock: Callable[[], datetime]
    ) -> None:
        self._automations, self._index, self._syncing = automations, index, syncing
        self._directory, self._bus, self._clock = directory, bus, clock

    def add_to(self, api: Api) -> None:
        """Adds the routes."""
        for operation, handler in (
            (shapes.SCHEDULES, self.list),
            (shapes.TURN, self.turn),
            (shapes.RUN, self.run),
            (shapes.HISTORY, self.history),
        ):
            api.serve(operation, handler, below=BELOW)

    async def list(self, _request: web.Request, *, path: OneProject) -> shapes.ScheduleList:
        """By name."""
        with ready(self._directory, path.project_id) as project:
            found, planned = await self._automations.list(project), await self._index.planned(path.project_id)
        return shapes.ScheduleList(items=[_shown(one, planned) for one in found])

    async def turn(self, _request: web.Request, *, path: shapes.OneSchedule, body: shapes.Turn) -> shapes.Schedule:
        """From now on: a time that comes meanwhile is either run or not."""
        with ready(self._directory, path.project_id) as project:
            one = await self._one(project, path.name)
            if not await self._syncing.turn(path.project_id, one, active=body.active):
                raise not_found("schedule")
            one = await self._one(project, path.name)
        return _shown(one, await self._index.planned(path.project_id))

    async def run(self, request: web.Request, *, path: shapes.OneSchedule) -> shapes.Fired:
        """In turn with its other runs."""
        by, key = request[ACTOR].subject, request.headers.get("Idempotency-Key")
        if key is not None and not 1 <= len(key) <= _LONGEST_KEY:
            raise Problem(400, "invalid_request", "The request is refused", f"header.Idempotency-Key has 1 to {_LONGEST_KEY} characters")
        with ready(self._directory, path.project_id) as project:
            one = await self._one(project, path.name)
        fired = ScheduleFired(automation_id=one.id, name=one.name, due_at=self._clock().astimezone(UTC), ordered_by=by, epoch=project.epoch)
        event_id = schedule_id(path.project_id, one.id, f"by {by} {key}") if key is not None else uuid4()
        event = Event[Payload].of(
            fired, id=event_id, source="/bot-runner", time=self._clock(), project=path.project_id, lane=f"schedule:{one.name}"
        )
        try:
            await self._bus.publish(event)
        except BusUnavailable:
            raise Problem(503, "unavailable", "The order cannot be kept now", "Send it again with the same Idempotency-Key") from None
        return shapes.Fired(event_id=event_id)

    async def history(self, _request: web.Request, *, path: shapes.OneSchedule, query: shapes.HistoryQuery) -> shapes.History:
        """Newest first."""
        with ready(self._directory, path.project_id) as project:
            one = await self._one(project, path.name)
            found = await self._automations.history(project, one.id, query.limit)
        return shapes.History(items=[shapes.PastRun.model_validate(r.model_dump()) for r in found])

    async def _one(self, project: ProjectListed, name: str) -> Automation:
        for one in await self._automations.list(project):
            if one.name == name:
                return one
        raise not_found("schedule")


def _shown(one: Automation, planned: dict[UUID, datetime]) -> shapes.Schedule:
    return shapes.Schedule(next_due=planned.get(one.id), **one.model_dump(exclude={"id"}))
