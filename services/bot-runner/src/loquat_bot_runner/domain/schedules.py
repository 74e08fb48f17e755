"""When a bot's schedule is due, and what follows times that were missed. Pure; all times are with their zone, answers are UTC."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final, Literal, get_args
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from cronsim import CronSim, CronSimError

CatchUp = Literal["skip", "once", "all"]
ON_TIME: Final = timedelta(minutes=1)
"""So late a time is not missed: a replica was busy, or has just taken over."""
MOST_CAUGHT_UP: Final = 24
"""Missed times that `all` makes up for: the last ones."""
MOST_SCHEDULES: Final = 50
_LONGEST: Final = 100
_LONGEST_NAME: Final = 60
_FIELDS: Final = 5
_BACK: Final = (timedelta(hours=1), timedelta(days=1), timedelta(days=31), timedelta(days=400))
"""How far to look back, in steps: so that a schedule of every minute is not followed through a month to find its last times."""


class NoSchedule(ValueError):
    """What a bot declared as a schedule is none."""


@dataclass(frozen=True, slots=True)
class Plan:
    """Five fields as cron has them, a time zone, and what follows missed times.

    As in Debian's cron: a set time that the clock skips in spring comes right after the gap, one that it repeats in autumn comes once; what comes
    every hour or minute goes by the time that really passes.
    """

    expression: str
    tz: str
    catch_up: CatchUp = "once"

    @classmethod
    def checked(cls, expression: str, tz: str, catch_up: str) -> Plan:
        """The bot's word.

        Raises:
            NoSchedule: it is none.
        """
        known: dict[str, CatchUp] = {c: c for c in get_args(CatchUp)}
        if len(expression) > _LONGEST or len(expression.split()) != _FIELDS or catch_up not in known:
            raise NoSchedule(f"{expression[:_LONGEST]!r} is no schedule")
        plan = cls(expression, tz, known[catch_up])
        plan.after(datetime(2026, 1, 1, tzinfo=UTC))
        return plan

    def after(self, at: datetime) -> datetime:
        """The first time that is later.

        Raises:
            NoSchedule: there is none, or no such time zone.
        """
        try:
            return next(self._times(at))
        except (CronSimError, ZoneInfoNotFoundError, StopIteration, ValueError, OSError, OverflowError):
            raise NoSchedule(f"{self.expression!r} {self.tz!r} is no schedule") from None

    def last(self, since: datetime, upto: datetime, most: int) -> list[datetime]:
        """The last times from `since` to `upto`, both included, at most so many, the earliest first."""
        found: deque[datetime] = deque(maxlen=most)
        for back in _BACK:
            start = max(since, upto - back)
            found.clear()
            for time in self._times(start - timedelta(seconds=1)):
                if time > upto:
                    break
                found.append(time)
            if len(found) == most or start == since:
                break
        return list(found)

    def _times(self, after: datetime) -> Any:
        for time in CronSim(self.expression, after.astimezone(ZoneInfo(self.tz))):
            yield time.astimezone(UTC)


@dataclass(frozen=True, slots=True)
class Declared:
    """A schedule of a version, as it says. `handler` is for people."""

    name: str
    plan: Plan
    handler: str = ""


def declared(told: list[dict[str, str]]) -> list[Declared]:
    """Those of a version's own words that are schedules, each name once."""
    found: dict[str, Declared] = {}
    for one in told[:MOST_SCHEDULES]:
        if not 1 <= len(one["name"]) <= _LONGEST_NAME or "\0" in one["name"]:
            continue
        try:
            plan = Plan.checked(one["schedule"], one["tz"], one["catch_up"])
        except NoSchedule:
            continue
        found[one["name"]] = Declared(one["name"], plan, one["handler"].replace("\0", "")[:200])
    return list(found.values())


def to_fire(plan: Plan, due_at: datetime, now: datetime) -> list[datetime]:
    """Which times follow now, when `due_at` has come and whatever was missed since."""
    most = MOST_CAUGHT_UP if plan.catch_up == "all" else 1
    times = plan.last(due_at, now, most)
    return times if plan.catch_up != "skip" else [t for t in times if now - t <= ON_TIME]
