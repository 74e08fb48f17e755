"""The bot-runner's settings."""

from __future__ import annotations

from dataclasses import asdict
from ipaddress import ip_network
from pathlib import Path
from typing import Any, cast

from loquat_common.settings import ServiceSettings
from pydantic import Field, SecretStr, ValidationInfo, field_validator, model_validator

from loquat_bot_runner.domain.limits import LEAST, MOST, BotLimits, within

_REACHABLE = BotLimits(
    call_seconds=60,
    processor_seconds=30,
    output_bytes=256 << 10,
    memory_bytes=1 << 30,
    disk_bytes=64 << 20,
    open_files=256,
    threads=128,
)


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    bundles: Path = Field(default=Path("/var/lib/loquat/bundles"), description="folder for unpacked bot versions; may be lost at any time")
    workers: int = Field(default=100, ge=1, le=10_000, description="bot processes at once; the longest-resting one makes room")
    worker_idle: float = Field(default=600, gt=0, description="seconds after which an idle bot process ends")
    bot_plan: BotLimits = Field(
        default=BotLimits(), description='what a bot may take where its project chose nothing, JSON such as {"call_seconds": 20}'
    )
    bot_most: BotLimits = Field(
        default=_REACHABLE, description="how far a project can raise what its bot may take, JSON of what is other than the default"
    )
    runs_days: int = Field(default=30, ge=1, le=3650, description="days that runs and lines of bots' logs are kept")
    project_connections: int = Field(default=40, ge=2, le=1000, description="connections to project databases at most")
    bot_connections: int = Field(default=200, ge=1, le=10_000, description="connections of all bots to their databases at most")
    own_networks: list[str] = Field(
        default_factory=list[str], description="public addresses and networks of the platform itself, JSON: bots' egress never leads there"
    )
    bot_index: SecretStr | None = Field(
        default=None,
        description="URL of the package index for bots' extra packages; what pip is configured with on this machine unless set",
    )
    previews_at_once: int = Field(
        default=4, ge=1, le=100, description="bots that are tried out at the same time, each in a process of its own"
    )
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

    @field_validator("bot_plan", "bot_most", mode="before")
    @classmethod
    def _named(cls, given: Any, info: ValidationInfo) -> Any:
        """What is not named is as without the setting; a name that is none would change nothing, and nobody would know."""
        if not isinstance(given, dict):
            return given
        default = asdict(_REACHABLE if info.field_name == "bot_most" else BotLimits())
        named = cast("dict[str, Any]", given)
        if unknown := sorted(named.keys() - default.keys()):
            raise ValueError(f"there is no limit {unknown[0]}; there are {', '.join(default)}")
        return default | named

    @model_validator(mode="after")
    def _plan_within_bounds(self) -> Settings:
        within("LOQUAT_BOT_MOST", self.bot_most, LEAST, MOST)
        within("LOQUAT_BOT_PLAN", self.bot_plan, LEAST, self.bot_most)
        return self

    @model_validator(mode="after")
    def _no_level_by_oversight(self) -> Settings:
        if self.environment == "production" and self.min_isolation == 0 and not self.allow_isolation_none:
            raise ValueError("LOQUAT_MIN_ISOLATION=0 protects nobody from a bot: set LOQUAT_ALLOW_ISOLATION_NONE=true if all are your own")
        return self
