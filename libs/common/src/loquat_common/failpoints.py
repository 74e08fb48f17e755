"""Named points at which a test may end this process. Armed by a file, so that a running stack can be killed at any of them."""

from __future__ import annotations

import os
import signal
from pathlib import Path


class FailpointError(Exception):
    """A test asked for this failure."""


class Failpoints:
    """`hit(name)` does nothing unless `<folder>/<name>` exists. The file is taken away first, so a point fires once per arming.

    An empty file, or one that says `kill`: the process ends by SIGKILL. One that says `raise`: FailpointError.
    The settings refuse a folder outside tests.
    """

    def __init__(self, folder: Path | None) -> None:
        self._folder = folder

    def hit(self, name: str) -> None:
        """Passes the point.

        Raises:
            FailpointError: the file said `raise`.
        """
        if self._folder is None:
            return
        armed = self._folder / name
        try:
            action = armed.read_text().strip()
            armed.rename(self._folder / f"{name}.{os.getpid()}.fired")
        except FileNotFoundError:
            return
        if action == "raise":
            raise FailpointError(name)
        os.kill(os.getpid(), signal.SIGKILL)
