"""Kafka from its own image, where a Docker engine answers and Java is not there: the same broker, started by the `docker` command."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import Final, Literal

IMAGE: Final = "apache/kafka:4.1.1"
_ANSWER_LIMIT: Final = 5  # seconds; an engine that is there answers in some milliseconds
_END_LIMIT: Final = 40  # seconds; `docker stop` itself waits ten


@cache
def engine_answers() -> bool:
    """Whether a Docker engine is there, not only its command."""
    if shutil.which("docker") is None:
        return False
    try:
        done = subprocess.run(["docker", "info"], capture_output=True, timeout=_ANSWER_LIMIT, check=False)  # noqa: S607  (whichever the user has)
    except (subprocess.TimeoutExpired, OSError):
        return False
    return done.returncode == 0


def name_of(home: Path) -> str:
    """The name of the container and of its volume: one for each home, so that a second start finds its data again."""
    return f"loquat-kafka-{hashlib.sha256(str(home.absolute()).encode()).hexdigest()[:12]}"


def command(name: str, port: int) -> list[str]:
    """What runs the broker in the foreground, reached at 127.0.0.1:`port`, with the limits of deploy/kafka-local/server.properties."""
    settings = {
        "NODE_ID": "1",
        "PROCESS_ROLES": "broker,controller",
        "LISTENERS": f"PLAINTEXT://:{port},CONTROLLER://:9093",
        "ADVERTISED_LISTENERS": f"PLAINTEXT://127.0.0.1:{port}",
        "CONTROLLER_LISTENER_NAMES": "CONTROLLER",
        "LISTENER_SECURITY_PROTOCOL_MAP": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "CONTROLLER_QUORUM_VOTERS": "1@localhost:9093",
        "LOG_DIRS": "/var/lib/kafka/data",
        **_shared(),
    }
    environment = [part for key, value in settings.items() for part in ("-e", f"KAFKA_{key}={value}")]
    return [
        "docker",
        "run",
        "--rm",
        "--name",
        name,
        "-p",
        f"127.0.0.1:{port}:{port}",
        "-v",
        f"{name}:/var/lib/kafka/data",
        *environment,
        IMAGE,
    ]


def _shared() -> dict[str, str]:
    """The settings that say nothing of addresses: as in the file for the jars."""
    file = Path(__file__).resolve().parents[4] / "deploy" / "kafka-local" / "server.properties"
    own = ("process.", "node.", "controller.", "listener", "advertised.", "log.dirs")
    pairs = (line.partition("=") for line in file.read_text().splitlines() if line and not line.startswith(("#", *own)))
    return {key.upper().replace(".", "_"): value for key, _, value in pairs}


def end(name: str, how: Literal["stop", "kill"]) -> None:
    """Ends the container: the `docker run` in front of it ends, too."""
    subprocess.run(["docker", how, name], capture_output=True, timeout=_END_LIMIT, check=False)  # noqa: S607  (whichever the user has)
