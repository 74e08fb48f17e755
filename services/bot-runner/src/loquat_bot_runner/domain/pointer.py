"""Which version answers whom: a pure function of what was deployed, the contact and when the conversation was opened.

Nothing is kept per conversation: a repeat after a crash, and any other replica, decides the same.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal
from uuid import UUID

from loquat_events.bots import BotDeployed, Canary

DRAFT: Final = "draft"
"""Instead of a version: whatever the project's draft holds when the event comes."""
Why = Literal["stable", "canary", "tester"]


@dataclass(frozen=True, slots=True)
class Choice:
    """A version, or DRAFT, and why it."""

    version: str
    why: Why


def needs_opening(deployed: BotDeployed, contact: UUID) -> bool:
    """Whether the choice depends on when the conversation was opened."""
    canary = deployed.canary
    return canary is not None and str(contact) not in deployed.testers and not canary.open and _most(canary) > share_of(canary, contact)


def choose(deployed: BotDeployed, contact: UUID, opened_at: datetime | None) -> Choice:
    """Who answers this contact. `opened_at` is the conversation's; None where it does not matter.

    A contact is in the canary if its hash is below the percentage that was in force when its conversation was opened, so nobody changes
    versions in the middle of one; conversations that were open before the canary stay with the stable version, unless it takes open ones too.
    """
    if (own := deployed.testers.get(str(contact))) is not None:
        return Choice(own, "tester")
    canary = deployed.canary
    if canary is not None:
        percent = _most(canary) if canary.open else _in_force(canary, opened_at)
        if share_of(canary, contact) < percent:
            return Choice(canary.version, "canary")
    return Choice(deployed.version, "stable")


def versions(deployed: BotDeployed) -> frozenset[str]:
    """All that somebody is answered by; a draft has no version of its own until it is asked."""
    canary = {deployed.canary.version} if deployed.canary is not None else set[str]()
    return frozenset({deployed.version, *canary, *deployed.testers.values()} - {DRAFT})


def share_of(canary: Canary, contact: UUID) -> float:
    """Where the contact stands between 0 and 100. Each canary asks others first, so that not the same people meet every mistake."""
    drawn = hashlib.sha256(f"{canary.version}:{contact}".encode()).digest()
    return int.from_bytes(drawn[:8]) / 2**64 * 100


def _most(canary: Canary) -> int:
    return max((s.percent for s in canary.steps), default=0)


def _in_force(canary: Canary, opened_at: datetime | None) -> int:
    if opened_at is None:
        return 0
    return next((s.percent for s in reversed(canary.steps) if s.since <= opened_at), 0)
