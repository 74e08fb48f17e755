"""Shapes of the bot API: how a project's bot behaves towards people, and what follows when it fails."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator

from loquat_rest.operation import Operation

_DAYS: Final = 30
"""Markers of events live as long: a message that comes later is never answered."""


class Conduct(BaseModel):
    """All of it, each time: what is left out is as it was in the beginning."""

    model_config = ConfigDict(extra="forbid")

    on_failure: Literal["silent", "apologise", "hand_over"] = Field(
        default="silent",
        description="when the bot has failed at a message for good: nothing is said, the apology is, or people hold the conversation",
    )
    apology: Annotated[str, StringConstraints(min_length=1, max_length=4096, strip_whitespace=True)] | None = Field(
        default=None, description="said unless on_failure is silent"
    )
    stale_after: int = Field(default=86_400, ge=60, le=_DAYS * 86_400, description="seconds; older messages are recorded and not answered")
    take_over: bool = Field(
        default=False, description="whether a person's message takes the conversation over where it does not say so itself"
    )
    phone_hold: int = Field(
        default=86_400, ge=60, le=366 * 86_400, description="seconds for which a message from the phone app takes it over"
    )
    join_texts: bool = Field(default=False, description="whether texts of one handler that follow each other are one message")

    @model_validator(mode="after")
    def _says_something(self) -> Conduct:
        if self.on_failure == "apologise" and self.apology is None:
            raise ValueError("apology: a text is needed to apologise")
        if self.apology is not None and ("\0" in self.apology or self.apology.encode(errors="ignore").decode() != self.apology):
            raise ValueError("apology: it holds U+0000 or half a character, which is no text")
        return self


CONDUCT: Final = Operation("GET", "/bot/settings", "How the bot behaves", "bots:read", answer=Conduct, errors=(404, 409, 503))
SET_CONDUCT: Final = Operation(
    "PUT",
    "/bot/settings",
    "Set how the bot behaves, from the next event on",
    "bots:write",
    body=Conduct,
    answer=Conduct,
    errors=(404, 409, 422, 503),
)
OPERATIONS: Final[tuple[Operation, ...]] = (CONDUCT, SET_CONDUCT)
