"""Apache Kafka as a child process: one broker and controller (KRaft), from Kafka's own jars that Maven fetches, else from its image."""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import subprocess
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from loquat_embedded import kafkaimage
from loquat_embedded.child import before_exec
from loquat_embedded.ports import PortBusy, free_port, port_is_free

DEPLOY: Final = Path(__file__).resolve().parents[4] / "deploy" / "kafka-local"
"""Where the pom and the broker's settings are, in a checkout."""
_FETCH_LIMIT: Final = 600  # seconds for 43 MB over a slow line
_FORMAT_LIMIT: Final = 60
_START_LIMIT: Final = 90.0  # 3 s are usual; a loaded machine with two cores needs more
_STOP_LIMIT: Final = 30.0


class NoKafka(Exception):
    """Kafka cannot be started on this machine. The text says what is missing."""


class KafkaFailed(Exception):
    """The broker did not start. The text has the end of its log."""


def missing() -> str | None:
    """What a broker on this machine lacks; None: nothing."""
    absent = _absent()
    if absent and not kafkaimage.engine_answers():
        return f"neither Docker nor Maven and Java: no Docker engine answers, {' and '.join(absent)} not found"
    return None


def _absent() -> list[str]:
    """What the jars need and is not there. Maven is not needed once they are fetched."""
    needed = ("java",) if _jars() else ("java", "mvn")
    return [name for name in needed if shutil.which(name) is None]


def _jars() -> list[Path]:
    return sorted((DEPLOY / "libs").glob("*.jar"))


class Kafka:
    """One node. Its data in `home/data`, its log in `home/log`."""

    def __init__(self, home: Path, *, port: int = 0, controller_port: int = 0) -> None:
        self.home, self.host = home, "127.0.0.1"
        self.port, self._controller = port, controller_port
        self._process: subprocess.Popen[bytes] | None = None
        self._image: str | None = None

    @property
    def servers(self) -> str:
        """For clients."""
        return f"{self.host}:{self.port}"

    @property
    def pid(self) -> int | None:
        """The JVM's."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Fetches the jars if need be, formats the data folder once, starts the broker, returns when it listens.

        Raises:
            NoKafka: neither Java with Maven nor Docker is there, or Maven fails.
            PortBusy: somebody listens on a port.
            KafkaFailed: it does not start.
        """
        if (lack := missing()) is not None:
            raise NoKafka(lack)
        for port in (self.port, self._controller):
            if port and not port_is_free(port):
                raise PortBusy(f"port {port} is taken by another program")
        self.port, self._controller = self.port or free_port(), self._controller or free_port()
        self.home.mkdir(parents=True, exist_ok=True)
        if _absent():
            self._image = kafkaimage.name_of(self.home)
            self._launch(kafkaimage.command(self._image, self.port))
        else:
            await asyncio.to_thread(self._prepare)
            self._launch(self._java("kafka.Kafka", str(self._settings)))
        await self._ready()

    def _prepare(self) -> None:
        if not _jars():
            command = [
                "mvn",
                "-q",
                "-B",
                "-f",
                str(DEPLOY / "pom.xml"),
                "dependency:copy-dependencies",
                "-DoutputDirectory=libs",
                "-DincludeScope=runtime",
            ]
            done = subprocess.run(command, capture_output=True, timeout=_FETCH_LIMIT, check=False, cwd=DEPLOY)
            if done.returncode != 0 or not _jars():
                raise NoKafka(f"Maven could not fetch Kafka's jars: {done.stdout.decode(errors='replace')[-1500:]}")
        settings = (
            (DEPLOY / "server.properties").read_text().replace("{port}", str(self.port)).replace("{controller}", str(self._controller))
        )
        self._settings.write_text(settings.replace("{data}", str(self.home / "data")))
        if not (self.home / "data" / "meta.properties").exists():
            cluster = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
            done = subprocess.run(
                self._java("kafka.tools.StorageTool", "format", "--standalone", f"--cluster-id={cluster}", "-c", str(self._settings)),
                capture_output=True,
                timeout=_FORMAT_LIMIT,
                check=False,
            )
            if done.returncode != 0:
                raise KafkaFailed(f"the data folder could not be formatted: {(done.stdout + done.stderr).decode(errors='replace')[-1500:]}")

    @property
    def _settings(self) -> Path:
        return self.home / "server.properties"

    def _java(self, *arguments: str) -> Sequence[str]:
        # One small heap, one collector thread, the quick compiler: a broker for one machine must leave it to others.
        options = [
            "-Xms128m",
            "-Xmx512m",
            "-XX:+UseSerialGC",
            "-XX:TieredStopAtLevel=1",
            f"-Dlog4j2.configurationFile={DEPLOY / 'log4j2.yaml'}",
        ]
        return ["java", *options, "-cp", str(DEPLOY / "libs" / "*"), *arguments]

    def _launch(self, command: Sequence[str]) -> None:
        with (self.home / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd=self.home,
                preexec_fn=before_exec(death_signal=signal.SIGTERM),  # noqa: PLW1509  (it calls prctl only)
            )

    async def _ready(self) -> None:
        assert self._process is not None  # noqa: S101  (_launch made it)
        try:
            async with asyncio.timeout(_START_LIMIT):
                while self._process.poll() is None:
                    try:
                        _, writer = await asyncio.open_connection(self.host, self.port)
                    except OSError:
                        await asyncio.sleep(0.1)
                    else:
                        writer.close()
                        return
        except TimeoutError:
            await self.stop()
        lines = (self.home / "log").read_text(errors="replace").splitlines()[-15:]
        raise KafkaFailed(f"Kafka in {self.home} did not start:\n" + "\n".join(lines))

    async def ended(self) -> int:
        """Returns when the broker has ended: its exit code."""
        if self._process is None:
            return 0
        return await asyncio.to_thread(self._process.wait)

    async def stop(self) -> None:
        """Orderly, then not. Harmless when it is not running."""
        if self._process is None:
            return
        if self._image is not None:
            await asyncio.to_thread(kafkaimage.end, self._image, "stop")
        for number in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                os.killpg(self._process.pid, number)
            try:
                await asyncio.to_thread(self._process.wait, _STOP_LIMIT)
                break
            except subprocess.TimeoutExpired:
                continue
        self._process = None

    def kill(self) -> None:
        """As a crash."""
        if self._process is None:
            return
        if self._image is not None:
            kafkaimage.end(self._image, "kill")
        else:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(_STOP_LIMIT)
        self._process = None
