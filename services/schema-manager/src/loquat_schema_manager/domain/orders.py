"""An order that may come again: the same Idempotency-Key means the same change set."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from uuid import UUID

from loquat_events.ids import order_id
from loquat_rest import changes as shapes
from pydantic import TypeAdapter

_CHANGES: Final = TypeAdapter(list[shapes.Change])


@dataclass(frozen=True, slots=True)
class Order:
    """`id` is of project and key alone; `digest` of what was ordered."""

    id: UUID
    digest: bytes

    @classmethod
    def of(cls, project: str, key: str, changes: Sequence[shapes.Change], message: str | None, *, force: bool) -> Order:
        """The order of these changes under this key."""
        wanted = [_CHANGES.dump_python(list(changes), mode="json"), message, force]
        return cls(order_id(project, f"changes {key}"), hashlib.sha256(json.dumps(wanted, sort_keys=True).encode()).digest())
