"""The provisioner's settings."""

from __future__ import annotations

from pathlib import Path

from loquat_common.settings import Port, ServiceSettings
from pydantic import BaseModel, ConfigDict, Field

from loquat_provisioner.domain.limits import Limits


class PublicAddress(BaseModel):
    """Where owners reach a tenant cluster."""

    model_config = ConfigDict(frozen=True)

    host: str
    port: Port


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    starter_bot: Path = Field(default=Path("bots/starter"), description="folder of the bot that every new project gets")
    public_clusters: dict[str, PublicAddress] = Field(
        default_factory=dict,
        description="host and port of tenant clusters as owners reach them, JSON by name; default: as this service does",
    )
    postgres_bin: Path | None = Field(default=None, description="folder of pg_dump and pg_restore; default: those on the PATH")
    dumps_at_once: int = Field(
        default=2,
        ge=1,
        le=32,
        description="dumps and restores that one replica runs at the same time; half are for one organization at most",
    )
    backups_kept: int = Field(
        default=5, ge=1, le=100, description="backups of a project that are kept; the oldest goes when another is taken"
    )
    preview_copies: int = Field(
        default=20, ge=1, le=500, description="throw-away copies of databases, for previews of bots, at the same time"
    )
    preview_size: int = Field(
        default=256 << 20, ge=16 << 20, description="bytes of a project's database that is still copied for a preview"
    )
    preview_idle: float = Field(default=900, gt=0, le=7200, description="seconds after which a preview's copy that nobody uses is dropped")
    most_size: int = Field(default=10 << 30, ge=16 << 20, description="bytes to which an owner may raise a project's size")
    most_connections: int = Field(default=10, ge=6, le=25, description="connections to which an owner may raise one login's limit")
    most_statement_seconds: int = Field(default=300, ge=30, description="seconds to which an owner may raise the age of a statement")
    most_transaction_seconds: int = Field(default=600, ge=60, description="seconds to which an owner may raise the age of a transaction")

    @property
    def most(self) -> Limits:
        """How far limits can be raised here."""
        n = self.most_connections
        return Limits(self.most_size, n, n, n, self.most_statement_seconds, self.most_transaction_seconds)
