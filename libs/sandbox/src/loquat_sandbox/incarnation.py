"""One zygote process, as asyncio code sees it."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import msgspec

from loquat_sandbox import messages
from loquat_sandbox.confined import Ending, kill

FORK_LIMIT: Final = 10.0
"""Seconds until a process is there, and again until its walls stand; 0.01 is usual."""


Identity = tuple[int, int]
"""Which folder it is, whatever its name: device and inode."""


class ZygoteLost(Exception):
    """There is no zygote, or it does not answer. The next `fork` starts another."""


class ConfinementFailed(Exception):
    """A wall does not stand, so no code of a bot was run."""

    def __init__(self, layer: str, why: str) -> None:
        super().__init__(f"{layer}: {why}")
        self.layer, self.why = layer, why


class Incarnation:
    """One zygote, from its start to its end. It ends at the first thing that is not as it should be, and its workers with it.

    `shows`: the folder of bundles that its workers find.
    """

    def __init__(self, process: asyncio.subprocess.Process, channel: socket.socket, shows: Identity) -> None:
        self._process, self._channel, self.shows = process, channel, shows
        self._loop = asyncio.get_running_loop()
        self._numbers = count(1)
        self._answers: dict[int, asyncio.Future[tuple[int, Ending]]] = {}
        self._endings: dict[int, Ending] = {}
        self._sending = asyncio.Lock()
        self.landlock = 0
        self._since, self._retired = self._loop.time(), False
        self.begun: asyncio.Future[int] = self._loop.create_future()
        """The kernel's ABI of Landlock, once it serves."""
        self.lost = False
        self.at_end: Callable[[], None] | None = None
        self._loop.add_reader(channel.fileno(), self._hear)

    async def ask(self, message: messages.Begin | messages.Fork, descriptors: Sequence[int] = ()) -> None:
        """Sends, when there is room.

        Raises:
            ZygoteLost: nobody reads any more.
        """
        async with self._sending:
            while True:
                if self.lost:
                    raise ZygoteLost("it ended")
                try:
                    return messages.send(self._channel, message, descriptors)
                except BlockingIOError:
                    await until(self._channel, self._loop.add_writer, self._loop.remove_writer)
                except OSError as error:
                    self.end()
                    raise ZygoteLost(str(error)) from error

    async def fork(self, wanted: messages.Fork, descriptors: Sequence[int]) -> tuple[int, Ending]:
        """A pidfd, and the ending of the process behind it.

        Raises:
            ZygoteLost: it ended, or did not answer in time and was ended.
            ConfinementFailed: there is no process.
        """
        answer: asyncio.Future[tuple[int, Ending]] = self._loop.create_future()
        self._answers[wanted.id] = answer
        try:
            async with asyncio.timeout(FORK_LIMIT):
                await self.ask(wanted, descriptors)
                return await answer
        except TimeoutError:
            self.end()
            raise ZygoteLost("it did not answer") from None
        finally:
            self._answers.pop(wanted.id, None)

    def number(self) -> int:
        """Of a request."""
        return next(self._numbers)

    @property
    def age(self) -> float:
        """Seconds since it began to serve."""
        return self._loop.time() - self._since

    def serve(self) -> None:
        """From now on it is forked from."""
        self._since = self._loop.time()

    def retire(self) -> None:
        """It ends after its last worker."""
        self._retired = True
        self._end_if_over()

    def _end_if_over(self) -> None:
        if self._retired and not self._endings and not self._answers:
            self.end()

    def _hear(self) -> None:
        while not self.lost:
            try:
                packet, descriptors = messages.receive(self._channel)
            except BlockingIOError:
                return
            except OSError:
                packet, descriptors = b"", []
            try:
                self._understand(messages.ZYGOTE.decode(packet), descriptors)
            except (msgspec.MsgspecError, ValueError):  # no bytes are the end, too
                for descriptor in descriptors:
                    os.close(descriptor)
                self.end()

    def _understand(self, message: messages.FromZygote, descriptors: list[int]) -> None:
        match message:
            case messages.Begun():
                if not self.begun.done():
                    self.begun.set_result(message.landlock)
            case messages.NotBegun():
                if not self.begun.done():
                    self.begun.set_exception(ConfinementFailed("zygote", message.why))
            case messages.Forked():
                (pidfd,) = descriptors
                self._forked(message, pidfd)
            case messages.NotForked():
                if (answer := self._waiting(message.id)) is not None:
                    answer.set_exception(ConfinementFailed("fork", message.why))
            case messages.Ended():
                if (ending := self._endings.pop(message.pid, None)) is not None:
                    ending.tell(message.status)
                    self._end_if_over()

    def _waiting(self, request: int) -> asyncio.Future[tuple[int, Ending]] | None:
        answer = self._answers.get(request)
        return None if answer is None or answer.done() else answer

    def _forked(self, message: messages.Forked, pidfd: int) -> None:
        ending = self._endings[message.pid] = Ending(self._loop.create_future())
        if (answer := self._waiting(message.id)) is not None:
            answer.set_result((pidfd, ending))
        else:  # nobody waits for it any more
            kill(pidfd)
            os.close(pidfd)

    def end(self) -> None:
        """Ends the zygote, and so its workers."""
        if self.lost:
            return
        self.lost = True
        self._loop.remove_reader(self._channel.fileno())
        self._channel.close()
        with suppress(ProcessLookupError):
            self._process.kill()
        for answer in (*self._answers.values(), self.begun):
            if not answer.done():
                answer.set_exception(ZygoteLost("it ended"))
                answer.exception()  # nobody may wait for it any more
        for ending in self._endings.values():
            ending.tell(None)
        self._endings.clear()
        if self.at_end is not None:
            self.at_end()

    async def gone(self) -> None:
        """Waits until it has ended."""
        await self._process.wait()


async def until(one: socket.socket, watch: Callable[..., object], leave: Callable[[int], object]) -> None:
    """Waits until a socket can be read, or written to."""
    happened = asyncio.Event()
    watch(one.fileno(), happened.set)
    try:
        await happened.wait()
    finally:
        leave(one.fileno())
