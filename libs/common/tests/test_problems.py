"""Problems can always be told, and cursors are ours or refused."""

from __future__ import annotations

import base64
import json
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest
from loquat_common import cursors
from loquat_common.problems import Problem


def deep(levels: int) -> list[Any]:
    made: list[Any] = []
    for _ in range(levels):
        made = [made]
    return made


@pytest.mark.parametrize(
    ("value", "told"),
    [
        (10**24, 10**24),
        ({"a": [10**24, "é"]}, {"a": [10**24, "é"]}),
        ("\ud800", "\ud800"),
        (deep(300), deep(300)),
        (deep(100_000), None),
        ({1: 2}, {"1": 2}),
        (datetime(2026, 1, 1, tzinfo=UTC), "2026-01-01T00:00:00+00:00"),
    ],
)
def test_a_problem_is_written_whatever_it_is_about(value: object, told: object) -> None:
    body = json.loads(Problem(409, "row_changed", "It changed", given=value).body())
    assert body == {"status": 409, "code": "row_changed", "title": "It changed", "given": told}


@pytest.mark.parametrize("moment", ["0001-01-01T00:00:00+14:00", "9999-12-31T23:59:59-14:00", "2026-01-01T00:00:00", "now"])
def test_a_cursor_that_no_page_gave_is_refused(moment: str) -> None:
    cursor = base64.urlsafe_b64encode(f"{moment} {uuid4()}".encode()).decode().rstrip("=")
    with pytest.raises(Problem, match="400 invalid_cursor"):
        cursors.decode(cursor)


def test_a_cursor_comes_back_as_it_was() -> None:
    key = datetime(2026, 1, 1, 12, 30, 1, 5, tzinfo=UTC), uuid4()
    assert cursors.decode(cursors.encode(*key)) == key
