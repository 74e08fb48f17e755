"""Child processes that do not outlive us, whatever ends us."""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import sys
from collections.abc import Callable
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_LIBC: Final = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


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
