"""A user of the machine for each project while any of its workers lives: no two projects share one."""

from __future__ import annotations

import os
import socket
from collections import Counter, deque
from pathlib import Path
from typing import Final

_RANGES: Final = ((200_000, 65_536), (20_000, 40_960))
"""First number and how many: beyond what people and services have; the second for pods whose namespace ends at 65,535."""
_BLOCK: Final = 4_096
"""Numbers that one runner takes at a time; other runners of this machine take others."""


class UsersSpent(Exception):
    """There are more projects with a worker than numbers."""


def available() -> tuple[int, int] | None:
    """A range of numbers that this process may become, if it may become anybody at all."""
    if os.geteuid() != 0:
        return None
    lines = [line.split() for line in Path("/proc/self/uid_map").read_text(encoding="ascii").splitlines()]
    mapped = [(int(first), int(count)) for first, _, count in lines]
    for start, size in _RANGES:
        if any(first <= start and start + size <= first + count for first, count in mapped):
            return start, size
    return None


class Users:
    """Numbers of one range, taken in blocks. A block is held by the name of an abstract socket: the kernel frees it when we end, however we do."""

    def __init__(self, start: int, size: int) -> None:
        self._blocks = iter(range(start, start + size - _BLOCK + 1, _BLOCK))
        self._fresh = iter(())
        self._held: list[socket.socket] = []
        self._of: dict[str, int] = {}
        self._workers: Counter[str] = Counter()
        self._free: deque[int] = deque()

    def take(self, project: str) -> int:
        """The project's user; `give` it back for each time it was taken.

        Raises:
            UsersSpent: none is left.
        """
        if project not in self._of:
            self._of[project] = self._next()
        self._workers[project] += 1
        return self._of[project]

    def of(self, project: str) -> int | None:
        """The number of a project that has one now."""
        return self._of.get(project)

    def give(self, project: str) -> None:
        """A worker of the project has ended."""
        self._workers[project] -= 1
        if self._workers[project] <= 0:
            del self._workers[project]
            self._free.append(self._of.pop(project))

    def _next(self) -> int:
        """The longest free last: what a process may have left behind anywhere finds nobody of its number for as long as can be."""
        fresh = next(self._fresh, None)
        if fresh is not None:
            return fresh
        if self._claim():
            return next(self._fresh)
        if not self._free:
            raise UsersSpent("every user of the range has a project")
        return self._free.popleft()

    def _claim(self) -> bool:
        if self._held and self._free:
            return False
        for first in self._blocks:
            name = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            try:
                name.bind(f"\0loquat-users-{first}")
            except OSError:
                name.close()
                continue
            self._held.append(name)
            self._fresh = iter(range(first, first + _BLOCK))
            return True
        return False

    def close(self) -> None:
        """Frees the blocks."""
        for name in self._held:
            name.close()
