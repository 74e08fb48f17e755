"""The schema-manager's settings."""

from __future__ import annotations

from loquat_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    sweep_concurrency: int = Field(default=4, ge=1, le=32, description="databases that are migrated at the same time by one replica")
    editor_connections: int = Field(
        default=40, ge=2, le=1000, description="connections as projects' editors that one replica opens at most"
    )
    editor_connections_per_project: int = Field(default=3, ge=1, le=4, description="of these, to one project; its editor login may have 4")
