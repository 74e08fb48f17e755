"""Shapes of the bot API: the tools that a bot's code declares with `@bot.tool`."""

from __future__ import annotations

from typing import Any, Final

from pydantic import BaseModel, Field

from loquat_rest.operation import Operation


class ToolsQuery(BaseModel):
    """Whose tools."""

    version: str | None = Field(
        default=None, pattern=r"^([0-9a-f]{64}|draft)$", description="a version that was saved, or `draft`; what is deployed, unless given"
    )


class BotTool(BaseModel):
    """A tool, as the APIs of language models take it."""

    name: str
    description: str
    parameters: dict[str, Any] = Field(description="JSON Schema of the arguments: an object")


class BotTools(BaseModel):
    """In the order of the code."""

    version: str = Field(description="whose they are; of the draft, the version that it would be")
    items: list[BotTool]


TOOLS: Final = Operation(
    "GET",
    "/bot/tools",
    "Tools that the bot declares, for language models and for people",
    "bots:read",
    query=ToolsQuery,
    answer=BotTools,
    errors=(404, 409, 503),
    seconds=60,
)
OPERATIONS: Final[tuple[Operation, ...]] = (TOOLS,)
