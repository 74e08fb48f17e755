"""What stands between a bot and everything else, by name."""

from __future__ import annotations

from enum import IntEnum


class Level(IntEnum):
    """Each holds what the one before holds.

    0: a process with limits. 1: the kernel's filters on calls, files and TCP (seccomp, Landlock). 2: a root directory, processes and a
    network of its own. 3: a user of its own per project, and a control group per worker.
    """

    NONE = 0
    CONFINED = 1
    CONTAINED = 2
    HARDENED = 3

    @property
    def label(self) -> str:
        """Its name, as in reports."""
        return self.name.lower()
