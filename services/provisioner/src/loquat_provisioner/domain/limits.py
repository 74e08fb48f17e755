"""What a project's database may take: limits as data, and which of them can be chosen."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from loquat_common import bounds
from loquat_common.bounds import OutOfBounds

from loquat_provisioner.domain.life import CONNECTIONS, SIZE_LIMIT, Login


@dataclass(frozen=True, slots=True)
class Limits:
    """Of one project, or a bound of what can be chosen."""

    size_bytes: int = SIZE_LIMIT
    bot_connections: int = CONNECTIONS["bot"]
    editor_connections: int = CONNECTIONS["editor"]
    direct_connections: int = CONNECTIONS["direct"]
    statement_seconds: int = 30
    transaction_seconds: int = 60

    def connections(self, login: Login) -> int:
        """Of one login."""
        return {"bot": self.bot_connections, "editor": self.editor_connections, "direct": self.direct_connections}[login]


LEAST: Final = Limits(
    size_bytes=16 << 20,  # an empty project has 8 MB
    bot_connections=1,
    editor_connections=CONNECTIONS["editor"],  # the API's own: schema-manager takes three, a dump one
    direct_connections=1,
    statement_seconds=1,
    transaction_seconds=1,
)


def changed(limits: Limits, change: Mapping[str, int], most: Limits) -> Limits:
    """With the change.

    Raises:
        OutOfBounds: a field is below the least, above the most, or a statement may take longer than its transaction.
    """
    made = bounds.changed(limits, change, LEAST, most)
    if made.statement_seconds > made.transaction_seconds:
        raise OutOfBounds(
            "statement_seconds", f"{made.statement_seconds} is longer than a transaction may take ({made.transaction_seconds})"
        )
    return made
