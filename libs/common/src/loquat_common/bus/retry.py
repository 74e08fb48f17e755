"""Retry as data: how long until the next try, and when to give up. A pure function of the attempt and a random number."""

from __future__ import annotations

from dataclasses import dataclass

from loquat_common.bus.port import Dead, Retry


@dataclass(frozen=True, slots=True)
class Backoff:
    """`first` seconds, times `factor` each time, at most `cap`; `jitter` is the share of it that is random. `tries` in all, the first included."""

    first: float = 0.5
    factor: float = 2.0
    cap: float = 300.0
    tries: int = 5
    jitter: float = 0.5

    def delay(self, attempt: int, chance: float) -> float:
        """Seconds before try number `attempt + 1`, with `chance` from 0 to 1."""
        whole = min(self.cap, self.first * self.factor ** min(attempt, 60))
        return whole * (1 - self.jitter * chance)

    def outcome(self, attempts: int, chance: float, reason: str) -> Retry | Dead:
        """What follows a failure after `attempts` failed tries before it."""
        return Dead(reason) if attempts + 1 >= self.tries else Retry(self.delay(attempts, chance), reason)
