"""How fast: per number and per pair, by the generic cell rate algorithm. Pure; the clock is passed in."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

NUMBER_RATE: Final = 80.0
"""Messages per second of one number, in and out together (reference, "Rate limits")."""
PAIR_INTERVAL: Final = 6.0
"""Seconds between messages of one number to one person, on the average."""
PAIR_BURST: Final = 45
"""Messages to one person that may go at once; they are borrowed from later."""
_REMEMBERED: Final = 100_000  # pairs; a forgotten one starts with a full burst, and Meta's own limit says so if it must


@dataclass(frozen=True, slots=True)
class Rate:
    """One message per `interval` seconds, `burst` at once."""

    interval: float
    burst: int


class Pacing:
    """What may go now, of one process. Several connectors share a number by its lanes, and Meta's 130429 slows the rest."""

    def __init__(self, number: Rate | None = None, pair: Rate | None = None) -> None:
        self._number = number or Rate(1 / NUMBER_RATE, int(NUMBER_RATE))
        self._pair = pair or Rate(PAIR_INTERVAL, PAIR_BURST)
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def take(self, number: str, recipient: str, now: float) -> float:
        """0: it may go, and is counted. Else the seconds to wait; nothing is counted."""
        places = ((number, self._number), (f"{number} {recipient}", self._pair))
        wait = max(self._wait(key, rate, now) for key, rate in places)
        if wait > 0:
            return wait
        for key, rate in places:
            self._full_at[key] = max(now, self._full_at.get(key, now)) + rate.interval
            self._full_at.move_to_end(key)
        while len(self._full_at) > _REMEMBERED:
            self._full_at.popitem(last=False)
        return 0.0

    def rest(self, number: str, now: float) -> float:
        """Seconds for which nothing may go from the number, to whomever."""
        return self._wait(number, self._number, now)

    def _wait(self, key: str, rate: Rate, now: float) -> float:
        return max(0.0, self._full_at.get(key, now) - now - rate.interval * (rate.burst - 1))
