"""Shapes of the bot API: schedules that the deployed code declares, on and off, run by hand, with what became of each time."""

from __future__ import annotations

from typing import Annotated, Final, Literal
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from loquat_rest.operation import OneProject, Operation


class OneSchedule(OneProject):
    """A schedule in the path, by its name: the handler's, unless the code names it otherwise."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=60)]


class Schedule(BaseModel):
    """A schedule of the deployed version."""

    name: str
    schedule: str = Field(description="five fields, as cron has them")
    tz: str
    catch_up: Literal["skip", "once", "all"] = Field(
        description="what follows times that were missed: nothing, one run, or one for each, the last 24"
    )
    handler: str
    active: bool
    next_due: AwareDatetime | None = Field(description="null: it is off, or was deployed a moment ago")


class ScheduleList(BaseModel):
    """By name."""

    items: list[Schedule]


class Turn(BaseModel):
    """On or off. That stays whatever is deployed."""

    model_config = ConfigDict(extra="forbid")

    active: bool


class Fired(BaseModel):
    """Its event: `GET /bot/runs?event=` tells what came of it."""

    event_id: UUID


class PastRun(BaseModel):
    """A time that came, or a run by hand."""

    event_id: UUID
    due_at: AwareDatetime
    ordered_by: str | None = Field(description="who ran it; null: its time had come")
    recorded_at: AwareDatetime
    finished_at: AwareDatetime | None
    outcome: Literal["handled", "held", "expired", "discarded"] | None = Field(description="null: it waits, runs, or is a dead letter")


class HistoryQuery(BaseModel):
    """How many of the last."""

    limit: int = Field(default=50, ge=1, le=200)


class History(BaseModel):
    """Newest first."""

    items: list[PastRun]


SCHEDULES: Final = Operation("GET", "/bot/schedules", "The bot's schedules", "bots:read", answer=ScheduleList, errors=(404, 409, 503))
TURN: Final = Operation(
    "PATCH",
    "/bot/schedules/{name}",
    "Turn a schedule on or off",
    "bots:write",
    at=OneSchedule,
    body=Turn,
    answer=Schedule,
    errors=(404, 409, 503),
    seconds=60,
)
RUN: Final = Operation(
    "POST",
    "/bot/schedules/{name}/runs",
    "Run a schedule now, also one that is off; the same Idempotency-Key is the same run",
    "bots:write",
    at=OneSchedule,
    answer=Fired,
    status=202,
    errors=(404, 409, 503),
    headers=("Idempotency-Key",),
)
HISTORY: Final = Operation(
    "GET",
    "/bot/schedules/{name}/runs",
    "The last runs of a schedule",
    "bots:read",
    at=OneSchedule,
    query=HistoryQuery,
    answer=History,
    errors=(404, 409, 503),
)
OPERATIONS: Final[tuple[Operation, ...]] = (SCHEDULES, TURN, RUN, HISTORY)
