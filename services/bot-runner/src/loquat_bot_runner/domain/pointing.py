"""What becomes of a project's pointer when a person deploys, tries, promotes, stops, goes back or pauses: pure steps from one to the next."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Final, Literal
from uuid import UUID

from loquat_events.bots import Canary, CanaryStep

Kind = Literal["deploy", "canary", "promote", "stop", "rollback", "testers", "pause", "resume"]
SETTLED: Final = timedelta(seconds=5)
"""After this every replica has heard of a canary, and two clocks agree: only conversations opened later may be its."""
MOST_STEPS: Final = 20
"""Percentages that one canary goes through."""


class CannotPoint(Exception):
    """The step is not possible from where the pointer is. `code` is for programs."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code, self.reason = code, reason


@dataclass(frozen=True, slots=True)
class Pointing:
    """Where a project's pointer goes. `before`: the deployment to which a rollback from there leads. `paused`: whatever it is, nobody is answered."""

    version: str
    before: UUID | None = None
    canary: Canary | None = None
    testers: Mapping[str, str] = field(default_factory=dict[str, str])
    paused: bool = field(default=False, kw_only=True)

    @property
    def named(self) -> frozenset[str]:
        """Versions, and perhaps the draft, that it names."""
        return frozenset({self.version, *([self.canary.version] if self.canary is not None else []), *self.testers.values()})


@dataclass(frozen=True, slots=True)
class Here(Pointing):
    """Where it is: the deployment that put it here, and where that one's `before` had put it."""

    deployment: UUID | None = None
    back: Pointing | None = None


def deployed(now: Here | None, version: str) -> Pointing:
    """Everybody but test contacts is answered by this version; a canary ends. A paused bot stays paused."""
    if now is None:
        return Pointing(version)
    return Pointing(version, now.before if version == now.version else now.deployment, None, now.testers, paused=now.paused)


def tried(now: Here | None, version: str, percent: int, at: datetime, *, opened: bool) -> Pointing:
    """So many per cent of the contacts are answered by this version; asked again, the percentage is another from now on.

    Raises:
        CannotPoint: nothing is deployed that it could be compared with, or it is that version.
    """
    if now is None:
        raise CannotPoint("nothing_deployed", "nothing is deployed that a canary could be compared with")
    if version == now.version:
        raise CannotPoint("same_version", "that version is deployed for everybody already")
    steps: tuple[CanaryStep, ...] = ()
    if now.canary is not None and now.canary.version == version:
        steps = now.canary.steps
    if len(steps) >= MOST_STEPS:
        raise CannotPoint("too_many_steps", f"a canary goes through {MOST_STEPS} percentages at most; promote or stop it")
    canary = Canary(version=version, steps=(*steps, CanaryStep(percent=percent, since=at + SETTLED)), open=opened)
    return Pointing(now.version, now.before, canary, now.testers, paused=now.paused)


def promoted(now: Here | None) -> Pointing:
    """The canary is for everybody.

    Raises:
        CannotPoint: there is none.
    """
    canary = _canary(now)
    assert now is not None  # noqa: S101  (a canary is in a pointer)
    return Pointing(canary.version, now.deployment, None, now.testers, paused=now.paused)


def stopped(now: Here | None) -> Pointing:
    """The canary is for nobody.

    Raises:
        CannotPoint: there is none.
    """
    _canary(now)
    assert now is not None  # noqa: S101  (a canary is in a pointer)
    return Pointing(now.version, now.before, None, now.testers, paused=now.paused)


def rolled_back(now: Here | None) -> Pointing:
    """Where the pointer was before: without the canary if there is one, else at the version before.

    Raises:
        CannotPoint: it was nowhere before.
    """
    if now is not None and now.canary is not None:
        return stopped(now)
    if now is None or now.back is None:
        raise CannotPoint("nothing_before", "there is no version before this one")
    return Pointing(now.back.version, now.back.before, None, now.testers, paused=now.paused)


def tested(now: Here | None, testers: Mapping[str, str]) -> Pointing:
    """These contacts, and no others, are answered by a version of their own.

    Raises:
        CannotPoint: nothing is deployed.
    """
    if now is None:
        raise CannotPoint("nothing_deployed", "deploy a version first: all other contacts need one")
    return Pointing(now.version, now.before, now.canary, testers, paused=now.paused)


def paused(now: Here | None) -> Pointing:
    """Nobody is answered until it is resumed.

    Raises:
        CannotPoint: nothing is deployed, or it is paused.
    """
    if now is None:
        raise CannotPoint("nothing_deployed", "nothing is deployed: there is no bot to be paused")
    if now.paused:
        raise CannotPoint("paused_already", "the bot is paused already")
    return Pointing(now.version, now.before, now.canary, now.testers, paused=True)


def resumed(now: Here | None) -> Pointing:
    """Whoever writes from now on is answered as before; who wrote meanwhile is not.

    Raises:
        CannotPoint: it is not paused.
    """
    if now is None or not now.paused:
        raise CannotPoint("not_paused", "the bot is not paused")
    return Pointing(now.version, now.before, now.canary, now.testers)


def _canary(now: Here | None) -> Canary:
    if now is None or now.canary is None:
        raise CannotPoint("no_canary", "there is no canary")
    return now.canary
