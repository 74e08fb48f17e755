"""One supervised process: started, watched, started again when it dies."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from time import monotonic
from typing import Literal, Protocol

from loquat_common.logs import get_logger

from loquat_cli.restarts import WRONG_SETTINGS, Restarts, exit_words

State = Literal["stopped", "running", "waiting", "crash loop", "failed"]


class Startable(Protocol):
    """What can be supervised: a service's program, a PostgreSQL cluster, Kafka."""

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        ...

    async def start(self) -> object:
        """Starts it; raises when that fails."""
        ...

    async def ended(self) -> int:
        """Returns when it has ended: the exit code."""
        ...

    async def stop(self) -> object:
        """Ends it in an orderly way."""
        ...

    def kill(self) -> object:
        """Ends it at once."""
        ...


class Process:
    """Keeps `what` running from `start` to `stop`. `changed` is called at every change of state.

    `failed` is a process that ended because of its settings: nobody starts it again but `start`.
    """

    def __init__(self, name: str, what: Startable, restarts: Restarts, changed: Callable[[Process], None]) -> None:
        self.name, self.what = name, what
        self.state: State = "stopped"
        self.deaths = 0  # in a row
        self.restarts = 0  # in all
        self.last_end: str | None = None
        self._policy, self._changed = restarts, changed
        self._watcher: asyncio.Task[None] | None = None
        self._up = asyncio.Event()

    @property
    def pid(self) -> int | None:
        """Of the running process."""
        return self.what.pid if self.state == "running" else None

    async def start(self) -> None:
        """Starts it and watches over it. Raises what the first start raises."""
        await self.stop()
        self.deaths = 0
        await self.what.start()
        self._set("running")
        self._watcher = asyncio.create_task(self._watch(), name=f"watch {self.name}")

    async def stop(self) -> None:
        """Ends it for good. Harmless when it is not running."""
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            await asyncio.wait([watcher])
        await self.what.stop()
        self._set("stopped")

    def kill(self) -> None:
        """As a crash; it will be started again."""
        self.what.kill()

    async def up(self) -> None:
        """Returns when it runs."""
        await self._up.wait()

    async def _watch(self) -> None:
        try:
            while True:
                begun = monotonic()
                code = await self.what.ended()
                if not await self._again(exit_words(code), monotonic() - begun, hopeless=code == WRONG_SETTINGS):
                    return
        except Exception:  # noqa: BLE001  (the loop's edge: a watcher that dies would leave its process alone)
            get_logger().exception("supervisor.failed", process=self.name)
            self._set("failed")

    async def _again(self, end: str, uptime: float, *, hopeless: bool) -> bool:
        """Starts it until that works; false when there is no use."""
        while True:
            self.last_end = end
            self.deaths = self._policy.in_a_row(self.deaths, uptime)
            if hopeless:
                self._set("failed")
                return False
            self._set("crash loop" if self._policy.looping(self.deaths) else "waiting")
            await asyncio.sleep(self._policy.delay(self.deaths))
            try:
                await self.what.start()
            except Exception as error:  # noqa: BLE001  (whatever keeps it from starting may pass: a port, memory, a disk)
                end, uptime = f"did not start: {error}", 0.0
                continue
            self.restarts += 1
            self._set("running")
            return True

    def _set(self, state: State) -> None:
        if state == self.state == "stopped":
            return
        self.state = state
        if state == "running":
            self._up.set()
        else:
            self._up.clear()
        self._changed(self)
