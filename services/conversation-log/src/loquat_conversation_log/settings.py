"""The conversation-log's settings."""

from __future__ import annotations

from loquat_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    batch: int = Field(default=100, ge=1, le=500, description="events recorded in one call at most; 100 cost 3 ms, 2.9 times a bare insert")
    linger: float = Field(default=0.01, ge=0, le=1, description="seconds the first event of a batch waits for others")
    project_connections: int = Field(default=40, ge=2, le=1000, description="connections to project databases at most")
