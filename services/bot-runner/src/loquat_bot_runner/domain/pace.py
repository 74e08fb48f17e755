"""How fast a project may make the runner work."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Pace:
    """A bucket of `burst` units that fills with `rate` units a second; whoever overdraws it waits until it is full enough again."""

    rate: float
    burst: float
    _level: float = field(init=False)
    _at: float | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        self._level = self.burst

    def spend(self, units: float, now: float) -> float:
        """Takes them, whatever the level; the seconds to wait before the next are taken."""
        elapsed = 0.0 if self._at is None else max(0.0, now - self._at)
        self._at = now
        self._level = min(self.burst, self._level + elapsed * self.rate) - units
        return max(0.0, -self._level / self.rate)
