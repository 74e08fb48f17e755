"""The provisioner's settings."""

from __future__ import annotations

from pathlib import Path

from loquat_common.settings import ServiceSettings
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    starter_bot: Path = Field(default=Path("bots/starter"), description="folder of the bot that every new project gets")
