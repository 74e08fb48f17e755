"""A column that is to be made, as SQL."""

from __future__ import annotations

from typing import Final

from loquat_common.sql import Ident
from loquat_rest import changes as shapes

from loquat_schema_manager.domain.columns import ColumnType, DoesNotFit, NotAType, literal_of, parse
from loquat_schema_manager.domain.fragments import Deparsed, NotText, Text, sql
from loquat_schema_manager.domain.refused import Refused

FUNCTIONS: Final = {
    "now": ("pg_catalog.now()", frozenset({"timestamptz"})),
    "today": ("CURRENT_DATE", frozenset({"date"})),
    "uuidv7": ("pg_catalog.uuidv7()", frozenset({"uuid"})),
    "uuidv4": ("pg_catalog.gen_random_uuid()", frozenset({"uuid"})),
}
"""Functions that may be defaults, and the types they are for."""
VOLATILE: Final = frozenset({"uuidv7", "uuidv4"})
"""Those that give each row another value: adding such a column writes every row."""


def wanted_type(text: str, field: str) -> ColumnType:
    """The type of a request.

    Raises:
        Refused: 422 `unknown_type`.
    """
    try:
        return parse(text)
    except NotAType as error:
        raise Refused(422, "unknown_type", "There is no such type here", str(error), field=field) from None


def default_sql(default: shapes.Default, kind: ColumnType, field: str) -> Deparsed:
    """The default's expression.

    Raises:
        Refused: 422 `wrong_type`: it is none of the column's type.
    """
    if kind.kind == "serial":
        raise Refused(422, "wrong_type", "A serial has its default already", "It is the next number of its sequence", field=field)
    if default.function is not None:
        call, kinds = FUNCTIONS[default.function]
        if kind.kind not in kinds:
            raise Refused(422, "wrong_type", "The default is not of the column's type", f"{default.function} is no {kind}", field=field)
        return Deparsed(call)
    if default.value is None and kind.kind != "jsonb":
        return Deparsed("NULL")
    try:
        return Deparsed(sql("{text}::{type}", text=Text(literal_of(default.value, kind)), type=Deparsed(str(kind))))
    except (DoesNotFit, NotText) as error:
        raise Refused(422, "wrong_type", "The default is not of the column's type", str(error), field=field, type=str(kind)) from None


def definition(column: shapes.NewColumn, field: str) -> str:
    """The column in `CREATE TABLE` and `ADD COLUMN`. `field` is its place in the request."""
    kind = wanted_type(column.type, f"{field}.type")
    parts = sql("{name} {type}", name=Ident(column.name), type=Deparsed(str(kind)))
    if column.default is not None:
        parts += sql(" DEFAULT {default}", default=default_sql(column.default, kind, f"{field}.default"))
    return parts if column.nullable or kind.kind == "serial" else f"{parts} NOT NULL"
