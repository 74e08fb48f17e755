"""What becomes of a row of the due index whose time has come. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final, Literal
from uuid import UUID

from loquat_events.projects import ProjectListed

from loquat_bot_runner.domain.schedules import NoSchedule, Plan, to_fire

NOT_YET: Final = timedelta(seconds=10)
"""Until a project that is being restored, or is not known here yet, is looked at again."""


@dataclass(frozen=True, slots=True)
class DueRow:
    """A timer or a schedule. `id` is the timer's or the automation's; `event_id` a timer's; `body` is what its event says besides."""

    project_id: str
    id: UUID
    kind: Literal["timer", "schedule"]
    event_id: UUID | None
    epoch: int
    due_at: datetime
    lane: str
    body: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Settled:
    """The times that are fired; when the row is due next (None: never again); when it is looked at, and of which epoch it is then.

    `stale`: the project's schedules must be looked at anew.
    """

    fires: tuple[datetime, ...] = ()
    due_at: datetime | None = None
    look_at: datetime | None = None
    epoch: int = 0
    stale: bool = False


def settle(row: DueRow, project: ProjectListed | None, now: datetime) -> Settled:
    """A timer fires once, unless the database in which it was set is no more. A schedule that is missed is caught up by its own policy, and goes on."""
    if project is None or project.state != "ready" or row.epoch > project.epoch:
        return Settled(due_at=row.due_at, look_at=now + NOT_YET, epoch=row.epoch)
    if row.kind == "timer":
        return Settled((row.due_at,) if row.epoch == project.epoch else ())
    plan = Plan(row.body["schedule"], row.body["tz"], row.body["catch_up"])
    try:
        following = plan.after(now)
        return Settled(tuple(to_fire(plan, row.due_at, now)), following, following, project.epoch, row.epoch < project.epoch)
    except NoSchedule:  # the rules of time zones have changed under it
        return Settled(stale=True)
