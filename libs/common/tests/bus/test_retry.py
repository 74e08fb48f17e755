"""How long until the next try, and when to give up: a pure function."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from loquat_common.bus.port import Dead, Retry
from loquat_common.bus.retry import Backoff

BACKOFF = Backoff(first=0.5, factor=2.0, cap=300.0, tries=5, jitter=0.5)


def test_pauses_double_up_to_the_cap() -> None:
    assert [BACKOFF.delay(n, 0.0) for n in range(4)] == [0.5, 1.0, 2.0, 4.0]
    assert [BACKOFF.delay(n, 0.0) for n in (9, 10, 60, 10_000)] == [256.0, 300.0, 300.0, 300.0]


@given(st.integers(0, 10_000), st.floats(0, 1), st.floats(0, 1))
def test_chance_takes_off_no_more_than_the_jitter_and_a_later_pause_is_never_shorter(attempt: int, chance: float, other: float) -> None:
    whole = BACKOFF.delay(attempt, 0.0)
    assert whole / 2 <= BACKOFF.delay(attempt, chance) <= whole
    if BACKOFF.delay(attempt + 1, 0.0) == 2 * whole:
        assert BACKOFF.delay(attempt, chance) <= BACKOFF.delay(attempt + 1, other)


def test_without_jitter_chance_says_nothing() -> None:
    assert Backoff(jitter=0.0).delay(3, 0.9) == Backoff(jitter=0.0).delay(3, 0.0)


@pytest.mark.parametrize("attempts", range(4))
def test_it_is_tried_again_as_long_as_tries_are_left(attempts: int) -> None:
    assert BACKOFF.outcome(attempts, 0.5, "broken") == Retry(BACKOFF.delay(attempts, 0.5), "broken")


@pytest.mark.parametrize("attempts", [4, 5, 100])
def test_after_the_last_try_it_is_given_up_with_its_reason(attempts: int) -> None:
    assert BACKOFF.outcome(attempts, 0.5, "broken") == Dead("broken")
