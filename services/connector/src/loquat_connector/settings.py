"""The connector's settings."""

from __future__ import annotations

from loquat_common.settings import ServiceSettings
from loquat_events.numbers import ROUTING_LEASE
from pydantic import Field


class Settings(ServiceSettings):
    """Environment variables with the prefix LOQUAT_."""

    graph_url: str = Field(default="https://graph.facebook.com", description="Meta's Graph API; the embedded stack has its simulator here")
    graph_version: str = Field(default="v25.0", pattern=r"^v[0-9]+\.0$", description="version of the Graph API, pinned")
    moving_rest: float = Field(
        default=2 * ROUTING_LEASE + 1, ge=0, description="seconds a number rests between two projects; above the gateways' routing lease"
    )
    send_lease: float = Field(
        default=15.0, gt=10, description="seconds after which an attempt without an end counts as unknown; above the call's 10 s"
    )
