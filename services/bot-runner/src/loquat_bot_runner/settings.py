"""The bot-runner's settings."""

from __future__ import annotations

from ipaddress import ip_network
from pathlib import Path

from loquat_common.settings import ServiceSettings
from pydantic import Field, field_validator, model_validator


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    bundles: Path = Field(default=Path("/var/lib/loquat/bundles"), description="folder for unpacked bot versions; may be lost at any time")
    workers: int = Field(default=100, ge=1, le=10_000, description="bot processes at once; the longest-resting one makes room")
    worker_idle: float = Field(default=600, gt=0, description="seconds after which an idle bot process ends")
    call_limit: float = Field(default=10, gt=0, le=300, description="seconds a handler may take")
    worker_memory: int = Field(default=256 << 20, ge=64 << 20, description="bytes of data a bot process may have")
    runs_days: int = Field(default=30, ge=1, le=3650, description="days that runs and lines of bots' logs are kept")
    project_connections: int = Field(default=40, ge=2, le=1000, description="connections to project databases at most")
    bot_connections: int = Field(default=200, ge=1, le=10_000, description="connections of all bots to their databases at most")
    own_networks: list[str] = Field(
        default_factory=list[str], description="public addresses and networks of the platform itself, JSON: bots' egress never leads there"
    )
    call_processor: float = Field(default=5, gt=0, le=300, description="seconds of processor time that a bot may use for one call")
    min_isolation: int = Field(
        default=2, ge=0, le=3, description="isolation level below which no bot is run; outside of production 0 unless it is set"
    )
    allow_isolation_none: bool = Field(
        default=False, description="run bots at isolation level 0 in production: only for bots you wrote yourself"
    )

    @property
    def least_isolation(self) -> int:
        """The level below which the runner does not start: what is set, else 2 in production and 0 elsewhere."""
        if "min_isolation" in self.model_fields_set:
            return self.min_isolation
        return 0 if self.allow_isolation_none or self.environment != "production" else self.min_isolation

    @field_validator("own_networks")
    @classmethod
    def _networks(cls, given: list[str]) -> list[str]:
        for one in given:
            ip_network(one, strict=False)
        return given

    @model_validator(mode="after")
    def _no_level_by_oversight(self) -> Settings:
        if self.environment == "production" and self.min_isolation == 0 and not self.allow_isolation_none:
            raise ValueError("LOQUAT_MIN_ISOLATION=0 protects nobody from a bot: set LOQUAT_ALLOW_ISOLATION_NONE=true if all are your own")
        return self
