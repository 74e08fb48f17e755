"""Shapes of the bot API: runs and the log."""

from __future__ import annotations

from typing import Final
from uuid import UUID

from pydantic import AwareDatetime, BaseModel, Field

from loquat_rest.operation import OneProject, Operation


class RunsQuery(BaseModel):
    """Which runs: the newest first, below `before`; or with `after` those that follow it, the oldest first."""

    before: UUID | None = Field(default=None, description="the last `id` of the page before")
    after: UUID | None = Field(default=None, description="the newest `id` that was seen: what follows it, to the last one, and none twice")
    limit: int = Field(default=50, ge=1, le=200)
    outcome: str | None = Field(
        default=None, max_length=40, description="`handled`, `failed` (all others), or one of them, such as `TimedOut`"
    )
    version: str | None = Field(default=None, pattern="^[0-9a-f]{64}$")
    conversation: UUID | None = None
    event: UUID | None = None
    since: AwareDatetime | None = None


class Run(BaseModel):
    """One call of bot code. The error's frames are the bot's own."""

    id: UUID
    event_id: UUID
    conversation_id: UUID | None
    version: str | None
    attempt: int
    state: str | None = Field(description="of the conversation before")
    next_state: str | None = Field(description="and after")
    outcome: str
    replies: int
    queries: int | None = Field(description="statements of `ctx.db`; null where nobody counted")
    duration_ms: float
    error: str | None
    trace: str | None
    started_at: AwareDatetime


class RunList(BaseModel):
    """Newest first; with `after`, oldest first."""

    items: list[Run]


class LogsQuery(BaseModel):
    """Which lines: the newest first, below `before`; or with `after` those that follow it, the oldest first."""

    before: int | None = Field(default=None, ge=1)
    after: int | None = Field(
        default=None, ge=0, description="the newest `id` that was seen: what follows it, to the last one, and none twice"
    )
    limit: int = Field(default=50, ge=1, le=200)
    event: UUID | None = Field(default=None, description="the lines of one run's event")


class LogLine(BaseModel):
    """A line of the project's log."""

    id: int
    event_id: UUID | None
    level: str
    line: str
    at: AwareDatetime


class LogList(BaseModel):
    """Newest first; with `after`, oldest first."""

    items: list[LogLine]
    missed: bool = Field(default=False, description="with `after`: lines that followed it may be gone, for a project's last 2,000 are kept")


class OneRun(OneProject):
    """A run in the path."""

    run_id: UUID


class RunDetail(Run):
    """With what the bot said during its event, the first 200 lines."""

    log: list[LogLine]


RUNS: Final = Operation("GET", "/bot/runs", "List runs", "bots:read", query=RunsQuery, answer=RunList, errors=(404, 503), ready=False)
RUN: Final = Operation("GET", "/bot/runs/{run_id}", "A run with its log", "bots:read", OneRun, answer=RunDetail, errors=(404,), ready=False)
LOGS: Final = Operation("GET", "/bot/logs", "The bot's log", "bots:read", query=LogsQuery, answer=LogList, errors=(404, 503), ready=False)
OPERATIONS: Final[tuple[Operation, ...]] = (RUNS, RUN, LOGS)
