"""The bot-runner's settings."""

from __future__ import annotations

from pathlib import Path

from loquat_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    bundles: Path = Field(default=Path("/var/lib/loquat/bundles"), description="folder for unpacked bot versions; may be lost at any time")
    workers: int = Field(default=100, ge=1, le=10_000, description="bot processes at once; the longest-resting one makes room")
    worker_idle: float = Field(default=600, gt=0, description="seconds after which an idle bot process ends")
    call_limit: float = Field(default=10, gt=0, le=300, description="seconds a handler may take")
    worker_memory: int = Field(default=256 << 20, ge=64 << 20, description="bytes of data a bot process may have")
    project_connections: int = Field(default=40, ge=2, le=1000, description="connections to project databases at most")
    allow_isolation_none: bool = Field(
        default=False, description="run bots at isolation level 0 in production: only for bots you wrote yourself"
    )
