"""Projects that leave: their numbers are let go when a deletion begins, everything else goes when it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from loquat_common.bus.port import Table
from loquat_common.db import is_gone
from loquat_common.logs import get_logger
from loquat_events.envelope import AnyEvent
from loquat_events.projects import ProjectListed

from loquat_connector.adapters.accounts import Accounts
from loquat_connector.adapters.numbers import Numbers
from loquat_connector.adapters.queue import SendQueue

_AGAIN: Final = 3600.0  # seconds until a look without news: a number may have been connected while the deletion began
_AWAY: Final = 5.0


class Leaving:
    """Follows the directory. `rest`: seconds a number rests after its tombstone; `told` is called when there is a tombstone to write.

    Whatever was missed is found by a look at this service's own rows, so that each step may be cut off anywhere.
    """

    def __init__(
        self,
        directory: Table,
        queue: SendQueue,
        numbers: Numbers,
        accounts: Accounts,
        letters: Callable[[str], Awaitable[None]],
        rest: float,
        told: Callable[[], None],
    ) -> None:
        self._directory, self._queue, self._numbers, self._accounts = directory, queue, numbers, accounts
        self._letters, self._rest, self._told = letters, rest, told
        self._news = asyncio.Event()
        self._log = get_logger()
        directory.on_change(self._changed)

    def _changed(self, _key: str, event: AnyEvent | None) -> None:
        if event is not None and _is_leaving(event):
            self._news.set()

    async def known(self) -> Sequence[str]:
        """Projects of this service's rows."""
        return sorted({*await self._numbers.projects(), *await self._queue.projects()})

    async def forget(self, project: str) -> None:
        """Drops all of a project that is gone. Its numbers' rows go when no gateway routes by them any more."""
        if await self._numbers.let_go(project, self._rest):
            self._told()
        await self._letters(project)
        await self._accounts.forget(project)
        await self._queue.forget(project)

    async def run(self) -> None:
        """For ever: lets go of the numbers of projects whose deletion began. Sleeps until one begins."""
        while True:
            self._news.clear()
            pause = _AGAIN
            try:
                await self.once()
            except Exception as error:
                if not is_gone(error):
                    raise
                self._log.warning("leaving.database_away", error=type(error).__name__)
                pause = _AWAY
            try:
                async with asyncio.timeout(pause):
                    await self._news.wait()
            except TimeoutError:
                continue

    async def once(self) -> None:
        """One look."""
        for project in await self._numbers.projects():
            event = self._directory.get(f"{project}:project")
            if event is not None and _is_leaving(event) and await self._numbers.let_go(project, self._rest):
                self._log.info("numbers.let_go", project=project)
                self._told()


def _is_leaving(event: AnyEvent) -> bool:
    return isinstance(event.data, ProjectListed) and event.data.state in {"deleting", "deleted"}
