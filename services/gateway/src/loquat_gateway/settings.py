"""The gateway's settings."""

from __future__ import annotations

from loquat_common.settings import ServiceSettings
from pydantic import BaseModel, ConfigDict, Field, SecretStr


class MetaAppSettings(BaseModel):
    """A Meta app whose webhooks come here."""

    model_config = ConfigDict(frozen=True)

    app_secret: SecretStr = Field(min_length=8)
    verify_token: SecretStr = Field(min_length=8)


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    meta_apps: dict[str, MetaAppSettings] = Field(
        min_length=1,
        description='Meta apps, JSON by name; "default" answers at /webhooks/whatsapp. Without an app secret nothing can be verified',
    )
