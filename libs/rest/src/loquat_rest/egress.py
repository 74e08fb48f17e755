"""Shapes of the bot API: where a bot may connect to, and where it did."""

from __future__ import annotations

from functools import partial
from typing import Annotated, Final

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, StringConstraints

from loquat_rest.operation import OneProject, Operation

MOST_HOSTS: Final = 100
MOST_DESTINATIONS: Final = 500
"""Kept of a project, the latest."""


class NewEgress(BaseModel):
    """The hosts, all of them: what is not among them is closed."""

    model_config = ConfigDict(extra="forbid")

    hosts: list[Annotated[str, StringConstraints(max_length=260)]] = Field(
        max_length=MOST_HOSTS,
        description="`api.example.com`, `*.example.com` (all below, not the name itself), an address, or `*` for every public host; none closes it",
    )


class Egress(BaseModel):
    """Where the bot may connect to, on ports 443 and 80. Addresses that are not public are never reached, whatever is allowed here."""

    hosts: list[str]
    updated_at: AwareDatetime | None = Field(description="null: never set, so nothing is open")


class Destination(BaseModel):
    """Connections of the bot to one host with one outcome."""

    host: str
    port: int
    outcome: str = Field(
        description="ok; spent, late, lost: it was cut; off, host, port, private, unknown, unreachable, unavailable, busy: there was none"
    )
    connections: int
    sent: int = Field(description="bytes")
    received: int = Field(description="bytes")
    first_at: AwareDatetime
    last_at: AwareDatetime


class DestinationList(BaseModel):
    """The latest first."""

    items: list[Destination]


class DestinationPage(BaseModel):
    """How many."""

    limit: int = Field(default=50, ge=1, le=MOST_DESTINATIONS)


_AT: Final = partial(Operation, errors=(404,))
EGRESS: Final = _AT("GET", "/bot/egress", "Where the bot may connect to", "bots:read", answer=Egress)
SET_EGRESS: Final = Operation(
    "PUT", "/bot/egress", "Set where the bot may connect to", "bots:write", body=NewEgress, answer=Egress, errors=(404, 422)
)
DESTINATIONS: Final = _AT(
    "GET",
    "/bot/egress/destinations",
    "Where the bot connected to, or wanted to",
    "bots:read",
    at=OneProject,
    query=DestinationPage,
    answer=DestinationList,
)
OPERATIONS: Final[tuple[Operation, ...]] = (EGRESS, SET_EGRESS, DESTINATIONS)
