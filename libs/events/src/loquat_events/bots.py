"""Bots: which version a project runs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime, Field

from loquat_events.envelope import Payload, Shape


class CanaryStep(Shape):
    """From `since` on, this many per cent of the contacts."""

    percent: int = Field(ge=0, le=100)
    since: AwareDatetime


class Canary(Shape):
    """A version that some contacts are answered by, by a hash of each; see `steps` for how many. `open`: also in conversations that were open before."""

    version: str
    steps: tuple[CanaryStep, ...]
    open: bool = False


class BotDeployed(Payload):
    """The version a project runs from now on. Compacted by project. `version` is the sha-256 of the bundle, in hex."""

    TYPE: ClassVar[str] = "bot.deployed.v1"
    project_id: str
    version: str
    deployment_id: str
    deployed_by: str
    at: AwareDatetime
    canary: Canary | None = None
    testers: dict[str, str] = Field(
        default={}, description="contact id to the version that answers it, or `draft`: before stable version and canary"
    )
    paused: bool = Field(default=False, description="nobody is answered, whatever is deployed; what comes meanwhile is recorded as held")
