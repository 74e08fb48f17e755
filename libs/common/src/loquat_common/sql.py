"""SQL with identifiers that are data. Values always travel as parameters; only names are composed, and only here."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, LiteralString, cast

LONGEST: Final = 63
"""Bytes of an identifier (NAMEDATALEN - 1). Postgres would cut a longer one silently: two names could become one."""


class NotAnIdentifier(ValueError):
    """The name cannot be an identifier of PostgreSQL."""


@dataclass(frozen=True, slots=True)
class Ident:
    """A name, quoted when it is written. `Ident("a").dot("b")` is `"a"."b"`."""

    name: str
    schema: Ident | None = None

    def __post_init__(self) -> None:
        try:
            size = len(self.name.encode())
        except UnicodeEncodeError:
            raise NotAnIdentifier("the name has half a character (a lone surrogate)") from None
        if not self.name:
            raise NotAnIdentifier("the name is empty")
        if "\0" in self.name:
            raise NotAnIdentifier("the name has a NUL character")
        if size > LONGEST:
            raise NotAnIdentifier(f"the name has {size} bytes; {LONGEST} are the limit")

    def dot(self, name: str) -> Ident:
        """A name inside this one."""
        return Ident(name, self)

    def __str__(self) -> str:
        quoted = '"' + self.name.replace('"', '""') + '"'
        return quoted if self.schema is None else f"{self.schema}.{quoted}"


def compose(template: LiteralString, /, **names: Ident) -> str:
    """Fills the `{name}` places of a literal with quoted identifiers; nothing else can be filled in.

    Raises:
        KeyError: a place has no name.
    """
    return cast("str", template).format_map({k: str(v) for k, v in names.items()})
