"""What a bot prints, put together to lines: two reads of its pipe would halve a secret, and nobody would know the halves."""

from __future__ import annotations

from typing import Final

LONGEST_LINE: Final = 64 << 10
"""Bytes of a line that are waited for; one that is longer is kept in pieces."""


class Printed:
    """Bytes in, whole lines out."""

    def __init__(self) -> None:
        self._rest = bytearray()

    @property
    def waits(self) -> bool:
        """Whether a line has begun and not ended."""
        return bool(self._rest)

    def add(self, data: bytes) -> str:
        """The lines that are whole by now."""
        self._rest += data
        end = self._rest.rfind(b"\n") + 1
        return self._taken(end if end or len(self._rest) < LONGEST_LINE else len(self._rest))

    def rest(self) -> str:
        """What has no end, and gets none."""
        return self._taken(len(self._rest))

    def _taken(self, end: int) -> str:
        taken = self._rest[:end].decode(errors="replace")
        del self._rest[:end]
        return taken
