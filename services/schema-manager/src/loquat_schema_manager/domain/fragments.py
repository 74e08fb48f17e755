"""Parts of SQL that are not names: literals, and what PostgreSQL wrote itself. Statements that change a shape take no parameters."""

from __future__ import annotations

from dataclasses import dataclass
from typing import LiteralString, cast

from loquat_common.sql import Ident


class NotText(ValueError):
    """The text cannot stand in the database."""


@dataclass(frozen=True, slots=True)
class Text:
    """A string literal, quoted as the server's own `quote_literal` does: it means the same whatever `standard_conforming_strings` is."""

    value: str

    def __post_init__(self) -> None:
        if "\0" in self.value:
            raise NotText("PostgreSQL keeps no NUL character")
        if any("\ud800" <= c <= "\udfff" for c in self.value):
            raise NotText("the text has half a character (a lone surrogate)")

    def __str__(self) -> str:
        quoted = self.value.replace("'", "''")
        return f"E'{quoted}'".replace("\\", "\\\\") if "\\" in quoted else f"'{quoted}'"


@dataclass(frozen=True, slots=True)
class Deparsed:
    """SQL that PostgreSQL made from its catalog (`pg_get_expr` and its like), or that this service composed before. Never from a request."""

    sql: str

    def __str__(self) -> str:
        return self.sql


@dataclass(frozen=True, slots=True)
class Idents:
    """Names in a list."""

    names: tuple[str, ...]

    def __str__(self) -> str:
        return ", ".join(str(Ident(n)) for n in self.names)


Fragment = Ident | Idents | Text | Deparsed


def sql(template: LiteralString, /, **parts: Fragment) -> str:
    """Fills the `{name}` places of a literal.

    Raises:
        KeyError: a place has no part.
    """
    return cast("str", template).format_map({k: str(v) for k, v in parts.items()})
