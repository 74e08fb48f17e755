"""Names of tables, columns and indexes in requests: what Postgres can hold, and for new ones what a person can read."""

from __future__ import annotations

import unicodedata
from typing import Annotated, Final

from pydantic import AfterValidator, Field

LONGEST: Final = 63
"""Bytes of a name in PostgreSQL (NAMEDATALEN - 1), as UTF-8."""
RESERVED: Final = "__lq"
"""What names of the platform's own indexes end in; a migration renames whatever else ends so."""
_UNSEEN: Final = frozenset({"Cc", "Cf", "Zl", "Zp", "Co"})
"""Unicode categories that a person cannot see: control, format (zero width, direction), line ends, private use."""


def _possible(name: str) -> str:
    size = len(name.encode(errors="surrogatepass"))
    if not name:
        raise ValueError("a name has at least one character")
    if "\0" in name:
        raise ValueError("a name has no NUL character")
    if size > LONGEST:
        raise ValueError(f"a name has at most {LONGEST} bytes as UTF-8; this one has {size}")
    return name


def _readable(name: str) -> str:
    if unseen := next((c for c in name if unicodedata.category(c) in _UNSEEN), None):
        raise ValueError(f"a new name has no invisible characters; this one has U+{ord(unseen):04X}")
    if name != name.strip():
        raise ValueError("a new name does not begin or end with white space")
    if name != unicodedata.normalize("NFC", name):
        raise ValueError("a new name is in Unicode's composed form (NFC): two that look the same must be the same")
    if name.endswith(RESERVED):
        raise ValueError(f"names that end in {RESERVED} belong to the platform")
    return name


Name = Annotated[str, AfterValidator(_possible), Field(description="a name as it stands in the database, without quotes: 1 to 63 bytes")]
"""Of something that may be there, however it came to its name."""
NewName = Annotated[
    str,
    AfterValidator(_possible),
    AfterValidator(_readable),
    Field(description="a name without quotes: 1 to 63 bytes, no invisible characters, not ending in __lq"),
]
"""Of something that is to be made."""
