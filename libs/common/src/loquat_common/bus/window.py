"""The window of a partition: what was received and is above the watermark."""

from __future__ import annotations

from collections import deque

from loquat_common.bus.limits import Limits


class Window:
    """Offsets in order of arrival, finished in any order. Gaps are normal after compaction and retention."""

    def __init__(self) -> None:
        self._open: deque[tuple[int, int]] = deque()
        self._finished: set[int] = set()
        self._bytes = 0
        self._paused = False

    def add(self, offset: int, size: int) -> None:
        """Received."""
        self._open.append((offset, size))
        self._bytes += size

    def finish(self, offset: int) -> None:
        """Handled, or safely in a row."""
        self._finished.add(offset)
        while self._open and self._open[0][0] in self._finished:
            done, size = self._open.popleft()
            self._finished.discard(done)
            self._bytes -= size

    def watermark(self, position: int) -> int:
        """The offset that may be committed: all below is finished."""
        return self._open[0][0] if self._open else position

    def full(self, limits: Limits) -> bool:
        """Whether to fetch no more. Pauses at the limit, resumes at half of it: a pause throws the client's prefetch away."""
        share = 0.5 if self._paused else 1.0
        self._paused = len(self._open) >= limits.span * share or self._bytes >= limits.span_bytes * share
        return self._paused

    def __bool__(self) -> bool:
        return bool(self._open)
