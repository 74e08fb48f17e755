"""What keys may do. A key holds scopes; every route names the one it needs."""

from __future__ import annotations

from typing import Final, Literal

Scope = Literal[
    "projects:read",
    "projects:write",
    "numbers:read",
    "numbers:write",
    "bots:read",
    "bots:write",
    "conversations:read",
    "contacts:write",
    "messages:write",
    "dead-letters:read",
    "dead-letters:write",
    "database:read",
    "database:write",
    "database:sql",
    "database:own",
]
ALL: Final[tuple[Scope, ...]] = (
    "projects:read",
    "projects:write",
    "numbers:read",
    "numbers:write",
    "bots:read",
    "bots:write",
    "conversations:read",
    "contacts:write",
    "messages:write",
    "dead-letters:read",
    "dead-letters:write",
    "database:read",
    "database:write",
    "database:sql",
    "database:own",
)
