"""What the kernel holds a worker to at isolation level 0: limits, and a user of its own where the platform may set one."""

from __future__ import annotations

import ctypes
import hashlib
import os
import resource
import signal
import stat
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_NO_NEW_PRIVS: Final = 38
_UIDS: Final = range(200_000, 265_536)
"""Users of workers. Two projects may share one (a hash decides): level 0 promises no boundary."""
_FILES: Final = 128


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one worker."""

    memory: int
    file_size: int = 16 << 20


def own_users() -> bool:
    """Whether workers can run as users of their own: we are root, and they could still read the interpreter."""
    return os.geteuid() == 0 and all(
        p.stat().st_mode & stat.S_IXOTH for p in (Path(sys.executable).resolve(), *Path(sys.executable).resolve().parents)
    )


def user_of(project: str) -> int | None:
    """The user of a project's workers; None: our own."""
    if not own_users():
        return None
    return _UIDS[int.from_bytes(hashlib.sha256(project.encode()).digest()[:4], "big") % len(_UIDS)]


def before_exec(limits: Limits, uid: int | None) -> Callable[[], None]:
    """What runs in the child between fork and exec. The promise to die with the runner comes last: changing the user clears it."""
    libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None
    parent = os.getpid()

    def run() -> None:
        os.setsid()
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        resource.setrlimit(resource.RLIMIT_FSIZE, (limits.file_size, limits.file_size))
        resource.setrlimit(resource.RLIMIT_NOFILE, (_FILES, _FILES))
        resource.setrlimit(resource.RLIMIT_DATA, (limits.memory, limits.memory))
        if uid is not None:
            os.setgroups([])
            os.setresgid(uid, uid, uid)
            os.setresuid(uid, uid, uid)
        if libc is not None:
            libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
            libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
            if os.getppid() != parent:
                os._exit(70)

    return run
