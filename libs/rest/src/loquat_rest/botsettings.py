"""Shapes of the bot API: what the owner sets without a deployment, and secrets."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Any, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from loquat_rest.operation import OneProject, Operation

MOST_SECRETS: Final = 100
LONGEST_SECRET: Final = 8 << 10
"""Bytes of a secret."""
ALL_SECRETS: Final = 128 << 10
"""Bytes of a project's secrets together: they go with every call of its bot."""
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_.-]{1,100}$")]


class OneKey(OneProject):
    """A key in the path."""

    key: Name


class OneSecret(OneProject):
    """A secret in the path."""

    name: Name


class NewValue(BaseModel):
    """Any JSON of at most 16 KiB; of a key that the bot declares, of the type that it declares."""

    model_config = ConfigDict(extra="forbid")

    value: Any = Field(description="at most 500 keys and 256 KiB a project")


class Configured(BaseModel):
    """A key that is set."""

    key: str
    value: Any
    created_at: AwareDatetime
    updated_at: AwareDatetime


class DeclaredKey(BaseModel):
    """A key that the deployed bot declares with `bot.config`."""

    key: str
    type: str = Field(description="str, int, float, bool, list or dict")
    nullable: bool
    help: str
    default: str | None = Field(default=None, description="while nobody has set it; as JSON, cut where it is long; null: there is none")


class Configuration(BaseModel):
    """By key. `declared` is empty where the deployed bot declares none: it may be given any key."""

    items: list[Configured]
    declared: list[DeclaredKey]


class NewSecret(BaseModel):
    """A value that is never shown again."""

    model_config = ConfigDict(extra="forbid")

    value: Annotated[str, StringConstraints(min_length=1, max_length=LONGEST_SECRET)] = Field(
        repr=False, description=f"at most {LONGEST_SECRET} bytes, {ALL_SECRETS} of all, {MOST_SECRETS} secrets a project"
    )


class Secret(BaseModel):
    """A secret without its value."""

    name: str
    created_at: AwareDatetime
    updated_at: AwareDatetime


class SecretList(BaseModel):
    """By name."""

    items: list[Secret]


_AT: Final = partial(Operation, errors=(404, 409, 503))
_SETTING: Final = partial(Operation, errors=(404, 409, 422, 503))
CONFIGURATION: Final = _AT("GET", "/bot/configuration", "The bot's configuration", "bots:read", answer=Configuration, seconds=60)
CONFIGURE: Final = _SETTING(
    "PUT",
    "/bot/configuration/{key}",
    "Set a key of the configuration, from the next event on",
    "bots:write",
    at=OneKey,
    body=NewValue,
    answer=Configured,
    seconds=60,
)
UNCONFIGURE: Final = _AT("DELETE", "/bot/configuration/{key}", "Remove a key of the configuration", "bots:write", at=OneKey)
SECRETS: Final = _AT("GET", "/bot/secrets", "Secrets, without their values", "bots:read", answer=SecretList)
SET_SECRET: Final = _SETTING(
    "PUT",
    "/bot/secrets/{name}",
    "Set a secret, from the next event on",
    "bots:write",
    at=OneSecret,
    body=NewSecret,
    answer=Secret,
)
DELETE_SECRET: Final = _AT("DELETE", "/bot/secrets/{name}", "Remove a secret, from the next event on", "bots:write", at=OneSecret)
OPERATIONS: Final[tuple[Operation, ...]] = (CONFIGURATION, CONFIGURE, UNCONFIGURE, SECRETS, SET_SECRET, DELETE_SECRET)
