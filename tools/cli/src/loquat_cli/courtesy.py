"""Tenants' sessions compute at the lowest priority: PostgreSQL shares no CPU fairly between databases."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Final

from loquat_embedded.child import children

_LOWEST: Final = 19
_LOOK: Final = 2.0  # seconds; a query that is shorter hurts nobody
_TENANTS_OWN: Final = re.compile(rb"^postgres: p_[0-9a-f]{12}_(bot|editor|direct) ")
"""How PostgreSQL titles a backend: by its user. These are the logins of projects."""


class Courtesy:
    """Watches the backends of the tenants' cluster.

    A neighbour that computed on 14 connections took another from 410 to 20 events a second; at the lowest priority, for it and its autogroup,
    to 98 (architecture, "Databases").
    """

    def __init__(self, postmaster: Callable[[], int | None]) -> None:
        self._postmaster = postmaster
        self._lowered: set[int] = set()

    async def run(self) -> None:
        """Until cancelled. Nothing to do where there is no /proc."""
        while True:
            self.look()
            await asyncio.sleep(_LOOK)

    def look(self) -> None:
        """Lowers what has come since the last look. Others are looked at again: a fresh backend has no title yet."""
        postmaster = self._postmaster()
        alive = set(children(postmaster)) if postmaster is not None else set[int]()
        self._lowered &= alive
        for pid in alive - self._lowered:
            with contextlib.suppress(OSError):  # it has ended meanwhile
                if _TENANTS_OWN.match(Path(f"/proc/{pid}/cmdline").read_bytes()):
                    lower(pid)
                    self._lowered.add(pid)


def lower(pid: int) -> None:
    """Gives a process the lowest priority, and the scheduler's group it is in."""
    os.setpriority(os.PRIO_PROCESS, pid, _LOWEST)
    with contextlib.suppress(OSError):  # a kernel without autogroups
        Path(f"/proc/{pid}/autogroup").write_text(str(_LOWEST))
