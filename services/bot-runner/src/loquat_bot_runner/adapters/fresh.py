"""What was read a moment ago and is taken for true a moment longer: another replica may have changed it."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable
from typing import Final, Generic, TypeVar

FRESH: Final = 5.0
"""Seconds."""
_KEPT: Final = 5_000

T = TypeVar("T")


class Fresh(Generic[T]):
    """By project; of those used longest ago the oldest go."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._known: OrderedDict[str, tuple[float, T]] = OrderedDict()

    def get(self, project: str) -> T | None:
        """What is still taken for true."""
        known = self._known.get(project)
        return known[1] if known is not None and self._clock() - known[0] < FRESH else None

    def last(self, project: str) -> T | None:
        """What was true once."""
        known = self._known.get(project)
        return known[1] if known is not None else None

    def keep(self, project: str, value: T) -> T:
        """Now it is so."""
        self._known[project] = (self._clock(), value)
        self._known.move_to_end(project)
        while len(self._known) > _KEPT:
            self._known.popitem(last=False)
        return value

    def drop(self, project: str) -> None:
        """Nothing is known of it."""
        self._known.pop(project, None)
