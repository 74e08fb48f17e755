"""How large a project's database is, for the answer that it is too large. The provisioner knows: no tenant's login may ask for a size."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from loquat_common.client import InternalClient
from loquat_common.problems import Problem
from loquat_rest.ownership import USAGE

_REMEMBERED: Final = 10.0
"""Seconds: who is refused asks again at once, and weighing every table each time would be dear."""
_MOST: Final = 1_000  # projects
_ANSWER: Final = 2.0  # seconds; without, the refusal goes without numbers


@dataclass(frozen=True, slots=True)
class Size:
    """Bytes, and the bytes that are the limit."""

    size: int
    limit: int


class Sizes:
    """Asks once for all who are refused at the same time."""

    def __init__(self, provisioner: InternalClient, clock: Callable[[], float] = time.monotonic) -> None:
        self._provisioner, self._clock = provisioner, clock
        self._asked: OrderedDict[str, tuple[float, asyncio.Task[Size | None]]] = OrderedDict()

    async def of(self, project: str) -> Size | None:
        """None: it cannot be learned now."""
        asked = self._asked.get(project)
        if asked is None or self._clock() - asked[0] > _REMEMBERED:
            asked = (self._clock(), asyncio.create_task(self._ask(project)))
            self._asked[project] = asked
            self._asked.move_to_end(project)
            if len(self._asked) > _MOST:
                self._asked.popitem(last=False)
        return await asyncio.shield(asked[1])

    async def _ask(self, project: str) -> Size | None:
        path, actor = f"/internal/projects/{project}{USAGE.path}", self._provisioner.itself("database:read")
        try:
            found = await self._provisioner.call("GET", path, actor=actor, timeout=_ANSWER)
        except Problem:
            return None
        return Size(found["size_bytes"], found["limits"]["size_bytes"])
