"""Dead letters, for tools outside. The list that people work with is rows in the consumer's schema."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from loquat_events.envelope import Payload


class EventDied(Payload):
    """A consumer gave up on an event. `original` is the event itself, base64 of its bytes; empty when it is too large to be told twice."""

    TYPE: ClassVar[str] = "event.died.v1"
    group: str
    topic: str
    partition: int
    offset: int
    reason: str
    attempts: int
    original: str
    size: int | None = Field(default=None, description="bytes of the event; those of a large one are kept in the consumer's row alone")
