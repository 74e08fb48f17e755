"""The life of a process: start in order, unwind on failure, stop in reverse; every task has a name, an owner and somebody who notices its death."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable, Coroutine
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiohttp import web

from loquat_common.logs import get_logger

_STOP_LIMIT: Final = 10.0  # seconds for one resource to close; draining has its own limit
_WATCHDOG: Final = 30.0  # seconds on top of the drain: then the process ends hard. Three resources that hang are a hang.

Step = Callable[[], Awaitable[object]]
T = TypeVar("T")


class Stopping(Exception):
    """A signal came before the start was over. It unwinds the start and is no error of the process."""


class Lifecycle:
    """Use as an async context manager around the whole life of a service.

    `drain_seconds` is what `on_drain` steps get in all; the watchdog ends the process `drain_seconds + 30` s after a signal or the death of
    a task, however far the start had come.
    """

    def __init__(self, drain_seconds: float) -> None:
        self._drain_seconds = drain_seconds
        self._stops: list[tuple[str, Step]] = []
        self._drains: list[tuple[str, Callable[[float], Awaitable[object]]]] = []
        self._tasks: dict[asyncio.Task[object], str] = {}
        self._over = asyncio.Event()
        self._failure: BaseException | None = None
        self._watchdog: asyncio.TimerHandle | None = None
        self._log = get_logger()

    async def __aenter__(self) -> Self:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._signalled, number)
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> bool | None:
        loop = asyncio.get_running_loop()
        watchdog = self._watch()
        await self._drain()
        await self._cancel_tasks()
        for name, stop in reversed(self._stops):
            await self._stop(name, stop)
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)
        watchdog.cancel()
        if self._failure is not None and (error is None or isinstance(error, Stopping)):
            raise self._failure
        return isinstance(error, Stopping)

    def _signalled(self, number: signal.Signals) -> None:
        self._log.info("process.stopping", signal=signal.Signals(number).name)
        self._end()

    def _end(self) -> None:
        self._over.set()
        self._watch()  # from now, not from the end of a start that may hang

    def _watch(self) -> asyncio.TimerHandle:
        if self._watchdog is None:
            self._watchdog = asyncio.get_running_loop().call_later(self._drain_seconds + _WATCHDOG, os._exit, 70)
        return self._watchdog

    async def enter(self, name: str, start: Step, stop: Step) -> None:
        """Starts a resource now and stops it at the end, in reverse order. A failing start unwinds what was started."""
        self._stops.append((name, stop))
        await start()

    def on_stop(self, name: str, stop: Step) -> None:
        """Stops a resource that is open already."""
        self._stops.append((name, stop))

    def on_drain(self, name: str, drain: Callable[[float], Awaitable[object]]) -> None:
        """`drain(seconds)` finishes accepted work; all drains run at once, before anything stops."""
        self._drains.append((name, drain))

    def spawn(self, name: str, work: Coroutine[Any, Any, object]) -> None:
        """Runs `work` until the end. If it dies of an error, the process stops and says so: a supervisor starts it anew."""
        task: asyncio.Task[object] = asyncio.create_task(work, name=name)
        self._tasks[task] = name
        task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[object]) -> None:
        name = self._tasks.pop(task, None)
        if name is None or task.cancelled():
            return
        if (error := task.exception()) is not None:
            self._log.error("task.died", task=name, exc_info=error)
            self._failure = self._failure or error
            self._end()

    async def until(self, ready: Coroutine[Any, Any, T]) -> T:
        """What `ready` gives, if neither a signal nor the death of a spawned task comes first: such as a table that is to be read to its end.

        Raises:
            Stopping: a signal came.
            BaseException: what the task died of.
        """
        waiting = asyncio.create_task(ready, name="until")
        over = asyncio.create_task(self._over.wait(), name="until over")
        try:
            await asyncio.wait((waiting, over), return_when=asyncio.FIRST_COMPLETED)
            if self._over.is_set():
                raise self._failure or Stopping
            return waiting.result()
        finally:
            waiting.cancel()
            over.cancel()
            await asyncio.gather(waiting, over, return_exceptions=True)

    async def until_signalled(self) -> None:
        """Returns on SIGTERM, SIGINT or the death of a spawned task."""
        await self._over.wait()

    async def _drain(self) -> None:
        if not self._drains:
            return
        answers = await asyncio.gather(*(self._drain_one(name, drain) for name, drain in self._drains))
        if not all(answers):
            self._log.warning("process.drain_incomplete")

    async def _drain_one(self, name: str, drain: Callable[[float], Awaitable[object]]) -> bool:
        try:
            async with asyncio.timeout(self._drain_seconds + 1):  # the drain's own limit comes first
                return (await drain(self._drain_seconds)) is not False
        except Exception:  # noqa: BLE001  (a resource that fails to end must not keep the others from ending)
            self._log.exception("process.drain_failed", resource=name)
            return False

    async def _cancel_tasks(self) -> None:
        tasks = list(self._tasks)
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks, timeout=_STOP_LIMIT)

    async def _stop(self, name: str, stop: Step) -> None:
        try:
            async with asyncio.timeout(_STOP_LIMIT):
                await stop()
        except Exception:  # noqa: BLE001  (a resource that fails to end must not keep the others from ending)
            self._log.exception("process.stop_failed", resource=name)


class Server:
    """An aiohttp application that listens; `port` is the real one after `start`."""

    def __init__(self, app: web.Application, host: str, port: int, *, drain_seconds: float = 5.0) -> None:
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=drain_seconds, handle_signals=False)
        self._host, self.port = host, port

    async def start(self) -> None:
        """Listens.

        Raises:
            OSError: the port is taken; the message names it.
        """
        await self._runner.setup()
        site = web.TCPSite(self._runner, self._host, self.port)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        """Stops listening, lets running requests end within the drain."""
        await self._runner.cleanup()
