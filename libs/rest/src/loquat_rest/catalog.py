"""Which service serves which operations."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from loquat_rest import (
    botconduct,
    botfiles,
    botlimits,
    botpreview,
    botruns,
    bots,
    botschedules,
    botsettings,
    bottools,
    changes,
    console,
    egress,
    history,
    ownership,
    rows,
    tables,
    tools,
    transfer,
)
from loquat_rest.operation import Operation

_OVER_LIMIT: Final = 507
_WITHOUT_ROWS: Final = (*tables.OPERATIONS, changes.HISTORY, changes.ONE, tools.LIST, tools.MCP)
"""They look at shapes and records alone; MCP has its own form for what is refused."""


def _limited(operations: Sequence[Operation]) -> tuple[Operation, ...]:
    """Whatever works with the rows of a project's database may come upon its limits: its size where it writes, its temporary files where it sorts."""
    return tuple(o if o in _WITHOUT_ROWS else replace(o, errors=(*o.errors, _OVER_LIMIT)) for o in operations)


SCHEMA_MANAGER: Final[tuple[Operation, ...]] = _limited(
    (
        *tables.OPERATIONS,
        *changes.OPERATIONS,
        *rows.OPERATIONS,
        *transfer.OPERATIONS,
        *console.OPERATIONS,
        *history.OPERATIONS,
        *tools.OPERATIONS,
    )
)
PROVISIONER: Final[tuple[Operation, ...]] = ownership.OPERATIONS
BOT_RUNNER: Final[tuple[Operation, ...]] = (
    *bots.OPERATIONS,
    *botfiles.OPERATIONS,
    *botruns.OPERATIONS,
    *botsettings.OPERATIONS,
    *botconduct.OPERATIONS,
    *botschedules.OPERATIONS,
    *botpreview.OPERATIONS,
    *bottools.OPERATIONS,
    *egress.OPERATIONS,
    *botlimits.OPERATIONS,
)
