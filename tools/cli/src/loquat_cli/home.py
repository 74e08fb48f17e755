"""The folder of an embedded stack: where everything stands, and that only one stack lives in it."""

from __future__ import annotations

import fcntl
import json
import os
import time
from pathlib import Path
from typing import Any

from loquat_cli.errors import Trouble


class AlreadyRunning(Trouble):
    """Another `loquat up` works in this folder."""


class Home:
    """`$LOQUAT_HOME`."""

    def __init__(self, path: Path) -> None:
        self.path = path.absolute()
        self._lock: int | None = None

    @property
    def logs(self) -> Path:
        """One file per process."""
        return self.path / "logs"

    @property
    def owner_file(self) -> Path:
        """The owner's key, and the addresses."""
        return self.path / "owner.json"

    @property
    def new_owner_file(self) -> Path:
        """The owner's key while the owner is being made."""
        return self.path / "owner.new.json"

    @property
    def secrets_file(self) -> Path:
        """Passwords and keys of the services."""
        return self.path / "secrets.json"

    @property
    def state_file(self) -> Path:
        """What runs, as the supervisor last saw it."""
        return self.path / "state.json"

    def log(self, name: str) -> Path:
        """The log of a process."""
        return self.logs / f"{name}.log"

    def acquire(self) -> None:
        """Makes the folder and takes it for this process; the lock goes with the process, however it ends.

        Raises:
            AlreadyRunning: somebody has it.
        """
        self.path.mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            self.path.chmod(0o711)  # the databases run as somebody else and pass through; all that is secret is 0600
        self.logs.mkdir(exist_ok=True)
        self.logs.chmod(0o700)
        lock = os.open(self.path / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        if not _locked(lock):
            holder = os.read(lock, 20).decode().strip()
            os.close(lock)
            raise AlreadyRunning(
                f"Loquat already runs in {self.path} (process {holder or 'unknown'}). See `loquat status`; "
                "for a second one beside it set LOQUAT_HOME and the ports"
            )
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        self._lock = lock

    def release(self) -> None:
        """Gives the folder back."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def running(self) -> bool:
        """Whether some process has the folder."""
        try:
            lock = os.open(self.path / "lock", os.O_RDWR)
        except FileNotFoundError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(lock)
        return False


def _locked(lock: int) -> bool:
    """Whether we got it. A `loquat status` that looks holds it for an instant: hence a second try, and a few more."""
    for _ in range(5):
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(0.02)
        else:
            return True
    return False


def write_private(path: Path, content: str) -> None:
    """Writes a file that only its owner reads, all of it or nothing."""
    making = path.with_name(f".{path.name}.making")
    making.unlink(missing_ok=True)
    with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    making.replace(path)


def read_json(path: Path) -> dict[str, Any] | None:
    """The object in a file; None where there is no file."""
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError:
        return None
    return found
