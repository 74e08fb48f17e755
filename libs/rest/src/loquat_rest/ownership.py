"""Shapes of the database API: a database that its owner owns."""

from __future__ import annotations

from typing import Final

from loquat_rest.operation import Operation

OPERATIONS: Final[tuple[Operation, ...]] = ()
