"""When a process that died is started again."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from typing import Final

WRONG_SETTINGS: Final = 78
"""EX_CONFIG of sysexits.h: what a service exits with that cannot use its settings. Starting it again would change nothing."""


@dataclass(frozen=True, slots=True)
class Restarts:
    """At once-ish, then ever later, without end; an up-time of `stable` seconds forgives all earlier deaths.

    `loop` deaths in a row are a crash loop: it is said aloud and shown by `loquat status`.
    """

    first: float = 0.1  # seconds
    longest: float = 15.0
    stable: float = 10.0
    loop: int = 5

    def in_a_row(self, before: int, uptime: float) -> int:
        """Deaths in a row, this one counted."""
        return 1 if uptime >= self.stable else before + 1

    def delay(self, deaths: int) -> float:
        """Seconds until the next start after so many deaths in a row."""
        doublings = min(deaths - 1, 30)  # lest the power overflow in a loop of days
        return min(self.longest, self.first * 2.0**doublings)

    def looping(self, deaths: int) -> bool:
        """Whether so many are a crash loop."""
        return deaths >= self.loop


def exit_words(code: int) -> str:
    """A process' end as people say it."""
    if code < 0:
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"
    return "wrong settings" if code == WRONG_SETTINGS else f"exit code {code}"
