"""Shapes of the database API: history."""

from __future__ import annotations

from typing import Final

from loquat_rest.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
