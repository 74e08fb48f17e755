"""When a worker has served long enough, and what becomes of one that keeps the processor busy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

OLDEST: Final = 6 * 3600.0
"""Seconds. What leaks does not leak for ever, and no address of code or data stays the same for days."""
MOST_CALLS: Final = 5_000
FULLEST: Final = 0.75
"""Of its memory: the next call would begin with little left."""
BURST: Final = 0.2
"""Seconds of processor time that a worker may use in one go before everybody else's work goes first."""

Verdict = Literal["run", "yield", "end"]


@dataclass(frozen=True, slots=True)
class Wear:
    """Of a worker: seconds since its start, calls, bytes."""

    age: float
    calls: int
    memory: int


def worn(wear: Wear, limit: int) -> bool:
    """Whether the next call should find a fresh worker. `limit`: bytes that it may have."""
    return wear.age > OLDEST or wear.calls > MOST_CALLS or wear.memory > FULLEST * limit


def processor(used: float, calls: int, limit: float) -> Verdict:
    """Of a worker that used so many seconds of processor time since it last rested, for so many calls. `limit` is that of one call."""
    if used > limit * max(calls, 1):
        return "end"
    return "yield" if used > BURST else "run"
