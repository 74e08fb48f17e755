"""Values that stand in the SQL itself: COPY takes no parameters."""

from __future__ import annotations

from typing import Any

from loquat_schema_manager.domain.filters import Parameters
from loquat_schema_manager.domain.fragments import NotText, Text
from loquat_schema_manager.domain.values import Unfit


class Literals(Parameters):
    """In place of parameters. Of a filter all values are texts or lists of texts, which Postgres reads by their type: as it does with parameters."""

    def add(self, value: Any, type: str = "pg_catalog.text") -> str:
        """The value as a quoted literal, with its type.

        Raises:
            Unfit: a text that cannot stand in a database.
        """
        try:
            literal = f"ARRAY[{', '.join(str(Text(v)) for v in value)}]" if isinstance(value, list) else str(Text(value))  # pyright: ignore[reportUnknownVariableType, reportUnknownArgumentType]
        except NotText as error:
            raise Unfit("wrong_type", "A value of the filter cannot be used", str(error)) from None
        return f"{literal}::{type}"
