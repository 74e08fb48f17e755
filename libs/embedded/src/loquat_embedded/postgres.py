"""A PostgreSQL cluster as a child process."""

from __future__ import annotations

import asyncio
import hashlib
import os
import secrets
import shutil
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import asyncpg

from loquat_embedded.binaries import open_path, programs, unprivileged
from loquat_embedded.child import before_exec

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

SUPERUSER: Final = "postgres"
_START_LIMIT: Final = 60.0  # seconds; 0.8 s is usual, recovery after a crash of 1,000 databases takes longer
_STOP_LIMIT: Final = 20.0  # seconds for a fast shutdown, then an immediate one
_INITDB_LIMIT: Final = 120
_ELSEWHERE: Final = Path("/var/lib/loquat-embedded")


class ClusterFailed(Exception):
    """The cluster did not start. The text says why, with the last lines of its log."""


class PortBusy(Exception):
    """Somebody else listens there."""


def free_port() -> int:
    """A port that nobody uses at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def port_is_free(port: int, host: str = "127.0.0.1") -> bool:
    """Whether one could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
        return True


class Cluster:
    """One cluster: its data in `home/data`, the superuser's password in `home/password` (mode 0600), its log in `home/log`.

    `settings` are written as command-line options at each start, so that a change takes effect. `address_space` limits each backend in
    bytes: work_mem is no limit where a tenant may set it. `durable=False` is for tests: a crash of the machine may lose data.
    """

    def __init__(
        self,
        home: Path,
        *,
        port: int = 0,
        settings: Mapping[str, str] | None = None,
        address_space: int | None = None,
        durable: bool = True,
    ) -> None:
        self.home, self.host = home, "127.0.0.1"
        self.port = port
        self._settings = {
            **(settings or {}),
            **({} if durable else {"fsync": "off", "full_page_writes": "off", "synchronous_commit": "off"}),
        }
        self._address_space = address_space
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def password(self) -> str:
        """The superuser's."""
        return (self.home / "password").read_text().strip()

    @property
    def pid(self) -> int | None:
        """The postmaster's."""
        return self._process.pid if self._process is not None else None

    def dsn(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> str:
        """A connection URL."""
        secret = self.password if password is None else password
        return f"postgresql://{quote(user, safe='')}:{quote(secret, safe='')}@{self.host}:{self.port}/{quote(database, safe='')}"

    async def connect(self, database: str = "postgres", *, user: str = SUPERUSER, password: str | None = None) -> Connection:
        """A connection of its own, by default the superuser's."""
        return await asyncpg.connect(self.dsn(database, user=user, password=password), timeout=10, command_timeout=60)

    async def start(self) -> None:
        """Makes the cluster where there is none, starts it, returns when it answers.

        Raises:
            PortBusy: somebody listens on the port.
            ClusterFailed: it does not start.
            NoPostgres: there are no programs.
        """
        if self.port and not port_is_free(self.port):
            raise PortBusy(f"port {self.port} is taken by another program")
        self.port = self.port or free_port()
        await asyncio.to_thread(self._prepare)
        self._launch()
        await self._ready()

    def _prepare(self) -> None:
        self.home.mkdir(parents=True, exist_ok=True)
        if unprivileged() is not None:
            self._within_reach()
        if not (self.home / "data" / "PG_VERSION").exists():
            self._initialise()
        self._same_version()

    def _within_reach(self) -> None:
        """Started by root, the servers run as somebody else, who cannot pass a folder such as /root: then the data stand elsewhere, behind a link."""
        self.home.chmod(0o711)
        data = self.home / "data"
        if data.is_symlink() or data.exists() or open_path(self.home):
            return
        elsewhere = _ELSEWHERE / hashlib.sha256(str(self.home.resolve()).encode()).hexdigest()[:12]
        elsewhere.mkdir(parents=True, exist_ok=True)
        for folder in (elsewhere, _ELSEWHERE):
            folder.chmod(0o711)
        data.symlink_to(elsewhere / "data")

    def _initialise(self) -> None:
        data, password = (self.home / "data").resolve(), self.home / "password"
        shutil.rmtree(data, ignore_errors=True)  # a first start that was cut off
        data.mkdir(mode=0o700)
        password.touch(mode=0o600)
        password.write_text(secrets.token_urlsafe(24))
        handed = data.with_name("password-for-initdb")  # it runs as another user and could not read ours
        handed.touch(mode=0o600)
        handed.write_text(self.password)
        if (who := unprivileged()) is not None:
            os.chown(data, who.uid, who.gid)
            os.chown(handed, who.uid, who.gid)
        options = ["-D", data, "-U", SUPERUSER, "-A", "scram-sha-256", f"--pwfile={handed}", "--locale=C.UTF-8", "-E", "UTF8", "--no-sync"]
        command = [programs() / "initdb", "--no-instructions", *options]
        done = self._run([str(c) for c in command])
        handed.unlink()
        if done.returncode != 0:
            shutil.rmtree(data, ignore_errors=True)
            raise ClusterFailed(f"initdb failed: {done.stderr.decode(errors='replace')[-2000:]}")

    def _run(self, command: Sequence[str]) -> subprocess.CompletedProcess[bytes]:
        who = unprivileged()
        return subprocess.run(
            command,
            user=who.uid if who else None,
            group=who.gid if who else None,
            extra_groups=[] if who else None,
            cwd="/",
            env=self._environment(),
            capture_output=True,
            timeout=_INITDB_LIMIT,
            check=False,
        )

    def _environment(self) -> dict[str, str]:
        return {"PATH": os.environ.get("PATH", "/usr/bin:/bin"), "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def _same_version(self) -> None:
        found = (self.home / "data" / "PG_VERSION").read_text().strip()
        version = self._run([str(programs() / "postgres"), "--version"]).stdout.decode().split()
        ours = version[2].partition(".")[0] if len(version) > 2 else "?"  # noqa: PLR2004  ("postgres (PostgreSQL) 18.6")
        if found != ours:
            raise ClusterFailed(
                f"{self.home / 'data'} was made by PostgreSQL {found}, the programs here are of {ours}: dump it with the old ones, or start anew"
            )

    def _launch(self) -> None:
        options = {"listen_addresses": self.host, "unix_socket_directories": "", "max_connections": "200", **self._settings}
        command = [
            programs() / "postgres",
            "-D",
            (self.home / "data").resolve(),
            "-p",
            str(self.port),
            *(f"--{k}={v}" for k, v in options.items()),
        ]
        who = unprivileged()
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                [str(c) for c in command],
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=[] if who else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=self._environment(),
                preexec_fn=before_exec(death_signal=signal.SIGINT, address_space=self._address_space),  # noqa: PLW1509  (it calls prctl only)
            )

    async def _ready(self) -> None:
        assert self._process is not None  # noqa: S101  (_launch made it)
        try:
            async with asyncio.timeout(_START_LIMIT):
                while self._process.poll() is None:
                    try:
                        await (await self.connect()).close()
                    except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
                        await asyncio.sleep(0.05)
                    else:
                        return
        except TimeoutError:
            await self.stop()
        lines = (self.home / "log").read_text(errors="replace").splitlines()[-15:]
        raise ClusterFailed(f"PostgreSQL in {self.home} did not start:\n" + "\n".join(lines))

    async def stop(self) -> None:
        """A fast shutdown, an immediate one if that takes too long. Harmless when it is not running."""
        if self._process is None:
            return
        for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(number)
            if await self._ended():
                break
        self._process = None

    async def _ended(self) -> bool:
        assert self._process is not None  # noqa: S101  (stop saw to it)
        try:
            await asyncio.to_thread(self._process.wait, _STOP_LIMIT)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """As a crash: the postmaster and all its backends end at once."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(_STOP_LIMIT)
            self._process = None
