"""Bytes that a project may move in an hour, whichever of its workers moves them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final

HOUR: Final = 3600.0


@dataclass(slots=True)
class Budget:
    """What each project has spent in its running hour. Hours that are over are forgotten when another begins."""

    _hours: dict[str, tuple[float, int]] = field(default_factory=dict[str, tuple[float, int]])

    def spent(self, project: str, now: float) -> int:
        """In the hour that runs at `now`."""
        began, size = self._hours.get(project, (now, 0))
        return size if now - began < HOUR else 0

    def spend(self, project: str, size: int, now: float) -> None:
        """Adds to it."""
        began, before = self._hours.get(project, (now - HOUR, 0))
        if now - began < HOUR:
            self._hours[project] = (began, before + size)
            return
        self._hours = {p: hour for p, hour in self._hours.items() if now - hour[0] < HOUR}
        self._hours[project] = (now, size)
