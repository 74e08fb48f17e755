"""Settings of the embedded stack and of the command line. Environment variables carry the prefix LOQUAT_."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from loquat_common.settings import Port
from pydantic import Field, SecretStr
from pydantic_settings import BaseSettings, SettingsConfigDict


class ClientSettings(BaseSettings):
    """What every command needs: where Loquat is, and the key to it."""

    model_config = SettingsConfigDict(env_prefix="LOQUAT_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".loquat"), description="folder of the embedded stack: data, secrets, logs, owner.json")
    url: str | None = Field(default=None, description="address of a Loquat elsewhere; default: the one of $LOQUAT_HOME/owner.json")
    api_key: SecretStr | None = Field(default=None, description="API key; default: the owner's of $LOQUAT_HOME/owner.json")


class AdminSettings(BaseSettings):
    """`loquat cluster upgrade`."""

    model_config = SettingsConfigDict(env_prefix="LOQUAT_", frozen=True, extra="ignore")

    admin_dsn: SecretStr | None = Field(default=None, description="URL of a superuser of the cluster; its database is not used")
    service_passwords: dict[str, SecretStr] = Field(
        default_factory=dict, description="new passwords of services' logins there, JSON by service; the others keep theirs"
    )


class StackSettings(BaseSettings):
    """`loquat up`. A port of 0 takes a free one."""

    model_config = SettingsConfigDict(env_prefix="LOQUAT_", frozen=True, extra="ignore")

    home: Path = Field(default=Path(".loquat"), description="folder for data, secrets, logs, owner.json")
    environment: Literal["development", "test", "production"] = "development"
    bus: Literal["postgres", "kafka"] = Field(default="postgres", description="the bus: postgres, or kafka for a real Apache Kafka")
    host: str = Field(default="127.0.0.1", description="address that the gateway and the simulator listen on")
    gateway_port: Port = Field(default=8080, description="port of the public API and the webhook")
    simulator_port: Port = Field(default=8090, description="port of the simulator: the phone page, and what stands in for Meta")
    platform_port: Port = Field(default=8100, description="port of the platform's PostgreSQL")
    tenants_port: Port = Field(default=8101, description="port of the PostgreSQL with the projects' databases")
    kafka_port: Port = Field(default=8102, description="port of Kafka, and the next one for its controller; used when the bus is kafka")
    internal_ports: Port = Field(default=8110, description="first of 11 ports in a row on which the services talk among themselves")
    owner_email: str = Field(default="owner@loquat.local", description="e-mail address of the first owner")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    log_megabytes: float = Field(default=10.0, gt=0, description="size at which a log is put aside as .1; two of them are kept")
    drain_seconds: float = Field(default=10.0, gt=0, le=300, description="how long a stopping service may finish what it accepted")
    durable: bool = Field(default=True, description="false for tests: a crash of the machine may lose data")
    starter_bot: Path | None = Field(default=None, description="folder of the bot that every new project gets; default: bots/starter")
    failpoints_dir: Path | None = Field(default=None, description="tests only: a folder whose files name the points at which to die")

    @classmethod
    def for_tests(cls, home: Path, **more: object) -> Self:
        """A stack beside others: free ports, no fsync, environment `test`."""
        ports = dict.fromkeys(("gateway_port", "simulator_port", "platform_port", "tenants_port", "kafka_port", "internal_ports"), 0)
        return cls.model_validate({**ports, "home": home, "environment": "test", "durable": False, **more})
