"""What a request must find for it to be done (RFC 9110, If-Match)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

_ANY: Final = "*"


@dataclass(frozen=True, slots=True)
class Seen:
    """What the caller saw: one of these etags; None: whatever is there, as long as something is."""

    etags: frozenset[str] | None

    @classmethod
    def read(cls, header: str | None) -> Seen | None:
        """`*`, or etags with a comma between them; None without the header. A proxy that packs answers may have made them weak: that is no other content."""
        if header is None:
            return None
        if header.strip() == _ANY:
            return cls(None)
        return cls(frozenset(tag for word in header.split(",") if (tag := word.strip().removeprefix("W/").strip('"'))))

    def fits(self, current: str | None) -> bool:
        """Whether it is so; `current` is the etag of what is there, None: nothing is."""
        return current is not None and (self.etags is None or current in self.etags)
