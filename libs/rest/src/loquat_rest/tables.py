"""Shapes of the database API: tables."""

from __future__ import annotations

from typing import Final

from pydantic import BaseModel

from loquat_rest.operation import Operation


class TableName(BaseModel):
    """A table."""

    name: str


class TableList(BaseModel):
    """Sorted by name."""

    items: list[TableName]


LIST: Final = Operation("GET", "/database/tables", "List tables", "database:read", answer=TableList)
OPERATIONS: Final[tuple[Operation, ...]] = (LIST,)
