"""Runs a Python program as a user of no rank, who can read the interpreter wherever it is: `run(code, *arguments)`. Needs root."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Final

from loquat_sandbox import kernel

USER: Final = 65_534
REFUSED: Final = 77
"""The exit code (EX_NOPERM of sysexits.h) where not even root may make a namespace: an ordinary user cannot be played then."""
_ASIDE: Final = "/mnt"


def shut_off(path: Path) -> Path | None:
    """The folder on the way to `path` that others may not pass."""
    return next((parent for parent in reversed(path.parents) if not parent.stat().st_mode & 0o001), None)


def _open_up(path: Path) -> None:
    """In a mount namespace of our own: an empty folder that all may pass takes the place of the shut one, with `path` in it."""
    shut = shut_off(path)
    if shut is None:
        return
    kernel.mount(str(path), _ASIDE, None, kernel.MS_BIND | kernel.MS_REC)
    kernel.mount("tmpfs", str(shut), "tmpfs", 0, "mode=755")
    path.mkdir(parents=True)
    kernel.mount(_ASIDE, str(path), None, kernel.MS_MOVE)


def main() -> None:
    """The arguments are a program and its own arguments.

    Raises:
        SystemExit: `REFUSED`.
    """
    try:
        kernel.unshare(kernel.NEWNS)
    except PermissionError:
        sys.exit(REFUSED)
    kernel.mount("none", "/", None, kernel.MS_REC | kernel.MS_PRIVATE)
    for path in (Path(sys.base_prefix), Path(sys.prefix)):
        _open_up(path)
    os.setgroups([])
    os.setresgid(USER, USER, USER)
    os.setresuid(USER, USER, USER)
    os.execv(sys.executable, [sys.executable, "-c", *sys.argv[1:]])  # noqa: S606  (what a process may read of itself is settled at exec)


if __name__ == "__main__":
    main()
