"""The schema-manager's settings."""

from __future__ import annotations

from loquat_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    sweep_concurrency: int = Field(default=4, ge=1, le=32, description="databases that are migrated at the same time by one replica")
