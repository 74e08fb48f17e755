"""Project databases and their schema versions: what is known, and when to try again."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import Enum
from typing import Final, assert_never

TENANT: Final = "^p_[0-9a-f]{12}_(bot|editor|direct)$"
"""The logins of projects, as a regular expression of Postgres. Their sessions may be ended; nobody else's."""
QUIET_TRIES: Final = 5
"""Times a migration waits its lock time-out before tenants' sessions that are in the way are ended: about 2 s in all."""
FORCED_TRIES: Final = 5
"""Times they are ended before this database is left for later."""


@dataclass(frozen=True, slots=True)
class Target:
    """A project's database."""

    cluster: str
    database: str
    project_id: str
    epoch: int = 1


class Hindrance(Enum):
    """Why a database could not be brought forward."""

    AWAY = "away"
    """The cluster does not answer: not this database's fault."""
    LOCKED = "locked"
    """Somebody holds locks that could not be had in time."""
    BROKEN = "broken"
    """A migration fails there. People must look."""


_FIRST: Final = {Hindrance.AWAY: 5.0, Hindrance.LOCKED: 10.0, Hindrance.BROKEN: 60.0}  # seconds
_CAP: Final = {Hindrance.AWAY: 60.0, Hindrance.LOCKED: 600.0, Hindrance.BROKEN: 3600.0}
_JITTER: Final = 0.5  # the share that is random: a thousand databases of one cluster shall not come back at once


def pause_after(hindrance: Hindrance, attempts: int, chance: float) -> float:
    """Seconds until the next try after `attempts` failed ones, with `chance` from 0 to 1."""
    whole = min(_CAP[hindrance], _FIRST[hindrance] * 2.0 ** min(max(attempts - 1, 0), 30))
    return whole * (1 - _JITTER * chance)


def pause_before_retry(attempt: int, chance: float) -> float:
    """Seconds between two quiet tries on a locked table: 50 ms, doubling, with jitter."""
    return 0.05 * 2.0**attempt * (0.5 + chance / 2)


@dataclass(frozen=True, slots=True)
class Forward:
    """The database is at this version now."""

    version: int


@dataclass(frozen=True, slots=True)
class Hindered:
    """It is not. `reason` is for people and holds nothing of the tenant's."""

    hindrance: Hindrance
    reason: str


@dataclass(frozen=True, slots=True)
class Gone:
    """There is no such database any more."""


Outcome = Forward | Hindered | Gone


def kind_of(outcome: Outcome) -> str:
    """One word for it: forward, gone, away, locked or broken."""
    match outcome:
        case Forward():
            return "forward"
        case Gone():
            return "gone"
        case Hindered(hindrance):
            return hindrance.value
    assert_never(outcome)


@dataclass(frozen=True, slots=True)
class Template:
    """A sealed template of a cluster."""

    cluster: str
    version: int
    database: str
    sealed_at: datetime


@dataclass(frozen=True, slots=True)
class Failing:
    """A database whose last attempt failed."""

    target: Target
    version: int
    attempts: int
    reason: str
    next_at: datetime


@dataclass(frozen=True, slots=True)
class Progress:
    """Where a sweep stands."""

    total: int
    behind: int
    failing: tuple[Failing, ...]
