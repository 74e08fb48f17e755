"""Bots: which version a project runs."""

from __future__ import annotations

from typing import ClassVar

from pydantic import AwareDatetime

from loquat_events.envelope import Payload


class BotDeployed(Payload):
    """The version a project runs from now on. Compacted by project. `version` is the sha-256 of the bundle, in hex."""

    TYPE: ClassVar[str] = "bot.deployed.v1"
    project_id: str
    version: str
    deployment_id: str
    deployed_by: str
    at: AwareDatetime
