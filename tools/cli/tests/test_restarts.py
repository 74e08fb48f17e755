"""When a process is started again, and in which words its end is told."""

from __future__ import annotations

import pytest
from loquat_cli.restarts import Restarts, exit_words


def test_the_pause_doubles_to_a_limit() -> None:
    policy = Restarts(first=0.1, longest=1.0)
    assert [policy.delay(n) for n in (1, 2, 3, 4, 5, 1000)] == [0.1, 0.2, 0.4, 0.8, 1.0, 1.0]


def test_a_stable_time_forgives_all_earlier_deaths() -> None:
    policy = Restarts(stable=10)
    assert policy.in_a_row(7, uptime=9.9) == 8
    assert policy.in_a_row(7, uptime=10) == 1


def test_five_deaths_in_a_row_are_a_crash_loop() -> None:
    assert [Restarts().looping(n) for n in (1, 4, 5)] == [False, False, True]


@pytest.mark.parametrize(
    ("code", "words"), [(1, "exit code 1"), (-9, "killed by SIGKILL"), (-99, "killed by signal 99"), (78, "wrong settings")]
)
def test_an_end_is_told_in_words(code: int, words: str) -> None:
    assert exit_words(code) == words
