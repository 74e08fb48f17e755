"""When schedules are due, over changes of the clock; what follows missed times; what becomes of a row of the index. No database."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Literal
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_bot_runner.domain.firing import NOT_YET, DueRow, Settled, settle
from loquat_bot_runner.domain.schedules import MOST_CAUGHT_UP, ON_TIME, CatchUp, Declared, NoSchedule, Plan, declared, to_fire
from loquat_events.projects import ProjectListed

BERLIN = "Europe/Berlin"
ZONES = st.sampled_from(["UTC", BERLIN, "America/New_York", "Australia/Lord_Howe", "Pacific/Apia", "Asia/Kathmandu"])
EXPRESSIONS = st.one_of(
    st.builds("{} {} * * *".format, st.integers(0, 59), st.integers(0, 23)),
    st.builds("*/{} * * * *".format, st.sampled_from([1, 5, 15, 30])),
    st.builds("{} */{} * * 1-5".format, st.integers(0, 59), st.integers(1, 12)),
    st.builds("{} {} {} * *".format, st.integers(0, 59), st.integers(0, 23), st.integers(1, 31)),
)
TIMES = st.integers(0, 4 * 365 * 24 * 60).map(
    lambda minutes: datetime(2024, 1, 1, tzinfo=UTC) + timedelta(minutes=minutes, seconds=minutes % 60)
)
NOW = datetime(2026, 3, 10, 12, tzinfo=UTC)


def utc(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def following(plan: Plan, at: datetime, count: int) -> list[str]:
    found: list[str] = []
    for _ in range(count):
        at = plan.after(at)
        found.append(f"{at:%m-%d %H:%M}")
    return found


def test_nine_in_berlin_is_nine_in_berlin_in_winter_and_in_summer() -> None:
    plan = Plan("0 9 * * 1-5", BERLIN)
    assert following(plan, utc("2026-03-27T09:00"), 2) == ["03-30 07:00", "03-31 07:00"]
    assert following(plan, utc("2026-10-23T08:00"), 2) == ["10-26 08:00", "10-27 08:00"]


def test_a_time_that_is_skipped_in_spring_comes_after_the_gap_and_one_that_is_repeated_in_autumn_comes_once() -> None:
    plan = Plan("30 2 * * *", BERLIN)
    assert following(plan, utc("2026-03-28T02:00"), 3) == ["03-29 01:00", "03-30 00:30", "03-31 00:30"]
    assert following(plan, utc("2026-10-24T12:00"), 2) == ["10-25 00:30", "10-26 01:30"]
    hourly = Plan("0 * * * *", BERLIN)
    assert following(hourly, utc("2026-10-24T22:30"), 4) == ["10-24 23:00", "10-25 00:00", "10-25 01:00", "10-25 02:00"]


@given(EXPRESSIONS, ZONES, TIMES)
def test_times_only_go_forward_and_fit_their_expression_or_follow_a_gap(expression: str, tz: str, at: datetime) -> None:
    plan = Plan(expression, tz)
    first = plan.after(at)
    second = plan.after(first)
    assert at < first < second
    assert first.tzinfo is UTC
    minute, _ = expression.split(maxsplit=1)
    if minute.isdigit():
        local = first.astimezone(ZoneInfo(tz))
        before = (first - timedelta(minutes=1)).astimezone(ZoneInfo(tz))
        assert local.minute == int(minute) or local.utcoffset() != before.utcoffset()


@given(EXPRESSIONS, ZONES, TIMES, st.integers(1, 30), st.integers(0, 20 * 24 * 60))
def test_the_last_times_are_the_last_of_all_times_between(expression: str, tz: str, at: datetime, most: int, minutes: int) -> None:
    plan = Plan(expression, tz)
    since, upto = plan.after(at), at + timedelta(minutes=minutes % 600 if expression.startswith("*/") else minutes)
    every: list[datetime] = []
    time = since
    while time <= upto:
        every.append(time)
        time = plan.after(time)
    assert plan.last(since, upto, most) == every[-most:]


@pytest.mark.parametrize(
    ("catch_up", "late", "count"),
    [
        ("skip", timedelta(seconds=20), 1),
        ("skip", timedelta(minutes=30), 0),
        ("once", timedelta(minutes=30), 1),
        ("once", timedelta(days=9), 1),
        ("all", timedelta(hours=5), 6),
        ("all", timedelta(days=9), MOST_CAUGHT_UP),
    ],
)
def test_what_was_missed_is_skipped_done_once_or_done_as_often_as_it_was_missed(catch_up: CatchUp, late: timedelta, count: int) -> None:
    times = to_fire(Plan("0 * * * *", "UTC", catch_up), NOW, NOW + late)
    assert len(times) == count
    assert times == sorted(set(times))
    assert all(NOW <= t <= NOW + late for t in times)
    if catch_up == "skip":
        assert all(NOW + late - t <= ON_TIME for t in times)


def test_a_schedule_of_every_minute_that_was_missed_for_a_year_is_caught_up_in_few_steps() -> None:
    plan = Plan("* * * * *", "UTC", "all")
    assert plan.last(NOW - timedelta(days=400), NOW, 24) == [NOW - timedelta(minutes=n) for n in range(23, -1, -1)]
    monthly = Plan("0 0 1 * *", "UTC")
    assert to_fire(monthly, utc("2026-02-01T00:00"), NOW) == [utc("2026-03-01T00:00")]


@pytest.mark.parametrize(
    ("expression", "tz", "catch_up"),
    [
        ("* * * *", "UTC", "once"),
        ("0 0 31 2 *", "UTC", "once"),
        ("* * * * *", "../x", "once"),
        ("* * * * *", "UTC", "twice"),
        ("x" * 101, "UTC", "once"),
    ],
)
def test_what_is_no_schedule_is_none_whoever_says_so(expression: str, tz: str, catch_up: str) -> None:
    with pytest.raises(NoSchedule):
        Plan.checked(expression, tz, catch_up)
    told = {"name": "a", "schedule": expression, "tz": tz, "catch_up": catch_up, "handler": "h"}
    good = {"name": "b", "schedule": "* * * * *", "tz": "UTC", "catch_up": "all", "handler": "h"}
    assert declared([told, good, {**good, "name": ""}, good]) == [Declared("b", Plan("* * * * *", "UTC", "all"), "h")]


def row(kind: Literal["timer", "schedule"], epoch: int = 1) -> DueRow:
    body = {"name": "n", "schedule": "0 9 * * *", "tz": "UTC", "catch_up": "once"}
    return DueRow("prj", uuid4(), kind, uuid4(), epoch, NOW - timedelta(hours=3), "lane", body)


def project(state: Literal["ready", "creating"] = "ready", epoch: int = 1) -> ProjectListed:
    return ProjectListed(project_id="prj", organization_id="o", name="p", state=state, epoch=epoch)


@pytest.mark.parametrize("listed", [None, project("creating"), project(epoch=0)])
@pytest.mark.parametrize("kind", ["timer", "schedule"])
def test_what_is_due_waits_while_its_project_is_not_ready(kind: Literal["timer", "schedule"], listed: ProjectListed | None) -> None:
    due = row(kind)
    assert settle(due, listed, NOW) == Settled(due_at=due.due_at, look_at=NOW + NOT_YET, epoch=1)


def test_a_timer_fires_once_and_never_in_a_restored_database_and_a_schedule_goes_on() -> None:
    timer, schedule = row("timer"), row("schedule")
    assert settle(timer, project(), NOW) == Settled((timer.due_at,))
    assert settle(timer, project(epoch=2), NOW) == Settled()
    tomorrow = NOW.replace(hour=9) + timedelta(days=1)
    assert settle(schedule, project(), NOW) == Settled((NOW.replace(hour=9),), tomorrow, tomorrow, 1)
    assert settle(schedule, project(epoch=2), NOW) == Settled((NOW.replace(hour=9),), tomorrow, tomorrow, 2, stale=True)
