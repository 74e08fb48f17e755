"""Whether a canary does worse than the version it would replace."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LEAST_FAILED: Final = 3
"""Events that failed, each counted once however often it was tried: fewer may be chance, or one strange message."""
FLOOR: Final = 0.05
"""Share of failed events below which no canary is stopped: beside a stable version without any failure every ratio is infinite."""
RATIO: Final = 2.0
"""How much worse than the stable version, in the same time."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Events that a version was asked to handle, and those of them on which it failed at least once."""

    events: int
    failed: int

    @property
    def rate(self) -> float:
        """Share of events that failed; 0 where there were none."""
        return self.failed / self.events if self.events else 0.0


def verdict(canary: Tally, stable: Tally) -> str | None:
    """Why the canary is to be stopped, for people; None: it goes on."""
    if canary.failed < LEAST_FAILED or canary.rate <= max(FLOOR, RATIO * stable.rate):
        return None
    return f"{canary.failed} of {canary.events} events failed ({canary.rate:.0%}), with the stable version {stable.failed} of {stable.events} ({stable.rate:.0%})"
