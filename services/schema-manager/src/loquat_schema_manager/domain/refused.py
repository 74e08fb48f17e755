"""What a plan cannot do, said so that the adapter can make it a problem."""

from __future__ import annotations

from typing import Any


class Refused(Exception):
    """A change that is refused before PostgreSQL is asked. The members are those of a `Problem`; `extra` stand beside them."""

    def __init__(self, status: int, code: str, title: str, detail: str | None = None, **extra: Any) -> None:
        super().__init__(f"{status} {code}")
        self.status, self.code, self.title, self.detail, self.extra = status, code, title, detail, extra
