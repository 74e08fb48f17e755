"""Which service serves which operations."""

from __future__ import annotations

from typing import Final

from loquat_rest import (
    botconduct,
    botfiles,
    botruns,
    bots,
    botschedules,
    botsettings,
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

SCHEMA_MANAGER: Final[tuple[Operation, ...]] = (
    *tables.OPERATIONS,
    *changes.OPERATIONS,
    *rows.OPERATIONS,
    *transfer.OPERATIONS,
    *console.OPERATIONS,
    *history.OPERATIONS,
    *tools.OPERATIONS,
)
PROVISIONER: Final[tuple[Operation, ...]] = ownership.OPERATIONS
BOT_RUNNER: Final[tuple[Operation, ...]] = (
    *bots.OPERATIONS,
    *botfiles.OPERATIONS,
    *botruns.OPERATIONS,
    *botsettings.OPERATIONS,
    *botconduct.OPERATIONS,
    *botschedules.OPERATIONS,
    *egress.OPERATIONS,
)
