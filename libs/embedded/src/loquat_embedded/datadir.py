"""A cluster's data directory: made once, checked at each start."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loquat_embedded.binaries import SHARED, open_path, unprivileged
from loquat_embedded.child import gone

SUPERUSER: Final = "postgres"
_INITDB_LIMIT: Final = 120  # seconds; 1 to 3 are usual
_PREDECESSOR_LIMIT: Final = 20.0  # seconds that a server may need to end whose supervisor was killed


class ClusterFailed(Exception):
    """The cluster did not start. The text says why, with the last lines of its log."""


def environment() -> dict[str, str]:
    """What the servers see of ours: where programs are. Not the language, not the time zone."""
    return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}


class DataDirectory:
    """`home/data`, and the superuser's password in `home/password` (mode 0600).

    Started by root, the servers run as somebody else, who cannot pass a folder such as /root: then `home/data` is a link to a folder below
    /var/lib/loquat-embedded.
    """

    def __init__(self, home: Path, programs: Path, *, durable: bool, shared: Path = SHARED) -> None:
        self._home, self._programs, self._durable, self._shared = home, programs, durable, shared

    @property
    def path(self) -> Path:
        """Where the data really stand."""
        return (self._home / "data").resolve()

    def prepare(self) -> None:
        """Makes the directory where there is none.

        Raises:
            ClusterFailed: initdb failed, or the data are of another major version.
        """
        self._home.mkdir(parents=True, exist_ok=True)
        if unprivileged() is not None:
            self._within_reach()
        if not (self._home / "data" / "PG_VERSION").exists():
            self._initialise()
        self._same_version()

    def _within_reach(self) -> None:
        self._home.chmod(0o711)
        link = self._home / "data"
        if link.is_symlink() or link.exists() or open_path(link):
            return
        elsewhere = self._shared / hashlib.sha256(str(self._home.resolve()).encode()).hexdigest()[:12]
        shutil.rmtree(elsewhere, ignore_errors=True)  # of a home that was removed, with the password and all keys to it
        elsewhere.mkdir(parents=True)
        for folder in (elsewhere, self._shared):
            folder.chmod(0o711)
        link.symlink_to(elsewhere / "data")

    def _initialise(self) -> None:
        """Into a folder beside, renamed when complete: a first start that is cut off leaves nothing that looks like a cluster."""
        data, password = self.path, self._home / "password"
        making = data.with_name("data.making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        handed = making.with_name("password.handed")  # initdb runs as another user and could not read ours
        handed.unlink(missing_ok=True)
        handed.touch(mode=0o600)
        handed.write_text(password.read_text())
        if (who := unprivileged()) is not None:
            os.chown(making, who.uid, who.gid)
            os.chown(handed, who.uid, who.gid)
        try:
            done = self._run([str(self._programs / "initdb"), *self._initdb_options(making, handed)])
        finally:
            handed.unlink()
        if done.returncode != 0:
            shutil.rmtree(making, ignore_errors=True)
            raise ClusterFailed(f"initdb failed in {making}:\n{done.stderr.decode(errors='replace')[-2000:].strip()}")
        if data.exists():
            data.rmdir()  # only ever an empty one: anything else we leave to its owner
        making.rename(data)

    def _initdb_options(self, data: Path, password: Path) -> list[str]:
        sync = "--sync-method=syncfs" if sys.platform == "linux" else "--sync-method=fsync"
        return [
            *("-D", str(data), "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={password}"),
            *("--locale=C.UTF-8" if sys.platform == "linux" else "--no-locale", "-E", "UTF8", "--no-instructions"),
            sync if self._durable else "--no-sync",
        ]

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        who = unprivileged()
        return subprocess.run(
            command,
            user=who.uid if who else None,
            group=who.gid if who else None,
            extra_groups=[] if who else None,
            cwd="/",
            env=environment(),
            capture_output=True,
            timeout=_INITDB_LIMIT,
            check=False,
        )

    def _same_version(self) -> None:
        found = (self._home / "data" / "PG_VERSION").read_text().strip()
        version = self._run([str(self._programs / "postgres"), "--version"]).stdout.decode().split()
        ours = version[2].partition(".")[0] if len(version) > 2 else "?"  # noqa: PLR2004  ("postgres (PostgreSQL) 18.6")
        if found != ours:
            raise ClusterFailed(
                f"{self._home / 'data'} was made by PostgreSQL {found}, the programs in {self._programs} are {ours}: "
                f"dump the data with PostgreSQL {found} (LOQUAT_POSTGRES_BIN names its programs), or start anew in an empty folder"
            )

    async def release(self) -> None:
        """Waits for a server that is still ending because its supervisor was killed; removes a crashed one's lock that names a stranger.

        Postgres sees by itself that the lock's process is gone, but not that its number belongs to somebody else by now, as it may after
        the restart of a container.

        Raises:
            ClusterFailed: a server works on these data and does not end.
        """
        pid = await asyncio.to_thread(self._predecessor)
        if pid is None:
            return
        try:
            async with asyncio.timeout(_PREDECESSOR_LIMIT):
                await gone(pid)
        except TimeoutError:
            raise ClusterFailed(f"PostgreSQL (process {pid}) already works on {self.path}; stop it first") from None

    def _predecessor(self) -> int | None:
        lock = self.path / "postmaster.pid"
        try:
            pid = int(lock.read_text().split("\n", 1)[0])
        except (FileNotFoundError, ValueError):
            return None
        if not Path(f"/proc/{pid}").exists():
            return None  # gone, or a system without /proc: Postgres looks itself, also whether the memory of the dead one is still in use
        if self._works_here(pid):
            return pid
        lock.unlink(missing_ok=True)
        return None

    def _works_here(self, pid: int) -> bool:
        try:
            return Path(f"/proc/{pid}/cwd").readlink() == self.path  # a server stands in its data directory
        except OSError:
            return False  # gone, or somebody else's process: ours run as us
