"""Dead letters, for tools outside. The list that people work with is rows in the consumer's schema."""

from __future__ import annotations

from typing import ClassVar

from loquat_events.envelope import Payload


class EventDied(Payload):
    """A consumer gave up on an event. `original` is the event itself, base64 of its bytes."""

    TYPE: ClassVar[str] = "event.died.v1"
    group: str
    topic: str
    partition: int
    offset: int
    reason: str
    attempts: int
    original: str
