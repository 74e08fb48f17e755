"""Child processes that do not outlive us, whatever ends us."""

from __future__ import annotations

import asyncio
import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
_LOOK: Final = 0.25  # seconds between looks where the kernel does not tell (macOS)


def before_exec(*, death_signal: signal.Signals | None, address_space: int | None = None) -> Callable[[], None]:
    """What runs in the child between fork and exec: a group of its own, the kernel's promise to end it with its parent, limits.

    Linux ties the promise to the parent's thread, so start children from a thread that lives as long as the process. Elsewhere there is
    no such promise and the parent's own clean-up must do.
    """
    parent = os.getpid()

    def run() -> None:
        os.setsid()
        if address_space is not None:
            resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
        if death_signal is not None and _LIBC is not None:
            _LIBC.prctl(_PR_SET_PDEATHSIG, death_signal, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(70)  # it died before we could ask

    return run


async def gone(pid: int) -> None:
    """Returns when the process has ended, a child of ours or not. Costs nothing meanwhile. A child still has to be waited for."""
    try:
        watch = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    except (AttributeError, OSError):  # no such call here
        await _gone_by_looking(pid)
        return
    loop, over = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(watch, over.set)
    try:
        await over.wait()
    finally:
        loop.remove_reader(watch)
        os.close(watch)


async def _gone_by_looking(pid: int) -> None:
    while alive(pid):  # noqa: ASYNC110  (there is no event to wait for)
        await asyncio.sleep(_LOOK)


def alive(pid: int) -> bool:
    """Whether there is such a process, ended children that nobody waited for not counted."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    except ChildProcessError:
        return True  # somebody else's
    return state is None


def children(pid: int) -> list[int]:
    """The processes that this one started; none where there is no /proc."""
    found: list[int] = []
    for listed in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(p) for p in listed.read_text().split()]
        except OSError:
            continue  # the thread has just ended
    return found


def kill_group(pid: int, number: signal.Signals) -> None:
    """Sends the signal to the process and all of its group. Harmless when nobody of it is left."""
    try:
        os.killpg(pid, number)
    except (ProcessLookupError, PermissionError):  # macOS says EPERM of a group that has only ended members
        return
