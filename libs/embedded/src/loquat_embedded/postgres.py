"""A PostgreSQL cluster as a child process."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Final
from urllib.parse import quote

import asyncpg

from loquat_embedded.binaries import NoPostgres, programs, unprivileged
from loquat_embedded.child import before_exec, children, gone
from loquat_embedded.datadir import SUPERUSER, ClusterFailed, DataDirectory, environment
from loquat_embedded.ports import PortBusy, free_port, port_is_free

if TYPE_CHECKING:
    Connection = asyncpg.Connection[asyncpg.Record]

__all__ = ["SUPERUSER", "Cluster", "ClusterFailed", "NoPostgres", "PortBusy"]

_START_LIMIT: Final = 60.0  # seconds; 0.8 s is usual, recovery after a crash of 1,000 databases takes longer
_STOP_LIMIT: Final = 20.0  # seconds for a fast shutdown, then an immediate one
_SHOWN: Final = 15  # lines of the log in an error
_FAST_NOT_SAFE: Final = {
    "fsync": "off",
    "full_page_writes": "off",
}  # commits still reach the kernel: only a crash of the machine loses data


class Cluster:
    """One cluster: its data in `home/data`, the superuser's password in `home/password` (mode 0600), its log in `home/log`.

    It listens on 127.0.0.1; `port=0` takes a free one and keeps it. `settings` are given on the command line at each start, so that a change takes
    effect; for a unix socket too, `unix_socket_directories`. `address_space` limits each backend in bytes: work_mem is no limit where a
    tenant may set it. `durable=False` is for tests: a crash of the machine may lose data. If this process dies, the server shuts down (Linux).
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
        self.home, self.host, self.port = home, "127.0.0.1", port
        self._settings = {
            "listen_addresses": self.host,
            "unix_socket_directories": "",
            "max_connections": "200",
            "log_checkpoints": "off",  # a line every five minutes that nobody reads
            **(settings or {}),
            **({} if durable else _FAST_NOT_SAFE),
        }
        self._address_space, self._durable = address_space, durable
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
        folder = await asyncio.to_thread(programs)
        data = DataDirectory(self.home, folder, durable=self._durable)
        await asyncio.to_thread(data.prepare)
        await data.release()
        if self.port and not port_is_free(self.port):
            raise PortBusy(f"port {self.port} is taken by another program")
        self.port = self.port or free_port()
        try:
            self._process = self._launch(folder, data.path)
            await self._ready(self._process)
        except BaseException:
            await self.stop()
            raise

    def _launch(self, folder: Path, data: Path) -> subprocess.Popen[bytes]:
        # From the loop's thread: the kernel ends the child with the thread that started it.
        who = unprivileged()
        command = [str(folder / "postgres"), "-D", str(data), "-p", str(self.port), *(f"--{k}={v}" for k, v in self._settings.items())]
        (self.home / "log").touch(mode=0o600)
        with (self.home / "log").open("ab") as log:
            return subprocess.Popen(
                command,
                user=who.uid if who else None,
                group=who.gid if who else None,
                extra_groups=[] if who else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                env=environment(),
                preexec_fn=before_exec(death_signal=signal.SIGINT, address_space=self._address_space),  # noqa: PLW1509  (system calls only)
            )

    async def _ready(self, process: subprocess.Popen[bytes]) -> None:
        try:
            async with asyncio.timeout(_START_LIMIT):
                while process.poll() is None:
                    if await self._answers():
                        return
                    await asyncio.sleep(0.05)
        except TimeoutError:
            raise ClusterFailed(f"PostgreSQL in {self.home} did not answer within {_START_LIMIT:g} s:\n{self._last_lines()}") from None
        except asyncpg.InvalidPasswordError:
            raise ClusterFailed(f"{self.home / 'password'} is not the password of {SUPERUSER} in {self.home / 'data'}") from None
        raise ClusterFailed(f"PostgreSQL in {self.home} did not start:\n{self._last_lines()}")

    async def _answers(self) -> bool:
        try:
            await (await self.connect()).close()
        except (OSError, asyncpg.CannotConnectNowError, asyncpg.PostgresConnectionError):
            return False
        return True

    def _last_lines(self) -> str:
        return "\n".join((self.home / "log").read_text(errors="replace").splitlines()[-_SHOWN:])

    async def ended(self) -> int:
        """Returns when the server has ended, whatever the reason: its exit code."""
        if self._process is None:
            return 0
        process = self._process
        if process.poll() is None:
            await gone(process.pid)
        return process.wait()

    async def stop(self) -> None:
        """A fast shutdown, an immediate one if that takes too long. Harmless when it is not running."""
        for number in (signal.SIGINT, signal.SIGQUIT):
            if self._process is None:
                return
            self._process.send_signal(number)
            try:
                async with asyncio.timeout(_STOP_LIMIT):
                    await self.ended()
                self._process = None
            except TimeoutError:
                continue
        self.kill()

    def kill(self) -> None:
        """As a crash: the server and all its backends end at once."""
        if self._process is None:
            return
        victims = [self._process.pid, *children(self._process.pid)]  # each backend leads a session of its own
        self._process.send_signal(signal.SIGSTOP)  # lest it start more, or clean up after them
        for pid in victims:
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        self._process.wait(_STOP_LIMIT)
        self._process = None
