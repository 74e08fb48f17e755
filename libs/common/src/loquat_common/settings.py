"""Settings that every service has. Each service subclasses `ServiceSettings` in its own settings.py and adds what it alone needs."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

Port = Annotated[int, Field(ge=0, le=65535)]


class ClusterAddress(BaseModel):
    """A tenant cluster as one service reaches it, with that service's own password there."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: Port
    password: SecretStr


class BusSettings(BaseSettings):
    """Which bus, and where."""

    model_config = SettingsConfigDict(env_prefix="LOQUAT_", frozen=True, extra="ignore")

    environment: Literal["development", "test", "production"] = "development"
    bus: Literal["postgres", "kafka"] = Field(default="postgres", description="the engine: postgres (embedded default) or kafka")
    bus_lease: float = Field(default=10.0, ge=1, le=120, description="seconds after which a silent member of a group loses its partitions")
    replica: str = Field(
        default_factory=socket.gethostname, description="name of this replica among those of its service; its place in Kafka's groups"
    )
    kafka_servers: str = Field(default="127.0.0.1:9092", description="bootstrap servers, comma-separated; used when bus is kafka")
    kafka_single_broker: bool = Field(
        default=False, description="allow a production broker with fewer than 3 replicas or min.insync.replicas below 2"
    )


class ServiceSettings(BusSettings):
    """What every service needs. Environment variables carry the prefix LOQUAT_."""

    platform_dsn: SecretStr = Field(description="the service's own login to the control database")
    tenant_clusters: dict[str, ClusterAddress] = Field(default_factory=dict, description="clusters of project databases, JSON by name")
    prepared_statements: int = Field(
        default=100, ge=0, le=1000, description="statements a connection keeps prepared; 0 behind a PgBouncer before 1.21"
    )
    post_migrations: bool = Field(
        default=False, description="apply `post` migrations at the start too: where no older release runs beside, as on one machine"
    )
    http_host: str = Field(default="127.0.0.1", description="address the service's API listens on")
    http_port: Port = Field(default=0, description="port of the service's API; 0 takes a free one")
    internal_host: str = Field(default="127.0.0.1", description="address of health and metrics; never a public one")
    internal_port: Port = Field(default=0, description="port of health and metrics; 0 takes a free one")
    log_level: Literal["debug", "info", "warning", "error"] = "info"
    drain_seconds: float = Field(default=20.0, gt=0, le=300, description="how long a stopping service may finish what it accepted")
    signing_key: SecretStr | None = Field(
        default=None, description="private Ed25519 JWK (JSON) with which this service signs its questions"
    )
    trusted_keys: dict[str, str] = Field(default_factory=dict, description="public Ed25519 JWKs (JSON text) by issuer")
    key_ring: SecretStr | None = Field(
        default=None, description='keys for secrets at rest: {"current": id, "keys": {id: base64 of 32 bytes}}'
    )
    services: dict[str, str] = Field(default_factory=dict, description="base URLs of the other services' internal APIs, JSON by name")
    failpoints_dir: Path | None = Field(default=None, description="tests only: a folder whose files name the points at which to die")

    @model_validator(mode="after")
    def _failpoints_are_for_tests(self) -> ServiceSettings:
        if self.failpoints_dir is not None and self.environment != "test":
            raise ValueError("LOQUAT_FAILPOINTS_DIR is refused unless LOQUAT_ENVIRONMENT is test")
        return self
