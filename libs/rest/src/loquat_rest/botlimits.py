"""Shapes of the bot API: what a bot may take of the machine."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel, ConfigDict, Field

from loquat_rest.operation import Operation


class BotLimits(BaseModel):
    """Of one project's bot. What goes beyond a limit ends that call or that process, and the project's log says so."""

    call_seconds: float = Field(description="that a handler may take")
    processor_seconds: float = Field(description="of processor time that one call may use")
    output_bytes: int = Field(description="that one call may print; then its output is closed")
    messages: int = Field(description="that one call may say")
    memory_bytes: int = Field(description="of data that the process may have")
    disk_bytes: int = Field(description="of its /tmp, which is empty when the process begins")
    open_files: int
    threads: int = Field(description="where the process has a user of its own (isolation level 3)")


class BotLimitsView(BaseModel):
    """The limits in force, those of the plan, and how far they can be moved here."""

    limits: BotLimits
    plan: BotLimits
    most: BotLimits
    least: BotLimits


class BotLimitsChange(BaseModel):
    """What is left out stays as it is; null is the plan's again."""

    model_config = ConfigDict(extra="forbid")

    call_seconds: float | None = None
    processor_seconds: float | None = None
    output_bytes: int | None = None
    messages: int | None = None
    memory_bytes: int | None = None
    disk_bytes: int | None = None
    open_files: int | None = None
    threads: int | None = None


LIMITS: Final = Operation("GET", "/bot/limits", "What the bot may take of the machine", "bots:read", answer=BotLimitsView, errors=(404,))
CHANGE_LIMITS: Final = Operation(
    "PATCH",
    "/bot/limits",
    "Change what the bot may take of the machine",
    "bots:write",
    body=BotLimitsChange,
    answer=BotLimitsView,
    errors=(404, 422),
)
OPERATIONS: Final[tuple[Operation, ...]] = (LIMITS, CHANGE_LIMITS)
